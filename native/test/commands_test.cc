// kvasir_commands_run() beside the calls it stands for.
#include <memory>

#include "fixture.h"
#include "weight_fixture.h"

namespace {

using namespace kvasir_test;

constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 32, kWidth = kHeads * kDim, kMlp = 3 * kDim, kVocab = 50, kLayers = 3;
constexpr float kEpsilon = 1e-5f;

int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct Commands {
  std::vector<int32_t> numbers;
  void add(int32_t code, const std::vector<int32_t>& arguments) {
    numbers.push_back(code);
    numbers.push_back(static_cast<int32_t>(arguments.size()));
    numbers.insert(numbers.end(), arguments.begin(), arguments.end());
  }
  int32_t run(Context& c) const {
    return kvasir_commands_run(c, numbers.data(), static_cast<int32_t>(numbers.size()));
  }
};

// A small model's decode step of n sequences, as calls or as commands; activations of different widths share memory.
struct Step {
  struct Layer {
    kvasir_tensor norm, q, k, v, out, gate, up, down;
    std::vector<kvasir_tensor> keys, values;
  };
  Context& c;
  int32_t n;
  std::vector<int32_t> lengths;  // before the step
  std::vector<Layer> layers;
  kvasir_tensor table, output, tokens, positions, x, h, q, k, v, attended, a, mlp, more, down, bias, angles, logits;
  std::vector<double> frequencies;

  Step(Context& context, std::vector<int32_t> caches, int32_t dtype) : c(context), n(static_cast<int32_t>(caches.size())), lengths(caches) {
    Random random(7);
    const auto weight = [&](int32_t rows, int32_t columns) {
      return make_weight(c, dtype, rows, columns, random_weight(random, dtype, rows, columns, Scales::kUsual));
    };
    const auto vector = [&](int32_t width) { return c.floats({width}, random.normals(static_cast<size_t>(width)), false, KVASIR_MODEL); };
    for (int32_t l = 0; l < kLayers; l++) {
      Layer y{vector(kWidth), weight(kWidth, kWidth), weight(kKvHeads * kDim, kWidth), weight(kKvHeads * kDim, kWidth), weight(kWidth, kWidth),
              weight(kMlp, kWidth), weight(kMlp, kWidth), weight(kWidth, kMlp), {}, {}};
      for (const int32_t length : lengths) {
        for (auto* side : {&y.keys, &y.values}) {
          side->push_back(c.make(KVASIR_F32, {kKvHeads, length + 3, kDim}, KVASIR_SEQUENCE));
          c.write(side->back(), random.normals(static_cast<size_t>(kKvHeads * (length + 3) * kDim)));
        }
      }
      layers.push_back(y);
    }
    table = weight(kVocab, kWidth), output = weight(kVocab, kWidth);
    bias = vector(kWidth);
    tokens = c.ints({n}, std::vector<int32_t>(static_cast<size_t>(n)));
    positions = c.ints({n}, lengths);
    x = c.make(KVASIR_F32, {n, kWidth}), h = c.make(KVASIR_F32, {n, kWidth}), logits = c.make(KVASIR_F32, {n, kVocab});
    angles = c.make(KVASIR_F32, {n, kDim / 2, 2});
    const kvasir_tensor shared = c.make(KVASIR_F32, {n * (2 * kWidth + 2 * kKvHeads * kDim)});
    const auto view = [&](std::vector<int32_t> shape, double at) {
      kvasir_tensor id = 0;
      EXPECT_OK(kvasir_tensor_view(c, &id, shared, static_cast<int32_t>(shape.size()), shape.data(), at));
      return id;
    };
    q = view({n, kHeads, kDim}, 0), k = view({n, kKvHeads, kDim}, n * kWidth), v = view({n, kKvHeads, kDim}, n * (kWidth + kKvHeads * kDim));
    attended = view({n, kHeads, kDim}, n * (kWidth + 2 * kKvHeads * kDim)), a = view({n, kWidth}, 0);
    mlp = view({n, kMlp}, 0), more = view({n, kMlp}, n * kMlp), down = view({n, kWidth}, 2 * n * kMlp);
    for (int32_t i = 0; i < kDim / 2; i++) frequencies.push_back(1.0 / (1 + i));
  }

