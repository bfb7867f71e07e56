// Which CPUs this process may use.
#pragma once
#include <vector>

namespace kvasir {

// CPUs of the process's affinity mask in rising order; without one (not Linux), 0 .. hardware threads - 1.
std::vector<int> usable_cpus();

// Threads worth starting: the usable CPUs, capped by the cgroup's CPU quota; at least 1.
int default_threads();

// CPU the calling thread runs on, or -1 where that is unknown.
int current_cpu();

}  // namespace kvasir
