// Costs as a value, and what a planner makes of them.
#include <filesystem>

#include <unistd.h>

#include "cost.h"
#include "error.h"
#include "index_fixture.h"

using namespace kvasir_test;
using kvasir::CostTable;
using kvasir::SearchCost;

namespace {

// A table where keys of a scan, of lists and of a graph cost so much in every shape.
std::string table(double scan, double lists, double sketched, double walked) {
  CostTable t;
  for (int kind = 0; kind < CostTable::kKinds; kind++) {
    for (int dim = 0; dim < 3; dim++) {
      for (int group = 0; group < 2; group++) {
        SearchCost& c = t.measured(kind, dim, group);
        c = SearchCost();
        c.scan_best_key = c.scan_sample_key = scan;
        c.lists_best_key = c.lists_sample_key = lists;
        c.sketched_best_key = sketched;
        c.walked_best_key = c.walked_sample_key = walked;
      }
    }
  }
  return t.text();
}

struct Planned {
  IndexContext c;
  Random random{21};
  Layer layer{4, 2, 4400, 16};
  kvasir_segment segment;
  kvasir_index index = 0, flat = 0;
  double shape[KVASIR_INDEX_SHAPE] = {4, 2, 16, 1, 0, 0, 0, 3};
  std::vector<float> queries;

  std::string spec;

  explicit Planned(const std::string& costs, const std::string& planned = "planned:k=10")
      : c(("threads=1,builders=0,costs=(" + costs + ")").c_str()) {
    spec = planned;
    layer.fill(random);
    segment = c.segment(layer);
    // Queries of few directions: lists find what they want.
    const std::vector<float> directions = random.normals(8 * 16, 3);
    queries = random.normals(4400 * 64, 0.3f);
    for (size_t row = 0; row < 4400 * 4; row++) {
      for (size_t d = 0; d < 16; d++) queries[row * 16 + d] += directions[row % 8 * 16 + d];
    }
    for (const std::string& s : {spec, std::string("flat")}) {
      kvasir_index& id = s == "flat" ? flat : index;
      EXPECT_INDEX_OK(kvasir_index_create(c, &id, s.c_str(), shape, nullptr));
      EXPECT_INDEX_OK(kvasir_index_append_segment(c, id, segment));
      EXPECT_INDEX_OK(index_add(c, id, 0, 4000, queries.data()));
      EXPECT_INDEX_OK(kvasir_index_commit(c, id));
      EXPECT_INDEX_OK(kvasir_index_settle(c, id));
    }
  }
  std::string decisions(kvasir_index of) {
    double numbers[KVASIR_STATS];
    char text[4096];
    EXPECT_INDEX_OK(kvasir_index_stats(c, of, numbers, text, sizeof text));
    return text;
  }
  // The index, saved and opened.
  kvasir_index find_again() {
    const std::string path = (std::filesystem::temp_directory_path() / ("kvasir-planned-" + std::to_string(getpid()))).string();
    EXPECT_INDEX_OK(kvasir_index_save(c, index, path.c_str()));
    kvasir_index copy = 0;
    EXPECT_INDEX_OK(kvasir_index_map(c, &copy, path.c_str(), spec.c_str(), shape, nullptr, &segment, 1));
    std::filesystem::remove(path);
    return copy;
  }
  Found find(kvasir_index in, int32_t position, double kind, double value) {
    const std::vector<float> exact(4, -INFINITY);
    const double goal[KVASIR_GOAL] = {kind, value, KVASIR_TAIL_NONE, double(position)};
    return search(c, in, layer, goal, queries.data() + position * 64, exact.data());
  }
};

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) found++;
  return found;
}

}  // namespace