  std::vector<int32_t> segments(const Layer& y, int32_t appended) const {
    std::vector<int32_t> all;
    for (size_t i = 0; i < lengths.size(); i++) {
      for (const kvasir_tensor field : {0u, static_cast<uint32_t>(lengths[i] + appended), y.keys[i], y.values[i], 0u, 0u}) {
        all.push_back(static_cast<int32_t>(field));
      }
    }
    return all;
  }

  void call() {
    EXPECT_OK(kvasir_embed(c, x, table, tokens, 0.5f));
    EXPECT_OK(kvasir_rope_table(c, angles, positions, frequencies.data(), kDim, 1.5f));
    EXPECT_OK(kvasir_rms_norm(c, h, x, layers[0].norm, kEpsilon));
    const std::vector<int32_t> ones(lengths.size(), 1);
    for (const Layer& y : layers) {
      const kvasir_tensor outs[] = {q, k, v}, ws[] = {y.q, y.k, y.v}, rotated[] = {q, k};
      EXPECT_OK(kvasir_matmul(c, outs, h, ws, 3));
      EXPECT_OK(kvasir_rope(c, rotated, 2, angles, KVASIR_HALVES));
      EXPECT_OK(kvasir_append_each(c, segments(y, 0).data(), lengths.data(), n, k, v));
      EXPECT_OK(kvasir_attend_each(c, attended, q, segments(y, 1).data(), ones.data(), n, 0.2f, 0, 0));
      EXPECT_OK(kvasir_matmul(c, &a, attended, &y.out, 1));
      EXPECT_OK(kvasir_add(c, a, a, bias));
      EXPECT_OK(kvasir_add_rms_norm(c, h, x, a, y.norm, kEpsilon));
      EXPECT_OK(kvasir_matmul_glu(c, mlp, h, y.gate, y.up, KVASIR_SILU));
      EXPECT_OK(kvasir_matmul(c, &more, h, &y.up, 1));
      EXPECT_OK(kvasir_glu(c, mlp, mlp, more, KVASIR_GELU));
      EXPECT_OK(kvasir_matmul(c, &down, mlp, &y.down, 1));
      EXPECT_OK(kvasir_add_rms_norm(c, h, x, down, y.norm, kEpsilon));
    }
    EXPECT_OK(kvasir_matmul(c, &logits, h, &output, 1));
  }

  Commands commands() const {
    Commands list;
    const auto id = [](kvasir_tensor t) { return static_cast<int32_t>(t); };
    const int32_t epsilon = bits_of(kEpsilon);
    list.add(KVASIR_RUN_EMBED, {id(x), id(table), id(tokens), bits_of(0.5f)});
    std::vector<int32_t> rope{id(angles), id(positions), kDim, bits_of(1.5f)};
    rope.resize(4 + frequencies.size() * 2);
    std::memcpy(rope.data() + 4, frequencies.data(), frequencies.size() * sizeof(double));
    list.add(KVASIR_RUN_ROPE_TABLE, rope);
    list.add(KVASIR_RUN_RMS_NORM, {id(h), id(x), id(layers[0].norm), epsilon});
    for (const Layer& y : layers) {
      list.add(KVASIR_RUN_MATMUL, {id(h), 3, id(q), id(k), id(v), id(y.q), id(y.k), id(y.v)});
      list.add(KVASIR_RUN_ROPE, {id(angles), KVASIR_HALVES, 2, id(q), id(k)});
      std::vector<int32_t> append{id(k), id(v), n};
      append.insert(append.end(), lengths.begin(), lengths.end());
      const std::vector<int32_t> before = segments(y, 0), after = segments(y, 1);
      append.insert(append.end(), before.begin(), before.end());
      list.add(KVASIR_RUN_APPEND_EACH, append);
      std::vector<int32_t> attend{id(attended), id(q), bits_of(0.2f), 0, 0, n};
      attend.insert(attend.end(), lengths.size(), 1);
      attend.insert(attend.end(), after.begin(), after.end());
      list.add(KVASIR_RUN_ATTEND_EACH, attend);
      list.add(KVASIR_RUN_MATMUL, {id(attended), 1, id(a), id(y.out)});
      list.add(KVASIR_RUN_ADD, {id(a), id(a), id(bias)});
      list.add(KVASIR_RUN_ADD_RMS_NORM, {id(h), id(x), id(a), id(y.norm), epsilon});
      list.add(KVASIR_RUN_MATMUL_GLU, {id(mlp), id(h), id(y.gate), id(y.up), KVASIR_SILU});
      list.add(KVASIR_RUN_MATMUL, {id(h), 1, id(more), id(y.up)});
      list.add(KVASIR_RUN_GLU, {id(mlp), id(mlp), id(more), KVASIR_GELU});
      list.add(KVASIR_RUN_MATMUL, {id(mlp), 1, id(down), id(y.down)});
      list.add(KVASIR_RUN_ADD_RMS_NORM, {id(h), id(x), id(down), id(y.norm), epsilon});
    }
    list.add(KVASIR_RUN_MATMUL, {id(h), 1, id(logits), id(output)});
    return list;
  }

