// Threads of an index context that build slow structure behind the caller, at low priority.
//
// The law of takeover: the same seed, model and history give the same hits, never a matter of timing. A structure whose
// building starts when an index ends at position P over n tokens is due at position P + takeover_horizon(n). Every search
// before the commit that reaches that position uses the old structure and scans the rest; that commit takes the new one over,
// and waits for it where it is not done yet, which the horizon is chosen to make rare and `waited_seconds` counts. settle is a
// call of the caller's history too: it takes over what is being built where it stands. A build reads rows and codes that do not
// change, draws from its own seed, and cuts its work by counts, so how many threads did it shows nowhere.
//
// Threads start with the first job, run at the lowest nice value (SCHED_BATCH on Linux), never touch the caller's pool, and end
// with the context. Who waits for a job works on it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace kvasir {

class Builders;

// One piece of work. What its body reads it owns (copies of Rows, shared_ptr): the index that asked may end first.
class BuildJob : public std::enable_shared_from_this<BuildJob> {
 public:
  // Asked between tasks; a cancelled body returns early and its result is dropped.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // From the body: calls f(task) for every task in [0, tasks), on this thread and idle builders, in any order; returns when
  // all are done. Rethrows the first exception of a task. f must not run a loop of its own.
  template <class F>
  void parallel(int32_t tasks, F&& f) {
    using Body = std::remove_reference_t<F>;
    run_loop(tasks, const_cast<void*>(static_cast<const void*>(&f)),
             [](void* body, int32_t task) { (*static_cast<Body*>(body))(task); });
  }
  // Seconds its body has run, once done.
  double seconds() const { return seconds_; }

 private:
  friend class Builders;
  using Entry = void (*)(void* body, int32_t task);
  void run_loop(int32_t tasks, void* body, Entry entry);

  Builders* builders_ = nullptr;
  std::function<void(BuildJob&)> body_;
  std::atomic<bool> cancelled_{false};
  bool done_ = false;           // of the builders' mutex, as are all below
  std::exception_ptr failure_;
  double seconds_ = 0;
};

class Builders {
 public:
  // threads 0: a job runs where it is started.
  explicit Builders(int threads) : limit_(threads) {}
  // Cancels all jobs and joins all threads.
  ~Builders();
  Builders(const Builders&) = delete;
  Builders& operator=(const Builders&) = delete;

  int threads() const { return limit_; }
  // Queues a job behind those before it.
  std::shared_ptr<BuildJob> start(std::function<void(BuildJob&)> body);
  bool done(const BuildJob& job) const;
  // Waits for a job, working on it; rethrows what its body threw.
  void wait(BuildJob& job);
  // A job that waits in the queue goes at once, with what it holds; a running one as soon as it looks.
  void cancel(BuildJob& job);

 private:
  friend class BuildJob;
  struct Loop;  // a running parallel(), to help with
  struct Work {
    std::shared_ptr<BuildJob> job;
    std::shared_ptr<Loop> loop;  // null: the job's body
  };
  void work();
  void run(const Work& work);
  void add_threads_locked(size_t queued);

  const int limit_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::deque<Work> queue_;
  std::vector<std::thread> threads_;
  std::vector<std::weak_ptr<BuildJob>> jobs_;
  int idle_ = 0;
  size_t started_ = 0;  // threads that have not come to work() yet
  bool stop_ = false;
};

// Tokens after which a structure over n of them takes over.
inline int32_t takeover_horizon(int32_t n) { return 256 + n / 64; }

// A structure being built and the position at which it takes over. Copies (forks) share the job; the last one to end cancels it.
template <class T>
class Pending {
 public:
  // make(job) returns the structure (null where it was cancelled).
  void start(Builders& builders, int32_t due, std::function<std::shared_ptr<const T>(BuildJob&)> make) {
    auto shared = std::make_shared<Shared>(builders);
    Slot* slot = shared->slot.get();
    std::shared_ptr<Slot> keep = shared->slot;
    shared->job = builders.start([keep, slot, make = std::move(make)](BuildJob& job) { slot->result = make(job); });
    shared_ = std::move(shared);
    due_ = due;
  }
  explicit operator bool() const { return shared_ != nullptr; }
  int32_t due() const { return due_; }

  // Commit at position `end`: the structure at or past its due position, else null. Adds what it waited to *waited_seconds.
  std::shared_ptr<const T> take_at(int32_t end, double* waited_seconds) {
    return shared_ == nullptr || end < due_ ? nullptr : take(waited_seconds);
  }
  // The structure, waited for; nothing is pending afterwards. Rethrows what building threw.
  std::shared_ptr<const T> take(double* waited_seconds) {
    std::shared_ptr<const T> result = peek(waited_seconds);
    shared_.reset();
    return result;
  }
  // As take, but stays pending: for saving.
  std::shared_ptr<const T> peek(double* waited_seconds) const;
  void cancel() { shared_.reset(); }

 private:
  struct Slot {
    std::shared_ptr<const T> result;
  };
  struct Shared {
    explicit Shared(Builders& b) : builders(b), slot(std::make_shared<Slot>()) {}
    ~Shared() {
      if (job != nullptr) builders.cancel(*job);
    }
    Builders& builders;
    std::shared_ptr<Slot> slot;
    std::shared_ptr<BuildJob> job;
  };
  std::shared_ptr<Shared> shared_;
  int32_t due_ = 0;
};

double wall_seconds();

template <class T>
std::shared_ptr<const T> Pending<T>::peek(double* waited_seconds) const {
  if (shared_ == nullptr) return nullptr;
  if (!shared_->builders.done(*shared_->job)) {
    const double start = wall_seconds();
    shared_->builders.wait(*shared_->job);
    if (waited_seconds != nullptr) *waited_seconds += wall_seconds() - start;
  } else {
    shared_->builders.wait(*shared_->job);
  }
  return shared_->slot->result;
}

}  // namespace kvasir
