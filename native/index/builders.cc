#include "builders.h"

#include <algorithm>
#include <chrono>

#ifdef __linux__
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kvasir {
namespace {

// Of the calling thread. Where the system refuses, building is merely less polite.
void lower_priority() {
#ifdef __linux__
  sched_param none{};
  sched_setscheduler(0, SCHED_BATCH, &none);
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 19);
#endif
}

}  // namespace

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Builders::Loop {
  void* body;
  BuildJob::Entry entry;
  int32_t tasks;
  std::atomic<int32_t> next{0};
  int helpers = 0;  // of the builders' mutex
  std::exception_ptr failure;

  // Takes tasks until none are left; the first failure ends the loop.
  std::exception_ptr take_tasks() {
    for (;;) {
      const int32_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return nullptr;
      try {
        entry(body, task);
      } catch (...) {
        next.store(tasks, std::memory_order_relaxed);
        return std::current_exception();
      }
    }
  }
};

Builders::~Builders() {
  std::deque<Work> dropped;  // ended outside of the mutex, with what it holds
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    for (const std::weak_ptr<BuildJob>& weak : jobs_) {
      if (const std::shared_ptr<BuildJob> job = weak.lock()) job->cancelled_.store(true, std::memory_order_relaxed);
    }
    dropped.swap(queue_);
  }
  wake_.notify_all();
  for (std::thread& t : threads_) t.join();
}

std::shared_ptr<BuildJob> Builders::start(std::function<void(BuildJob&)> body) {
  auto job = std::make_shared<BuildJob>();
  job->builders_ = this;
  job->body_ = std::move(body);
  if (limit_ == 0) {
    run({job, nullptr});
    return job;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.erase(std::remove_if(jobs_.begin(), jobs_.end(), [](const auto& weak) { return weak.expired(); }), jobs_.end());
    jobs_.push_back(job);
    add_threads_locked(queue_.size() + 1);
    queue_.push_back({job, nullptr});
  }
  wake_.notify_one();
  return job;
}

void Builders::add_threads_locked(size_t queued) {
  while (static_cast<size_t>(idle_) + started_ < queued && static_cast<int>(threads_.size()) < limit_) {
    threads_.emplace_back([this] { work(); });
    started_++;
  }
}

void Builders::cancel(BuildJob& job) {
  job.cancelled_.store(true, std::memory_order_relaxed);
  Work dropped;  // ended outside of the mutex, with what its body holds
  std::function<void(BuildJob&)> body;
  std::lock_guard<std::mutex> lock(mutex_);
  const auto mine = std::find_if(queue_.begin(), queue_.end(),
                                 [&](const Work& w) { return w.job.get() == &job && w.loop == nullptr; });
  if (mine == queue_.end()) return;
  dropped = *mine;
  body.swap(job.body_);
  queue_.erase(mine);
  job.done_ = true;
  finished_.notify_all();
}

bool Builders::done(const BuildJob& job) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return job.done_;
}

void Builders::wait(BuildJob& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!job.done_) {
    const auto mine = std::find_if(queue_.begin(), queue_.end(), [&](const Work& w) { return w.job.get() == &job; });
    if (mine == queue_.end()) {
      finished_.wait(lock);
      continue;
    }
    const Work work = *mine;
    queue_.erase(mine);
    lock.unlock();
    run(work);
    lock.lock();
  }
  if (job.failure_ != nullptr) std::rethrow_exception(job.failure_);
}

void Builders::work() {
  lower_priority();
  std::unique_lock<std::mutex> lock(mutex_);
  started_--;
  for (;;) {
    idle_++;
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    idle_--;
    if (stop_) return;
    const Work work = queue_.front();
    queue_.pop_front();
    lock.unlock();
    run(work);
    lock.lock();
  }
}

void Builders::run(const Work& work) {
  if (work.loop != nullptr) {
    {
      // Queued while the loop ran; where it has ended, its body is gone.
      std::lock_guard<std::mutex> lock(mutex_);
      if (work.loop->next.load(std::memory_order_relaxed) >= work.loop->tasks) return;
      work.loop->helpers++;
    }
    const std::exception_ptr failure = work.loop->take_tasks();
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure != nullptr && work.loop->failure == nullptr) work.loop->failure = failure;
    work.loop->helpers--;
    finished_.notify_all();
    return;
  }
  BuildJob& job = *work.job;
  const double start = wall_seconds();
  std::exception_ptr failure;
  try {
    if (!job.cancelled()) job.body_(job);
  } catch (...) {
    failure = std::current_exception();
  }
  job.body_ = nullptr;  // what it held goes here, not with the last who looks at the job
  std::lock_guard<std::mutex> lock(mutex_);
  job.seconds_ = wall_seconds() - start;
  job.failure_ = failure;
  job.done_ = true;
  finished_.notify_all();
}

void BuildJob::run_loop(int32_t tasks, void* body, Entry entry) {
  if (tasks <= 0) return;
  const auto loop = std::make_shared<Builders::Loop>();
  loop->body = body;
  loop->entry = entry;
  loop->tasks = tasks;
  Builders& b = *builders_;
  if (tasks > 1 && b.limit_ > 0) {
    std::lock_guard<std::mutex> lock(b.mutex_);
    // In front: who waits for this job, and builders that end another, help here first. As many as there are threads, not one
    // less: a waiting caller helps too.
    const int helpers = std::min(b.limit_, tasks - 1);
    b.add_threads_locked(b.queue_.size() + static_cast<size_t>(std::min(b.limit_ - 1, helpers)));
    for (int i = 0; i < helpers; i++) b.queue_.push_front({shared_from_this(), loop});
    b.wake_.notify_all();
    b.finished_.notify_all();
  }
  std::exception_ptr failure = loop->take_tasks();
  std::unique_lock<std::mutex> lock(b.mutex_);
  b.finished_.wait(lock, [&] { return loop->helpers == 0; });
  b.queue_.erase(std::remove_if(b.queue_.begin(), b.queue_.end(), [&](const auto& w) { return w.loop == loop; }),
                 b.queue_.end());
  if (failure == nullptr) failure = loop->failure;
  lock.unlock();
  if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace kvasir