  std::vector<float> result() { return c.read(logits, static_cast<size_t>(n * kVocab)); }
};

TEST("commands do what calls do, to the bit") {
  for (const std::string& isa : isas()) {
    for (const int32_t dtype : {KVASIR_Q4_1, KVASIR_F32}) {
      for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{400, 3, 64, 1, 65, 129, 7, 30, 2}, {9}, {64, 1, 300}, {5, 6, 7, 8, 130, 1, 2, 3}}) {
        Context c("threads=2,isa=" + isa);
        Step step(c, lengths, dtype);
        step.call();
        const std::vector<float> want = step.result();
        const Commands commands = step.commands();
        for (int again = 0; again < 2; again++) {
          c.write(step.logits, std::vector<float>(want.size()));
          EXPECT_OK(commands.run(c));  // appends the same row again
          EXPECT(step.result() == want);
        }
      }
    }
  }
}

TEST("commands that are cut off, unknown, too long or wrong are refused") {
  Context c("threads=2");
  const kvasir_tensor x = c.floats({8, 2}, std::vector<float>(16, 1.0f)), y = c.floats({8, 2}, std::vector<float>(16, 2.0f));
  const int32_t a = static_cast<int32_t>(x), b = static_cast<int32_t>(y);
  const auto refused = [&](const std::vector<int32_t>& numbers, const char* why) {
    EXPECT_FAILS(kvasir_commands_run(c, numbers.data(), static_cast<int32_t>(numbers.size())), KVASIR_ARGUMENT, why);
  };
  refused({KVASIR_RUN_ADD}, "cut off");
  refused({KVASIR_RUN_ADD, 3, a, a}, "cut off");
  refused({KVASIR_RUN_ADD, -1}, "cut off");
  refused({KVASIR_RUN_ADD, INT32_MAX, a, a, b}, "cut off");
  refused({KVASIR_RUN_ADD, 2, a, a}, "needs 1 more");
  refused({KVASIR_RUN_ADD, 4, a, a, b, b}, "too many");
  refused({0, 0}, "there is none");
  refused({99, 0}, "there is none");
  refused({KVASIR_RUN_MATMUL, 2, a, -1}, "needs -1 more");
  refused({KVASIR_RUN_MATMUL, 2, a, INT32_MAX}, "more arguments");
  refused({KVASIR_RUN_ROPE_TABLE, 4, a, a, INT32_MAX, 0}, "more arguments");
  refused({KVASIR_RUN_APPEND_EACH, 3, a, b, INT32_MAX}, "more arguments");
  refused({KVASIR_RUN_ATTEND_EACH, 6, a, b, 0, 0, 0, -2}, "needs -2 more");
  refused({KVASIR_RUN_ATTEND_EACH, 7, a, b, 0, 0, 0, 1, -1}, "-1 segments");
  refused({KVASIR_RUN_ADD, 3, a, a, 12345}, "stale");
  EXPECT_FAILS(kvasir_commands_run(c, nullptr, 1), KVASIR_ARGUMENT, "1 numbers");
  EXPECT_FAILS(kvasir_commands_run(c, nullptr, -1), KVASIR_ARGUMENT, "-1 numbers");
  EXPECT_OK(kvasir_commands_run(c, nullptr, 0));
  // What came before a failure is done.
  c.write(x, std::vector<float>(16, 1.0f));
  refused({KVASIR_RUN_ADD, 3, a, a, b, KVASIR_RUN_ADD, 3, a, a, 0}, "is no tensor");
  EXPECT(c.read(x, 16) == std::vector<float>(16, 3.0f));
}

}  // namespace
