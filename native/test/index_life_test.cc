// Building behind the caller: jobs, the law of takeover, and an index that searches and grows while it is built.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "builders.h"
#include "error.h"
#include "index.h"
#include "index_fixture.h"

using namespace kvasir_test;
using kvasir::BuildJob;
using kvasir::Builders;
using kvasir::Pending;

namespace {

int thread_count() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) count++;
  return count;
}

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// Whether the process comes to have as many threads: the kernel lists one that was joined for a moment longer.
bool comes_to(int threads) {
  for (int i = 0; i < 5000 && thread_count() != threads; i++) nap(1);
  return thread_count() == threads;
}

// Squared norms of all keys of head 0, built in blocks of 64.
struct Norms {
  std::vector<float> values;
};

// The smallest index with slow structure: finds the keys of largest norm. What is not built yet it reads from the rows.
class Toy {
 public:
  Toy(Builders& builders, kvasir::Rows rows) : builders_(builders), rows_(std::move(rows)) {}

  void add(int32_t count) { end_ += count; }
  void commit() {
    if (const auto built = pending_.take_at(end_, &waited)) take(built);
    if (!pending_ && end_ - built_end() >= 512) {
      const int32_t n = end_;
      pending_.start(builders_, n + kvasir::takeover_horizon(n), [rows = rows_, n](BuildJob& job) {
        auto norms = std::make_shared<Norms>();
        norms->values.resize(static_cast<size_t>(n));
        job.parallel((n + 63) / 64, [&](int32_t block) {
          if (job.cancelled()) return;
          read(norms->values.data() + block * 64, rows, block * 64, std::min(64, n - block * 64));
        });
        return std::shared_ptr<const Norms>(job.cancelled() ? nullptr : norms);
      });
    }
  }
  void settle() {
    if (pending_) take(pending_.take(&waited));
  }
  int32_t search() const {
    std::vector<float> norms(static_cast<size_t>(end_));
    const int32_t have = built_end();
    if (have > 0) std::memcpy(norms.data(), built_->values.data(), sizeof(float) * static_cast<size_t>(have));
    read(norms.data() + have, rows_, have, end_ - have);
    return static_cast<int32_t>(std::max_element(norms.begin(), norms.end()) - norms.begin());
  }
  int32_t built_end() const { return built_ == nullptr ? 0 : static_cast<int32_t>(built_->values.size()); }

  double waited = 0;
  std::vector<int32_t> takeovers;  // positions

 private:
  void take(std::shared_ptr<const Norms> built) {
    built_ = std::move(built);
    takeovers.push_back(end_);
  }
  static void read(float* out, const kvasir::Rows& rows, int32_t from, int32_t count) {
    const int32_t dim = count > 0 ? rows.find(from).head_dim() : 0;
    std::vector<float> keys(static_cast<size_t>(count * dim));
    rows.read_keys(keys.data(), 0, from, count);
    for (int32_t i = 0; i < count; i++) {
      out[i] = 0;
      for (int32_t d = 0; d < dim; d++) out[i] += keys[static_cast<size_t>(i * dim + d)] * keys[static_cast<size_t>(i * dim + d)];
    }
  }
  Builders& builders_;
  kvasir::Rows rows_;
  std::shared_ptr<const Norms> built_;
  Pending<Norms> pending_;
  int32_t end_ = 0;
};

kvasir::Rows rows_of(const Layer& layer) {
  const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F32, layer.kv_heads, layer.capacity, layer.dim};
  kvasir::Rows rows;
  rows.append(std::make_shared<const kvasir::Segment>(desc, layer.keys, layer.values, nullptr, nullptr));
  return rows;
}

}  // namespace

TEST("a build job runs every task once, on any number of threads") {
  for (int threads : {0, 1, 3}) {
    Builders builders(threads);
    for (int32_t tasks : {0, 1, 2, 500}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks) + 1);
      const auto job = builders.start([&](BuildJob& j) {
        j.parallel(tasks, [&](int32_t task) { runs[static_cast<size_t>(task)]++; });
        j.parallel(tasks, [&](int32_t task) { runs[static_cast<size_t>(task)]++; });
      });
      builders.wait(*job);
      EXPECT(builders.done(*job));
      for (int32_t t = 0; t < tasks; t++) EXPECT_EQ(runs[static_cast<size_t>(t)].load(), 2);
    }
    const auto broken = builders.start([](BuildJob& j) {
      j.parallel(100, [](int32_t task) {
        if (task == 57) kvasir::fail(KVASIR_INTERNAL, "Cannot build: a test says so");
      });
    });
    bool thrown = false;
    try {
      builders.wait(*broken);
    } catch (const kvasir::Error& error) {
      thrown = error.message.find("a test says so") != std::string::npos;
    }
    EXPECT(thrown);
  }
}