TEST("a table of costs is a value: text and back, between and beyond what was measured") {
  CostTable t(table(2, 8, 8, 8));
  EXPECT_EQ(CostTable(t.text()).text(), t.text());
  t.measured(0, 0, 0).scan_best_key = 1;   // headDim 64, group 1
  t.measured(0, 1, 0).scan_best_key = 3;   // 128, 1
  t.measured(0, 0, 1).scan_best_key = 4;   // 64, 4
  t.measured(0, 1, 1).scan_best_key = 12;  // 128, 4
  EXPECT_NEAR(t.at(0, 64, 1).scan_best_key, 1, 1e-12);
  EXPECT_NEAR(t.at(0, 128, 4).scan_best_key, 12, 1e-12);
  EXPECT_NEAR(t.at(0, 96, 1).scan_best_key, 2, 1e-12);
  EXPECT_NEAR(t.at(0, 64, 2).scan_best_key, 2, 1e-12);
  EXPECT_NEAR(t.at(0, 32, 1).scan_best_key, 0.1, 1e-12);  // the line meets 0: a tenth of the nearest
  EXPECT_NEAR(t.at(2, 256, 8).lists_best_key, 8, 1e-12);
  for (const char* bad : {"", "1 2 3", "x"}) {
    bool refused = false;
    try {
      CostTable parsed{std::string(bad)};
    } catch (const kvasir::Error& error) {
      refused = error.message.find("nanoseconds") != std::string::npos;
    }
    EXPECT(refused);
  }
  EXPECT(kvasir_index_context_create("costs=(1 2 3)", nullptr) == nullptr);
}

TEST("a planner scans where lists would cost more, and says so") {
  Planned p(table(1, 1000, 1000, 1000));
  EXPECT_EQ(count(p.decisions(p.index), "best keys by scan"), 2);
  EXPECT_EQ(count(p.decisions(p.index), "samples by scan"), 2);
  for (int32_t at : {5, 700, 3999}) {
    const Found f = p.find(p.index, at, KVASIR_GOAL_TOPK, 10);
    EXPECT(f.tokens == p.find(p.flat, at, KVASIR_GOAL_TOPK, 10).tokens);
    EXPECT_EQ(f.report[0], double(KVASIR_CERTIFICATE_EXACT));
    EXPECT(p.find(p.index, at, KVASIR_GOAL_ERROR, 0.1).tokens == p.find(p.flat, at, KVASIR_GOAL_ERROR, 0.1).tokens);
  }
}

TEST("a planner takes lists where they cost less, and what it decided by is saved") {
  Planned p(table(1, 0.001, 1000, 1000));
  const std::string lines = p.decisions(p.index);
  EXPECT_EQ(count(lines, "best keys by lists (of"), 2);
  EXPECT_EQ(count(lines, "graph: not built"), 2);
  EXPECT_EQ(count(lines, "samples by lists"), 2);
  const Found f = p.find(p.index, 1234, KVASIR_GOAL_TOPK, 10), exact = p.find(p.flat, 1234, KVASIR_GOAL_TOPK, 10);
  EXPECT_EQ(f.report[0], double(KVASIR_CERTIFICATE_CALIBRATED));
  EXPECT(f.report[4] >= 0.95);
  EXPECT(f.report[1] < exact.report[1]);
  const std::string path = (std::filesystem::temp_directory_path() / ("kvasir-planned-" + std::to_string(getpid()))).string();
  EXPECT_INDEX_OK(kvasir_index_save(p.c, p.index, path.c_str()));
  // A context with other costs goes on as the saved index would have.
  Planned other(table(1, 1000, 1000, 1000));
  kvasir_index copy = 0;
  EXPECT_INDEX_OK(kvasir_index_map(other.c, &copy, path.c_str(), "planned:k=10", other.shape, nullptr, &other.segment, 1));
  std::filesystem::remove(path);
  EXPECT_EQ(other.decisions(copy), lines);
  EXPECT(other.find(copy, 1234, KVASIR_GOAL_TOPK, 10).tokens == f.tokens);
}

TEST("a recall that lists do not reach is a scan's") {
  Planned p(table(1, 0.001, 1000, 1000), "planned:k=10,recall=1");
  const std::string lines = p.decisions(p.index);
  EXPECT_EQ(count(lines, "best keys by scan"), count(lines, "below what was asked"));
  for (int32_t at : {5, 700}) {
    const Found f = p.find(p.index, at, KVASIR_GOAL_TOPK, 10);
    if (count(lines, "best keys by scan") == 2) EXPECT_EQ(f.report[0], double(KVASIR_CERTIFICATE_EXACT));
  }
}

