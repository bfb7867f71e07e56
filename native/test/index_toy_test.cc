// The toy of docs/index_types.md does what the page says.
#include "../index/context.h"
#include "index_fixture.h"
#include "index_toy.cc"

using namespace kvasir_test;

TEST("the toy index type of the documentation works") {
  IndexContext c;
  Random random(5);
  Layer layer(4, 2, 50, 8);
  layer.fill(random);
  kvasir::Rows rows;
  rows.append(c.ctx->segments.find(c.segment(layer), "segment"));
  kvasir::LayerShape shape;
  shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 8;
  const kvasir::Params params("recent", kvasir::kRecent.defaults, "most=7");
  const auto index = kvasir::kRecent.create(c.ctx->environment, shape, params, rows);
  index->add(3, 40);
  index->added(3, 40);
  index->commit();
  const auto fork = index->fork(rows);
  std::vector<int32_t> tokens(4 * 5), counts(4);
  std::vector<float> bias(tokens.size()), errors(4), q(32), exact(4, -INFINITY);
  for (kvasir::Index* i : {index.get(), fork.get()}) {
    kvasir::Goal goal;
    goal.kind = kvasir::Goal::kTopk, goal.value = 5;
    kvasir::Report report;
    i->search({q.data(), exact.data(), goal}, {5, tokens.data(), bias.data(), counts.data(), errors.data()}, report);
    for (int32_t row = 0; row < 4; row++) {
      EXPECT_EQ(counts[static_cast<size_t>(row)], 5);
      for (int32_t k = 0; k < 5; k++) EXPECT_EQ(tokens[static_cast<size_t>(row * 5 + k)], 38 + k);
    }
    goal.kind = kvasir::Goal::kError, goal.value = 0.1;
    i->search({q.data(), exact.data(), goal}, {5, tokens.data(), bias.data(), counts.data(), errors.data()}, report);
    EXPECT_EQ(counts[1], 7);
  }
}
