// How a job runs. One 64-bit word holds the job's number, how many workers are in it, and whether it is open. The
// caller fills the job, opens it, takes tasks itself, closes it when none are left, and waits only for workers that
// had joined: a worker that wakes too late finds the job closed and costs nothing. That is what keeps two pools on the
// same CPUs (two engines) from waiting for each other's sleeping threads.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

#include "cpus.h"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace kvasir {
namespace {

constexpr uint64_t kOpen = 1;
constexpr uint64_t kJoined = 2;           // one worker in the job
constexpr int kNumberShift = 24;          // job number above, workers below: 2^23 threads at most
constexpr uint64_t kJoinedMask = (uint64_t{1} << kNumberShift) - kJoined;

// Kernels of a decode step follow each other within a few microseconds of JavaScript, of eight sequences within 50 to 100 between two
// products; a wake-up costs 5 to 50, on a virtual machine often more. With 50 in place of 500 a step of eight woke its worker 30 times and
// took a tenth longer. Where others want the CPU, a spinning worker yields to them.
constexpr auto kSpin = std::chrono::microseconds(500);
constexpr auto kMoveInterval = std::chrono::microseconds(200);

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void pin(std::thread& thread, int cpu) {
#ifdef __linux__
  cpu_set_t* set = CPU_ALLOC(cpu + 1);
  if (set == nullptr) return;  // unpinned is slower, not wrong
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  pthread_setaffinity_np(thread.native_handle(), bytes, set);
  CPU_FREE(set);
#else
  (void)thread, (void)cpu;
#endif
}

}  // namespace

struct Pool::State {
  // Written by the caller while no worker is inside the job.
  alignas(64) void* body = nullptr;
  Entry entry = nullptr;
  int64_t tasks = 0;
  alignas(64) std::atomic<uint64_t> word{0};
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;
  std::vector<int> cpus;  // of each worker; cpus[0] is the one left to the caller; empty when nothing is pinned
  std::chrono::steady_clock::time_point moved{};

  void take_tasks(int worker) {
    if (tasks == kEveryWorker) return entry(body, 0, worker);
    for (;;) {
      const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      entry(body, static_cast<int>(task), worker);
    }
  }

  // Joins the open job if it is not number `seen`; returns its number or `seen`.
  uint64_t try_job(int worker, uint64_t seen) {
    uint64_t now = word.load(std::memory_order_acquire);
    while ((now & kOpen) != 0 && now >> kNumberShift != seen) {
      if (!word.compare_exchange_weak(now, now + kJoined, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      take_tasks(worker);
      word.fetch_sub(kJoined, std::memory_order_release);
      return now >> kNumberShift;
    }
    return seen;
  }

  bool has_job(uint64_t seen) const {
    const uint64_t now = word.load(std::memory_order_seq_cst);
    return (now & kOpen) != 0 && now >> kNumberShift != seen;
  }

  void work(int worker) {
    uint64_t seen = 0;
    while (!stop.load(std::memory_order_relaxed)) {
      const auto until = std::chrono::steady_clock::now() + kSpin;
      bool worked = false;
      do {
        for (int i = 0; i < 32 && !worked; i++) {
          const uint64_t job = try_job(worker, seen);
          worked = job != seen;
          seen = job;
          if (!worked) pause();
        }
        if (!worked) std::this_thread::yield();  // costs 0.3 us alone; frees the CPU where another thread wants it
      } while (!worked && std::chrono::steady_clock::now() < until);
      if (worked) continue;
      std::unique_lock<std::mutex> lock(mutex);
      sleepers.fetch_add(1, std::memory_order_seq_cst);
      wake.wait(lock, [&] { return stop.load(std::memory_order_relaxed) || has_job(seen); });
      sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  // The caller floats. Where the scheduler has put it on a worker's CPU, that worker moves to the CPU left free, or
  // both would share one until the load balancer notices, milliseconds later.
  void keep_off_caller() {
    if (cpus.empty()) return;
    const int here = current_cpu();
    if (here == cpus[0]) return;
    for (size_t w = 1; w < cpus.size(); w++) {
      if (cpus[w] != here) continue;
      const auto now = std::chrono::steady_clock::now();
      if (now - moved < kMoveInterval) return;
      moved = now;
      cpus[w] = cpus[0];
      cpus[0] = here;
      pin(threads[w - 1], cpus[w]);
      return;
    }
    cpus[0] = here;  // a CPU no worker has
  }
};

Pool::Pool(int threads) : state_(new State), threads_(threads < 1 ? 1 : threads), shares_(new Share[threads_]) {
  State& s = *state_;
  const std::vector<int> usable = usable_cpus();
  if (threads_ > 1 && threads_ <= static_cast<int>(usable.size()) && current_cpu() >= 0) {
    size_t home = 0;
    while (home + 1 < usable.size() && usable[home] != current_cpu()) home++;
    for (int w = 0; w < threads_; w++) s.cpus.push_back(usable[(home + w) % usable.size()]);
  }
  try {
    for (int w = 1; w < threads_; w++) {
      s.threads.emplace_back([&s, w] { s.work(w); });
      if (!s.cpus.empty()) pin(s.threads.back(), s.cpus[w]);
    }
  } catch (...) {
    shut_down();
    throw;
  }
}

Pool::Pool(const kvasir_executor& borrowed)
    : borrowed_(borrowed), threads_(borrowed.threads), shares_(new Share[threads_]) {}

Pool::~Pool() { shut_down(); }

kvasir_executor Pool::lend() {
  return {this, threads_, [](void* self, int32_t tasks, void* body, Entry entry) {
            static_cast<Pool*>(self)->run_erased(tasks, body, entry);
          }};
}

void Pool::shut_down() {
  if (state_ == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop.store(true, std::memory_order_relaxed);
  }
  state_->wake.notify_all();
  for (std::thread& t : state_->threads) t.join();
  state_->threads.clear();
}

void Pool::run_erased(int tasks, void* body, Entry entry) {
  if (threads_ == 1 || (tasks <= 1 && tasks != kEveryWorker)) {
    if (tasks == kEveryWorker) tasks = 1;
    for (int task = 0; task < tasks; task++) entry(body, task, 0);
    return;
  }
  if (state_ == nullptr) {
    borrowed_.run(borrowed_.self, tasks, body, entry);
    return;
  }
  State& s = *state_;
  s.keep_off_caller();
  s.body = body;
  s.entry = entry;
  s.tasks = tasks;
  if (tasks != kEveryWorker) s.next.store(0, std::memory_order_relaxed);
  const uint64_t number = (s.word.load(std::memory_order_relaxed) >> kNumberShift) + 1;
  s.word.store(number << kNumberShift | kOpen, std::memory_order_seq_cst);
  if (s.sleepers.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard<std::mutex> lock(s.mutex); }  // a worker between its last look and its sleep gets there first
    s.wake.notify_all();
  }
  s.take_tasks(0);
  uint64_t now = s.word.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (now & kJoinedMask) != 0; spins++) {
    // A worker that lost its CPU in the middle of a task may be waiting for this one.
    if (spins < 1000) pause();
    else std::this_thread::yield();
    now = s.word.load(std::memory_order_acquire);
  }
}

}  // namespace kvasir
