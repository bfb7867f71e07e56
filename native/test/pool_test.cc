#include "pool.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "fixture.h"

using namespace kvasir_test;

TEST("pool runs every task once, also many jobs in a row") {
  for (int threads : {1, 2, 3, 7}) {
    kvasir::Pool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    Random random(5);
    for (int job = 0; job < 2000; job++) {
      const int tasks = static_cast<int>(random.bits() % 40);
      std::vector<int> seen(static_cast<size_t>(tasks), 0);  // plain ints: a race here is one the sanitizer sees
      std::vector<int> by(static_cast<size_t>(threads), 0);
      pool.run(tasks, [&](int task, int worker) {
        seen[static_cast<size_t>(task)]++;
        by[static_cast<size_t>(worker)]++;
      });
      int total = 0;
      for (int s : seen) EXPECT_EQ(s, 1);
      for (int b : by) total += b;
      EXPECT_EQ(total, tasks);
    }
  }
}

TEST("shares: every task once, a worker's own in order") {
  for (int threads : {1, 2, 3, 7}) {
    kvasir::Pool pool(threads);
    for (int tasks : {0, 1, 2, 3, 6, 7, 8, 50, 301}) {
      for (int job = 0; job < 50; job++) {
        std::vector<int> seen(static_cast<size_t>(tasks), 0);
        std::vector<std::vector<int>> by(static_cast<size_t>(threads));
        pool.run_shares(tasks, [&](int task, int worker) {
          seen[static_cast<size_t>(task)]++;
          by[static_cast<size_t>(worker)].push_back(task);
        });
        for (int s : seen) EXPECT_EQ(s, 1);
        for (const std::vector<int>& all : by) {
          // From its own share to the last one, then from the first on.
          int falls = 0;
          for (size_t i = 1; i < all.size(); i++) falls += all[i] < all[i - 1];
          EXPECT(falls <= 1);
        }
      }
    }
  }
}

TEST("shares: one thread takes all in order") {
  kvasir::Pool pool(1);
  std::vector<int> order;
  pool.run_shares(9, [&](int task, int) { order.push_back(task); });
  for (int i = 0; i < 9; i++) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST("shares: who is done early helps the others") {
  kvasir::Pool pool(2);
  std::atomic<int> done{0};
  pool.run_shares(40, [&](int task, int) {
    // It holds up the rest of its share, which only a helper can run.
    if (task == 0) while (done.load() < 39) std::this_thread::yield();
    done++;
  });
  EXPECT_EQ(done.load(), 40);
}

TEST("pool workers wake from sleep") {
  kvasir::Pool pool(2);
  for (int job = 0; job < 20; job++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> workers{0};
    pool.run(2, [&](int, int) {  // both tasks wait for each other: only two awake workers can end this
      workers++;
      while (workers.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(workers.load(), 2);
  }
}

TEST("pool is made and ended while its workers still start") {
  for (int i = 0; i < 200; i++) kvasir::Pool pool(4);
}

TEST("two contexts in two threads run independently") {
  auto work = [](uint64_t seed) {
    kvasir::Pool pool(2);
    Random random(seed);
    for (int job = 0; job < 3000; job++) {
      std::vector<uint64_t> sums(16);
      pool.run(16, [&](int task, int) {
        for (uint64_t i = 0; i < 200; i++) sums[static_cast<size_t>(task)] += i * static_cast<uint64_t>(task);
      });
      for (uint64_t t = 0; t < 16; t++) EXPECT_EQ(sums[t], 19900 * t);
      if (random.bits() % 256 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  };
  std::thread other([&] { work(1); });
  work(2);
  other.join();
}

TEST("two contexts in two threads run kernels independently, and end on other threads than they began on") {
  auto work = [](kvasir_context* c, std::vector<float>* out) {
    Random random(9);
    const int32_t rows = 40, width = 2000;
    const std::vector<float> x = random.normals(static_cast<size_t>(rows * width)), w = random.normals(2000);
    const int32_t shape[2] = {rows, width};
    kvasir_tensor in = 0, weight = 0;
    EXPECT_OK(kvasir_tensor_create(c, &in, KVASIR_F32, 2, shape, KVASIR_STEP));
    EXPECT_OK(kvasir_tensor_create(c, &weight, KVASIR_F32, 1, &width, KVASIR_STEP));
    EXPECT_OK(kvasir_tensor_write(c, in, x.data(), static_cast<double>(x.size() * 4), 0));
    EXPECT_OK(kvasir_tensor_write(c, weight, w.data(), 8000, 0));
    for (int i = 0; i < 30; i++) {
      EXPECT_OK(kvasir_rms_norm(c, in, in, weight, 1e-5f));
      EXPECT_OK(kvasir_add(c, in, in, weight));
      EXPECT_OK(kvasir_glu(c, in, in, in, KVASIR_GELU));
      EXPECT(kvasir_tensor_destroy(c, 0) == KVASIR_ARGUMENT);  // errors are per thread
    }
    out->resize(x.size());
    EXPECT_OK(kvasir_tensor_read(c, out->data(), in, static_cast<double>(out->size())));
  };
  kvasir_context* a = kvasir_context_create("threads=3");
  kvasir_context* b = kvasir_context_create("threads=2");
  std::vector<float> first, second;
  std::thread other([&] { work(a, &first); });
  work(b, &second);
  other.join();
  EXPECT(first == second);  // results do not depend on the number of threads
  EXPECT_OK(kvasir_context_destroy(a));
  std::thread last([&] { EXPECT_OK(kvasir_context_destroy(b)); });
  last.join();
}
