// The flat index on the device in emulation: best keys against sums in float64, samples whose mean is the truth, the same hits
// however keys were added and in whatever order threads run, and the fused call against its parts.
#include "index_flat.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <tuple>

#include "attention_case.h"
#include "error.h"
#include "harness.h"

using namespace kvasir;

namespace {

void keep(kvasir_memory*) {}

// f16 rows of one layer, on the device or the host, and one query.
struct Layer {
  std::unique_ptr<Runtime> runtime;
  int32_t length, kv_heads, group, dim;
  std::vector<uint16_t> keys, values;
  std::vector<float> q, exact;
  std::optional<DeviceArray<uint16_t>> device_keys, device_values;
  std::optional<DeviceArray<float>> device_q, device_exact;
  std::optional<DeviceScratch> search, partials;
  kvasir_memory key_memory{}, value_memory{};

  Layer(int32_t length_, int32_t kv_heads_, int32_t group_, int32_t dim_, uint64_t seed = 1, bool on_host = false,
        int32_t copies = 1)  // of every key, one behind the other
      : runtime(Runtime::open(seeded(seed))), length(length_), kv_heads(kv_heads_), group(group_), dim(dim_) {
    std::mt19937 random(5);
    std::normal_distribution<float> bell;
    const size_t all = static_cast<size_t>(kv_heads) * static_cast<size_t>(length) * static_cast<size_t>(dim);
    for (size_t i = 0; i < all; i++) keys.push_back(test_half(0.5f + bell(random))), values.push_back(test_half(bell(random)));
    for (size_t row = 0; row < all / static_cast<size_t>(dim); row++) {
      const size_t first = row - row % static_cast<size_t>(copies);
      std::copy_n(keys.begin() + static_cast<std::ptrdiff_t>(first) * dim, dim, keys.begin() + static_cast<std::ptrdiff_t>(row) * dim);
    }
    for (int32_t i = 0; i < kv_heads * group * dim; i++) q.push_back(1.5f * bell(random));
    exact.assign(static_cast<size_t>(kv_heads * group), 2.0f);
    device_keys.emplace(*runtime, keys), device_values.emplace(*runtime, values);
    device_q.emplace(*runtime, q), device_exact.emplace(*runtime, exact);
    search.emplace(*runtime), partials.emplace(*runtime);
    key_memory = {on_host ? static_cast<void*>(keys.data()) : device_keys->data(), all * 2, keep, keep};
    value_memory = {on_host ? static_cast<void*>(values.data()) : device_values->data(), all * 2, keep, keep};
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  // Added `chunk` keys at a time.
  std::unique_ptr<DeviceFlat> index(DeviceFlat::Kind kind, int32_t chunk) {
    const IndexShape shape{kv_heads * group, kv_heads, group, dim, scale(), 0};
    auto made = std::make_unique<DeviceFlat>(*search, *partials, shape, kind);
    const int32_t desc[] = {100, KVASIR_F16, kv_heads, length, dim, 0};
    made->rows().append(std::make_shared<const Segment>(desc, &key_memory, &value_memory, nullptr, nullptr));
    for (int32_t at = 0; at < length; at += chunk) made->add(100 + at, std::min(chunk, length - at));
    made->commit();
    return made;
  }
  double logit(int32_t head, int32_t row) const {
    double sum = 0;
    for (int32_t d = 0; d < dim; d++) {
      sum += static_cast<double>(q[static_cast<size_t>(head * dim + d)]) *
             static_cast<double>(test_widened(keys[static_cast<size_t>(((head / group) * length + row) * dim + d)]));
    }
    return sum * static_cast<double>(scale());
  }
};

struct Found {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> bias;
  FlatReport report;
  bool operator==(const Found& other) const { return tokens == other.tokens && bias == other.bias; }
};

Found look(Layer& layer, DeviceFlat& index, const FlatGoal& goal) {
  const int32_t rows = goal.by_error ? layer.kv_heads : layer.kv_heads * layer.group, room = layer.length;
  const DeviceArray<int32_t> tokens(*layer.runtime, static_cast<size_t>(rows * room)), counts(*layer.runtime, static_cast<size_t>(rows));
  const DeviceArray<float> bias(*layer.runtime, tokens.size()), errors(*layer.runtime, counts.size());
  Found found;
  EXPECT(index.search({tokens.data(), bias.data(), counts.data(), errors.data(), room}, goal, layer.device_q->data(),
                      layer.device_exact->data(), found.report));
  const std::vector<int32_t> t = tokens.read(), c = counts.read();
  const std::vector<float> b = bias.read();
  for (int32_t r = 0; r < rows; r++) {
    found.tokens.emplace_back(t.begin() + r * room, t.begin() + r * room + c[static_cast<size_t>(r)]);
    found.bias.emplace_back(b.begin() + r * room, b.begin() + r * room + c[static_cast<size_t>(r)]);
  }
  return found;
}

}  // namespace

TEST("cuda index: the best keys are the best") {
  for (const auto& [length, dim, copies] : {std::tuple{97, 80, 1}, {1300, 64, 1}, {600, 64, 15}}) {
    Layer layer(length, 2, 3, dim, 1, false, copies);
    const auto index = layer.index(DeviceFlat::kInt4, length);
    const Found found = look(layer, *index, {false, 20, false, 0});
    for (int32_t h = 0; h < 6; h++) {
      std::vector<double> all;
      for (int32_t row = 0; row < length; row++) all.push_back(layer.logit(h, row));
      std::vector<double> ordered = all;
      std::sort(ordered.rbegin(), ordered.rend());
      const auto& tokens = found.tokens[static_cast<size_t>(h)];
      EXPECT_EQ(tokens.size(), size_t{20});
      for (const int32_t token : tokens) EXPECT(all[static_cast<size_t>(token - 100)] >= ordered[19] - 1e-5);
      EXPECT(std::is_sorted(tokens.begin(), tokens.end()) && std::adjacent_find(tokens.begin(), tokens.end()) == tokens.end());
      // Of equal keys the earlier: a taken copy has all copies before it taken.
      for (const int32_t token : tokens) {
        const int32_t row = token - 100;
        EXPECT(row % copies == 0 || std::find(tokens.begin(), tokens.end(), token - 1) != tokens.end());
      }
    }
  }
}

TEST("cuda index: samples are unbiased") {
  for (const DeviceFlat::Kind kind : {DeviceFlat::kInt4, DeviceFlat::kInt8}) {
    for (const bool by_error : {true, false}) {
      Layer layer(300, 1, 2, 64);
      const auto index = layer.index(kind, 300);
      double truth = 0;
      for (int32_t row = 0; row < 300; row++) truth += std::exp(layer.logit(0, row));
      double sum = 0, squares = 0;
      constexpr int32_t kDraws = 150;
      for (uint32_t draw = 0; draw < kDraws; draw++) {
        const Found found = look(layer, *index, {by_error, by_error ? 0.15 : 40.0, true, draw * 77});
        double estimate = 0;
        for (size_t i = 0; i < found.tokens[0].size(); i++) {
          estimate += std::exp(layer.logit(0, found.tokens[0][i] - 100) + static_cast<double>(found.bias[0][i])) / truth;
        }
        sum += estimate, squares += estimate * estimate;
      }
      const double mean = sum / kDraws, error = std::sqrt((squares / kDraws - mean * mean) / kDraws);
      EXPECT(error > 1e-4);
      EXPECT_NEAR(mean, 1.0, 4 * error);
    }
  }
}

TEST("cuda index: the order of threads changes no hit") {
  Found first;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Layer layer(300, 1, 2, 64, seed);
    const auto index = layer.index(DeviceFlat::kInt4, 300);
    const Found found = look(layer, *index, {true, 0.15, false, 9});
    if (seed == 1) first = found;
    EXPECT(found == first);
    EXPECT(found.report.keys_kept > 10 && found.report.keys_kept < 250);
  }
  // What else is searched by, over fewer keys: best keys, and samples of a budget; by codes and by rows.
  for (const auto& [kind, tail] : {std::pair{DeviceFlat::kInt8, false}, {DeviceFlat::kInt8, true}, {DeviceFlat::kNone, true}}) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
      Layer layer(97, 1, 2, 33, seed);
      const auto index = layer.index(kind, 40);
      const Found found = look(layer, *index, {false, 9, tail, 3});
      if (seed == 1) first = found;
      EXPECT(found == first && found.tokens.size() == 2 && found.tokens[0].size() == 9);
    }
  }
}

