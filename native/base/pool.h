// A small pool of pinned threads: the caller is worker 0, the others spin briefly between jobs and then sleep.
// The caller is a thread of the host (a JavaScript worker), so its affinity is never changed: the workers keep off the
// CPU it runs on instead.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "kvasir_abi.h"

namespace kvasir {

class Pool {
 public:
  // threads >= 1, the caller included. Workers pin themselves to the CPUs of the process's affinity mask.
  explicit Pool(int threads);
  // The threads of another library.
  explicit Pool(const kvasir_executor& borrowed);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // This pool for another library; valid as long as the pool.
  kvasir_executor lend();

  // Calls body(task, worker) for every task in [0, tasks), each exactly once, taken dynamically from a shared counter;
  // returns when all are done. worker is in [0, threads()). body must not throw, nor run a job of its own.
  // Runs inline when tasks or threads is 1.
  // F is any callable; it is borrowed, not copied.
  template <class F>
  void run(int tasks, F&& body) {
    using Body = std::remove_reference_t<F>;  // const or not
    void* erased = const_cast<void*>(static_cast<const void*>(&body));
    run_erased(tasks, erased, [](void* b, int task, int worker) { (*static_cast<Body*>(b))(task, worker); });
  }

  // As run(), but every worker takes neighbouring tasks in order from a share of its own, and only then from others': what lies
  // behind a task's memory is most likely its worker's next, and may be fetched.
  template <class F>
  void run_shares(int tasks, F&& body) {
    for (int s = 0; s < threads_; s++) {
      shares_[s].next.store(border(tasks, s), std::memory_order_relaxed);
      shares_[s].end = border(tasks, s + 1);
    }
    const auto take = [&](int first, int worker) {
      for (int i = 0; i < threads_; i++) {
        Share& share = shares_[(first + i) % threads_];
        for (;;) {
          const int task = share.next.fetch_add(1, std::memory_order_relaxed);
          if (task >= share.end) break;
          body(task, worker);
        }
      }
    };
    if (tasks < 2 || state_ == nullptr) return run(tasks < threads_ ? tasks : threads_, take);
    run_erased(kEveryWorker, const_cast<void*>(static_cast<const void*>(&take)), [](void* t, int, int worker) {
      (*static_cast<decltype(&take)>(t))(worker, worker);
    });
  }

 private:
  struct alignas(64) Share {
    std::atomic<int> next;
    int end;
  };
  int border(int tasks, int share) const { return static_cast<int>(int64_t{tasks} * share / threads_); }
  using Entry = void (*)(void* body, int32_t task, int32_t worker);
  // In place of tasks: body is called once by every worker that comes before the caller's own call ends.
  static constexpr int kEveryWorker = -1;
  void run_erased(int tasks, void* body, Entry entry);
  void shut_down();
  struct State;
  std::unique_ptr<State> state_;  // null when the threads are borrowed
  kvasir_executor borrowed_{};
  int threads_;
  std::unique_ptr<Share[]> shares_;  // of run_shares(), one a thread
};

}  // namespace kvasir
