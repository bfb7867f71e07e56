// The door of the index library, and what every type does through it.
#include "index_fixture.h"

using namespace kvasir_test;

TEST("an index finds the best keys, in order of position") {
  IndexContext c;
  Random random(1);
  Layer layer(4, 2, 97, 5, 10);
  layer.fill(random);
  const kvasir_index index = c.index("flat", layer, 0.5);
  EXPECT_INDEX_OK(kvasir_index_add(c, index, 12, 60));
  EXPECT_INDEX_OK(kvasir_index_add(c, index, 72, 30));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  const std::vector<float> q = random.normals(20), exact(4, -INFINITY);
  const double goal[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 7, KVASIR_TAIL_NONE, 3};
  const Found f = search(c, index, layer, goal, q.data(), exact.data());
  for (int32_t h = 0; h < 4; h++) {
    std::vector<std::pair<double, int32_t>> want;
    for (int32_t p = 12; p < 102; p++) {
      double dot = 0;
      for (int32_t i = 0; i < 5; i++) dot += double(q[static_cast<size_t>(h * 5 + i)]) * double(layer.key(h / 2, p - 10)[i]);
      want.push_back({-dot, p});
    }
    std::sort(want.begin(), want.end());
    std::vector<int32_t> best;
    for (int32_t i = 0; i < 7; i++) best.push_back(want[static_cast<size_t>(i)].second);
    std::sort(best.begin(), best.end());
    EXPECT_EQ(f.counts[static_cast<size_t>(h)], 7);
    for (int32_t i = 0; i < 7; i++) {
      EXPECT_EQ(f.tokens[static_cast<size_t>(h * f.capacity + i)], best[static_cast<size_t>(i)]);
    }
  }
}

TEST("what the index library is given is checked") {
  IndexContext c;
  Random random(2);
  Layer layer(2, 1, 16, 4);
  layer.fill(random);
  const kvasir_index index = c.index("flat", layer, 1);
  EXPECT_INDEX_FAILS(kvasir_index_add(c, index, 0, 17), KVASIR_ARGUMENT, "segments hold 0 to 16");
  EXPECT_INDEX_FAILS(kvasir_index_add(c, index, -1, 2), KVASIR_ARGUMENT, "from position -1");
  EXPECT_INDEX_OK(kvasir_index_add(c, index, 2, 3));
  EXPECT_INDEX_FAILS(kvasir_index_add(c, index, 6, 1), KVASIR_ARGUMENT, "they start at 6, expected 5");
  layer.key(0, 5)[1] = NAN;
  EXPECT_INDEX_FAILS(kvasir_index_add(c, index, 5, 1), KVASIR_ARGUMENT, "a key of head 0");
  EXPECT_INDEX_FAILS(kvasir_index_commit(c, index + 1), KVASIR_ARGUMENT, "stale or foreign");
  kvasir_index other = 0;
  const double shape[KVASIR_INDEX_SHAPE] = {2, 1, 4, 1, 0, 0, 0, 0};
  EXPECT_INDEX_FAILS(kvasir_index_create(c, &other, "flut", shape, nullptr), KVASIR_ARGUMENT, "expected one of flat");
  EXPECT_INDEX_FAILS(kvasir_index_create(c, &other, "flat:x=1", shape, nullptr), KVASIR_ARGUMENT, "no parameter \"x\"");
}