TEST("cuda index: neither how keys were added nor where they lie changes a hit") {
  Found first;
  for (int32_t way = 0; way < 3; way++) {
    Layer layer(2100, 1, 2, 64, 1, way == 2);
    const auto index = layer.index(DeviceFlat::kInt4, way == 0 ? 2100 : 700);
    const Found found = look(layer, *index, {true, 0.1, false, 9});
    if (way == 0) first = found;
    EXPECT(found == first);
    EXPECT(found.report.keys_kept > 10 && found.report.keys_kept < 1000);
  }
}

TEST("cuda index: the fused call gives what a search and attention to its hits give") {
  Layer layer(900, 2, 3, 64);
  const auto index = layer.index(DeviceFlat::kInt4, 900);
  for (const FlatGoal& goal : {FlatGoal{true, 0.1, false, 3}, FlatGoal{false, 30, false, 3}, FlatGoal{true, 0, false, 3}}) {
    const Found found = look(layer, *index, goal);
    const DeviceArray<float> o(*layer.runtime, layer.q.size()), lse(*layer.runtime, layer.exact.size());
    FlatReport report;
    index->attend({o.data(), lse.data()}, goal, layer.device_q->data(), layer.device_exact->data(), &report);
    EXPECT_EQ(report.keys_kept, found.report.keys_kept);
    const std::vector<float> got = o.read(), sums = lse.read();
    for (int32_t h = 0; h < 6; h++) {
      const size_t row = static_cast<size_t>(goal.by_error ? h / 3 : h);
      double sum = 0;
      std::vector<double> want(64);
      for (size_t i = 0; i < found.tokens[row].size(); i++) {
        const int32_t at = found.tokens[row][i] - 100;
        const double weight = std::exp(layer.logit(h, at) + static_cast<double>(found.bias[row][i]));
        sum += weight;
        for (size_t d = 0; d < 64; d++) {
          want[d] += weight * static_cast<double>(test_widened(layer.values[static_cast<size_t>(((h / 3) * 900 + at) * 64) + d]));
        }
      }
      EXPECT_NEAR(sums[static_cast<size_t>(h)], std::log(sum), 5e-3);
      for (size_t d = 0; d < 64; d++) EXPECT_NEAR(got[static_cast<size_t>(h) * 64 + d], want[d] / sum, 5e-3);
    }
  }
  // Rows that no kernel reaches.
  Layer apart(300, 1, 1, 64, 1, true);
  const auto there = apart.index(DeviceFlat::kInt4, 300);
  const DeviceArray<float> o(*apart.runtime, apart.q.size()), lse(*apart.runtime, apart.exact.size());
  bool refused = false;
  try {
    there->attend({o.data(), lse.data()}, {true, 0.1, false, 3}, apart.device_q->data(), apart.device_exact->data(), nullptr);
  } catch (const Error& e) {
    refused = e.status == KVASIR_UNSUPPORTED;
  }
  EXPECT(refused);
}