TEST("a planner scores lists by sketches where that is cheaper: the best keys are found, grown and opened as before") {
  Planned p(table(1, 1000, 0.001, 1000), "planned:k=10,horizon=300");
  const std::string lines = p.decisions(p.index);
  EXPECT_EQ(count(lines, "best keys by lists by sketches"), 2);
  EXPECT_EQ(count(lines, "samples by scan"), 2);
  double found = 0;
  for (int32_t at = 3000; at < 3800; at += 8) {  // of directions that samples have
    const Found f = p.find(p.index, at, KVASIR_GOAL_TOPK, 10), exact = p.find(p.flat, at, KVASIR_GOAL_TOPK, 10);
    EXPECT_EQ(f.report[0], double(KVASIR_CERTIFICATE_CALIBRATED));
    EXPECT(f.report[1] < exact.report[1]);
    for (size_t head = 0; head < 4; head++) {
      const int32_t* row = exact.tokens.data() + head * size_t(exact.capacity);
      for (int32_t i = 0; i < f.counts[head]; i++) found += std::binary_search(row, row + 10, f.tokens[head * size_t(f.capacity) + size_t(i)]);
    }
  }
  EXPECT(found / (100 * 4 * 10) >= 0.93);
  EXPECT(p.decisions(p.find_again()) == lines);
  // Lists move on with the tokens, and so do the sketches of keys and lists.
  EXPECT_INDEX_OK(index_add(p.c, p.index, 4000, 400, p.queries.data() + 4000 * 64));
  EXPECT_INDEX_OK(index_add(p.c, p.flat, 4000, 400, p.queries.data() + 4000 * 64));
  for (const kvasir_index id : {p.index, p.flat}) {
    EXPECT_INDEX_OK(kvasir_index_commit(p.c, id));
    EXPECT_INDEX_OK(kvasir_index_settle(p.c, id));
  }
  EXPECT_EQ(count(p.decisions(p.index), "aim of 4400 tokens"), 1);
  EXPECT_EQ(count(p.decisions(p.index), "best keys by lists by sketches"), 2);
  found = 0;
  for (int32_t at = 4000; at < 4400; at += 8) {
    const Found f = p.find(p.index, at, KVASIR_GOAL_TOPK, 10), exact = p.find(p.flat, at, KVASIR_GOAL_TOPK, 10);
    for (int32_t i = 0; i < f.counts[0]; i++) {
      found += std::binary_search(exact.tokens.begin(), exact.tokens.begin() + 10, f.tokens[size_t(i)]);
    }
  }
  EXPECT(found / (50 * 10) >= 0.93);
}

TEST("a planner takes a graph where walks cost least, and it grows, is opened and forked as any structure") {
  Planned p(table(1, 1000, 1000, 0.001));
  const std::string lines = p.decisions(p.index);
  EXPECT_EQ(count(lines, "best keys by graph"), 2);
  EXPECT_EQ(count(lines, "samples by graph"), 2);
  EXPECT_EQ(count(lines, "graph: not built"), 0);
  const Found f = p.find(p.index, 1234, KVASIR_GOAL_TOPK, 10);
  EXPECT_EQ(f.report[0], double(KVASIR_CERTIFICATE_CALIBRATED));
  EXPECT(f.report[4] >= 0.95);
  const kvasir_index copy = p.find_again();
  EXPECT(p.find(copy, 1234, KVASIR_GOAL_TOPK, 10).tokens == f.tokens);
  // Keys since then are scanned, then extend the graph.
  EXPECT_INDEX_OK(index_add(p.c, p.index, 4000, 400, p.queries.data() + 4000 * 64));
  EXPECT_INDEX_OK(kvasir_index_commit(p.c, p.index));
  EXPECT_INDEX_OK(kvasir_index_settle(p.c, p.index));
  double newest = 0;
  for (int32_t at = 4200; at < 4300; at++) {
    const Found grown = p.find(p.index, at, KVASIR_GOAL_TOPK, 10);
    for (int32_t i = 0; i < grown.counts[0]; i++) newest += grown.tokens[size_t(i)] >= 4000;
  }
  EXPECT(newest > 0);
}