TEST("a structure takes over at its recorded position, however long it takes") {
  for (int delay : {0, 30}) {
    std::atomic<bool> asked{delay == 0};
    Builders builders(1);
    Pending<int> pending;
    pending.start(builders, 1300, [delay, &asked](BuildJob&) {
      while (!asked) nap(1);
      nap(delay);
      return std::make_shared<const int>(42);
    });
    Pending<int> fork = pending;
    double waited = 0;
    if (delay == 0) nap(20);
    EXPECT(pending.take_at(1299, &waited) == nullptr);
    EXPECT_EQ(waited, 0.0);
    asked = true;
    const auto taken = pending.take_at(1300, &waited);
    EXPECT(taken != nullptr && *taken == 42);
    EXPECT(delay == 0 || waited > 0);
    EXPECT(!pending);
    EXPECT(fork.take_at(1299, &waited) == nullptr);
    EXPECT(fork.take_at(1400, &waited) == taken);
  }
}

TEST("builders end with what they build for, and with their context") {
  nap(50);  // for the threads of earlier tests
  const int before = thread_count();
  std::atomic<int> ended{0};
  {
    Builders builders(2);
    EXPECT(comes_to(before));
    std::atomic<int> begun{0};
    const auto forever = [&](BuildJob& job) {
      begun++;
      while (!job.cancelled()) nap(1);
      ended++;
      return std::shared_ptr<const int>();
    };
    {
      Pending<int> pending, fork;
      pending.start(builders, 10, forever);
      fork = pending;
      pending.cancel();
      while (begun < 1) nap(1);
      EXPECT_EQ(ended.load(), 0);  // the fork still wants it
    }
    while (ended < 1) nap(1);
    builders.start([&](BuildJob& job) { forever(job); });
    builders.start([&](BuildJob& job) { forever(job); });
    const auto queued = builders.start([&](BuildJob&) { begun = 100; });
    while (begun < 3) nap(1);
    EXPECT(comes_to(before + 2));
    EXPECT(!builders.done(*queued));
    // One that waits goes at once when nobody wants it any more, with what it holds.
    auto held = std::make_shared<int>(7);
    const auto unwanted = builders.start([held](BuildJob&) {});
    EXPECT_EQ(held.use_count(), 2);
    builders.cancel(*unwanted);
    EXPECT_EQ(held.use_count(), 1);
    EXPECT(builders.done(*unwanted));
  }
  EXPECT_EQ(ended.load(), 3);
  EXPECT(comes_to(before));
}

TEST("an index searches and grows while it is built, with equal answers at any timing") {
  Random random(11);
  Layer layer(1, 1, 6000, 8);
  layer.fill(random);
  std::vector<int32_t> takeovers[3], answers[3];
  const int threads[3] = {0, 1, 2};
  for (int run = 0; run < 3; run++) {
    Builders builders(threads[run]);
    Toy toy(builders, rows_of(layer));
    for (int32_t end = 0; end < 6000; end += 100) {
      toy.add(100);
      toy.commit();
      answers[run].push_back(toy.search());
      if (end == 3300) toy.settle();
    }
    toy.settle();
    EXPECT(toy.built_end() > 5000);
    takeovers[run] = toy.takeovers;
  }
  EXPECT(takeovers[0].size() >= 4);
  EXPECT(takeovers[0] == takeovers[1] && takeovers[1] == takeovers[2]);
  EXPECT(answers[0] == answers[1] && answers[1] == answers[2]);
  float best = -1;
  int32_t want = -1;
  for (int32_t i = 0; i < 6000; i++) {
    float norm = 0;
    for (int32_t d = 0; d < 8; d++) norm += layer.key(0, i)[d] * layer.key(0, i)[d];
    if (norm > best) best = norm, want = i;
  }
  EXPECT_EQ(answers[0].back(), want);
}
