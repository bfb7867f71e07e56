#include "cpus.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace kvasir {
namespace {

// CPUs that a quota file of a cgroup allows, or 0 when it sets no limit. Version 2: "max 100000" or "150000 100000".
double read_quota(const std::string& folder) {
  std::string quota;
  double period = 0;
  std::ifstream v2(folder + "/cpu.max");
  if (v2 >> quota >> period && quota != "max") {
    double value = 0;
    if (std::istringstream(quota) >> value && value > 0 && period > 0) return value / period;
  }
  double value = 0;
  std::ifstream v1(folder + "/cpu.cfs_quota_us"), v1_period(folder + "/cpu.cfs_period_us");
  if (v1 >> value && v1_period >> period && value > 0 && period > 0) return value / period;
  return 0;
}

// The tightest quota of this process's cgroup and its ancestors, or 0. Inside a container the listed path often does
// not exist and the limit is at the root, so every ancestor is tried.
double cgroup_cpus() {
  double limit = 0;
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "0::/path" or "4:cpu,cpuacct:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers.find("cpu") == std::string::npos) continue;
    const std::string root = controllers.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      const double quota = read_quota(root + path);
      if (quota > 0) limit = limit == 0 ? quota : std::min(limit, quota);
      if (path.empty() || path.rfind('/') == std::string::npos) break;
    }
  }
  return limit;
}

}  // namespace

std::vector<int> usable_cpus() {
  std::vector<int> cpus;
#ifdef __linux__
  // Masks larger than cpu_set_t need a larger buffer; the kernel says so by EINVAL.
  for (int capacity = 1024; capacity <= 1 << 16 && cpus.empty(); capacity *= 4) {
    cpu_set_t* set = CPU_ALLOC(capacity);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, set);
    if (sched_getaffinity(0, bytes, set) == 0) {
      for (int cpu = 0; cpu < capacity; cpu++) {
        if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
      }
    }
    CPU_FREE(set);
  }
#endif
  if (cpus.empty()) {
    const int count = std::max(1u, std::thread::hardware_concurrency());
    for (int cpu = 0; cpu < count; cpu++) cpus.push_back(cpu);
  }
  return cpus;
}

int default_threads() {
  const int cpus = static_cast<int>(usable_cpus().size());
  const double quota = cgroup_cpus();
  // Rounded down: a thread beyond the quota is throttled in the middle of a step, and all others wait for it.
  return quota > 0 ? std::max(1, std::min(cpus, static_cast<int>(quota))) : cpus;
}

int current_cpu() {
#ifdef __linux__
  return sched_getcpu();
#else
  return -1;
#endif
}

}  // namespace kvasir
