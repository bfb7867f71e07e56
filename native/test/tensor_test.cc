#include <climits>
#include <cmath>

#include "fixture.h"

using namespace kvasir_test;

TEST("tensor_create() and bytes account per lifetime") {
  Context c("threads=1");
  double before[3], during[3], after[3];
  EXPECT_OK(kvasir_context_bytes(c, before));
  const kvasir_tensor a = c.make(KVASIR_F32, {3, 5}, KVASIR_SEQUENCE);
  const kvasir_tensor b = c.make(KVASIR_F16, {7}, KVASIR_MODEL);
  const kvasir_tensor s = c.make(KVASIR_I8, {2, 3, 4, 5}, KVASIR_STEP);
  EXPECT_OK(kvasir_context_bytes(c, during));
  EXPECT_EQ(during[KVASIR_MODEL], before[KVASIR_MODEL] + 14);
  EXPECT_EQ(during[KVASIR_SEQUENCE], before[KVASIR_SEQUENCE] + 60);
  EXPECT_EQ(during[KVASIR_STEP], before[KVASIR_STEP] + 120);
  for (kvasir_tensor t : {a, b, s}) EXPECT_OK(kvasir_tensor_destroy(c, t));
  EXPECT_OK(kvasir_context_bytes(c, after));
  for (int i = 0; i < 3; i++) EXPECT_EQ(after[i], 0.0);
}

TEST("tensor_create() refuses bad shapes, types and lifetimes") {
  Context c("threads=1");
  kvasir_tensor id = 0;
  const int32_t huge[4] = {INT_MAX, INT_MAX, INT_MAX, INT_MAX}, edge[2] = {1 << 20, 1 << 20}, negative[2] = {-1, 0};
  const int32_t odd[2] = {2, 33}, fine[2] = {2, 32};
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 4, huge, 0), KVASIR_ARGUMENT, "2^40");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_I8, 2, edge, 1), KVASIR_ARGUMENT, "2^40");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 2, negative, 1), KVASIR_ARGUMENT, "-1 is negative");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 0, fine, 1), KVASIR_ARGUMENT, "rank 0");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 5, huge, 1), KVASIR_ARGUMENT, "rank 5");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, 15, 2, fine, 1), KVASIR_ARGUMENT, "unknown type 15");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, -1, 2, fine, 1), KVASIR_ARGUMENT, "unknown type -1");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 2, fine, 3), KVASIR_ARGUMENT, "lifetime 3");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_F32, 2, nullptr, 1), KVASIR_ARGUMENT, "shape is missing");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_Q4_0, 2, odd, 0), KVASIR_ARGUMENT, "not whole blocks of 32");
  EXPECT_FAILS(kvasir_tensor_create(c, &id, KVASIR_Q4_0, 2, fine, 2), KVASIR_ARGUMENT, "model tensors of rank 2");
}

TEST("tensor ids are checked: 0, stale, reused, foreign") {
  Context c("threads=1");
  const kvasir_tensor first = c.make(KVASIR_F32, {4});
  float out[4];
  EXPECT(first != 0);
  EXPECT_OK(kvasir_tensor_destroy(c, first));
  EXPECT_FAILS(kvasir_tensor_destroy(c, first), KVASIR_ARGUMENT, "stale");
  EXPECT_FAILS(kvasir_tensor_read(c, out, first, 4), KVASIR_ARGUMENT, "stale");
  EXPECT_FAILS(kvasir_tensor_read(c, out, 0, 4), KVASIR_ARGUMENT, "no tensor");
  EXPECT_FAILS(kvasir_tensor_destroy(c, 0), KVASIR_ARGUMENT, "stale");
  EXPECT_FAILS(kvasir_tensor_read(c, out, 0xffffffffu, 4), KVASIR_ARGUMENT, "foreign");
  for (int i = 0; i < 5000; i++) {  // the slot is used again meanwhile, under other ids
    const kvasir_tensor id = c.make(KVASIR_F32, {4});
    EXPECT(id != first);
    EXPECT_OK(kvasir_tensor_destroy(c, id));
  }
  EXPECT_FAILS(kvasir_tensor_read(c, out, first, 4), KVASIR_ARGUMENT, "stale");
}

TEST("tensor_view() shares memory, is checked, and ends with its parent") {
  Context c("threads=1");
  const kvasir_tensor whole = c.floats({2, 3}, {0, 1, 2, 3, 4, 5});
  kvasir_tensor view = 0, nested = 0, other = 0, bad = 0;
  const int32_t pair[2] = {2, 2}, one[1] = {1}, empty[1] = {0}, seven[1] = {7};
  EXPECT_OK(kvasir_tensor_view(c, &view, whole, 2, pair, 1));
  EXPECT_OK(kvasir_tensor_view(c, &nested, view, 1, one, 3));
  EXPECT_OK(kvasir_tensor_view(c, &other, whole, 1, empty, 6));
  EXPECT_EQ(c.read(view, 4)[3], 4.0f);
  EXPECT_EQ(c.read(nested, 1)[0], 4.0f);
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, seven, 0), KVASIR_ARGUMENT, "exceeds");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, one, 6), KVASIR_ARGUMENT, "exceeds");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, one, 0.5), KVASIR_ARGUMENT, "exceeds");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, one, -1), KVASIR_ARGUMENT, "exceeds");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, one, NAN), KVASIR_ARGUMENT, "exceeds");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, whole, 1, one, 1e300), KVASIR_ARGUMENT, "exceeds");
  double bytes[3];
  EXPECT_OK(kvasir_context_bytes(c, bytes));
  EXPECT_EQ(bytes[KVASIR_STEP], 24.0);
  EXPECT_OK(kvasir_tensor_destroy(c, other));  // a view before its parent
  EXPECT_OK(kvasir_tensor_destroy(c, whole));
  float out[4];
  EXPECT_FAILS(kvasir_tensor_read(c, out, view, 4), KVASIR_ARGUMENT, "has ended");
  EXPECT_FAILS(kvasir_tensor_read(c, out, nested, 1), KVASIR_ARGUMENT, "has ended");
  EXPECT_FAILS(kvasir_tensor_view(c, &bad, view, 1, one, 0), KVASIR_ARGUMENT, "has ended");
  EXPECT_OK(kvasir_tensor_destroy(c, view));  // and after it
  EXPECT_OK(kvasir_tensor_destroy(c, nested));
  EXPECT_FAILS(kvasir_tensor_destroy(c, nested), KVASIR_ARGUMENT, "stale");
}

TEST("tensor_view() trees of many views end in any order") {
  Random random(3);
  for (int round = 0; round < 20; round++) {
    Context c("threads=1");
    std::vector<kvasir_tensor> live = {c.make(KVASIR_F32, {8})};
    for (int i = 0; i < 60; i++) {
      kvasir_tensor id = 0;
      const int32_t shape[1] = {8};
      EXPECT_OK(kvasir_tensor_view(c, &id, live[random.bits() % live.size()], 1, shape, 0));
      live.push_back(id);
    }
    while (!live.empty()) {
      const size_t i = random.bits() % live.size();
      EXPECT_OK(kvasir_tensor_destroy(c, live[i]));
      live.erase(live.begin() + static_cast<long>(i));
      float out[8];
      for (kvasir_tensor id : live) kvasir_tensor_read(c, out, id, 8);  // a status either way, never a crash
    }
    double bytes[3];
    EXPECT_OK(kvasir_context_bytes(c, bytes));
    EXPECT_EQ(bytes[KVASIR_STEP], 0.0);
  }
}

TEST("tensor_write() takes whole rows inside the tensor only") {
  Context c("threads=1");
  const kvasir_tensor t = c.floats({3, 2}, {0, 0, 0, 0, 0, 0});
  const float two[5] = {1, 2, 3, 4, 5};
  EXPECT_OK(kvasir_tensor_write(c, t, two, 16, 1));
  const std::vector<float> got = c.read(t, 6);
  EXPECT_EQ(got[1], 0.0f);
  EXPECT_EQ(got[2], 1.0f);
  EXPECT_EQ(got[5], 4.0f);
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, 16, 2), KVASIR_ARGUMENT, "exceed");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, 8, -1), KVASIR_ARGUMENT, "exceed");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, 12, 0), KVASIR_ARGUMENT, "whole rows of 8");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, 8.5, 0), KVASIR_ARGUMENT, "no count of bytes");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, -8, 0), KVASIR_ARGUMENT, "no count of bytes");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, INFINITY, 0), KVASIR_ARGUMENT, "no count of bytes");
  EXPECT_FAILS(kvasir_tensor_write(c, t, two, NAN, 0), KVASIR_ARGUMENT, "no count of bytes");
  EXPECT_FAILS(kvasir_tensor_write(c, t, nullptr, 8, 0), KVASIR_ARGUMENT, "missing");
  EXPECT_OK(kvasir_tensor_write(c, t, nullptr, 0, 3));
  const kvasir_tensor none = c.make(KVASIR_F32, {4, 0});
  EXPECT_OK(kvasir_tensor_write(c, none, nullptr, 0, 0));
  EXPECT_FAILS(kvasir_tensor_write(c, none, two, 4, 0), KVASIR_ARGUMENT, "whole rows of 0");
}

TEST("tensor_read() widens every plain type") {
  Context c("threads=1");
  const kvasir_tensor half = c.make(KVASIR_F16, {7});
  c.write<uint16_t>(half, {0x3c00, 0xc000, 0x0001, 0x7c00, 0x8000, 0x7bff, 0x03ff});
  const std::vector<float> h = c.read(half, 7);
  const float want[7] = {1, -2, 0x1p-24f, INFINITY, -0.0f, 65504, 1023 * 0x1p-24f};
  for (int i = 0; i < 7; i++) EXPECT_EQ(h[static_cast<size_t>(i)], want[i]);
  EXPECT(std::signbit(h[4]));
  const kvasir_tensor brain = c.make(KVASIR_BF16, {2});
  c.write<uint16_t>(brain, {0x3f80, 0xc040});
  EXPECT_EQ(c.read(brain, 2)[1], -3.0f);
  const kvasir_tensor small = c.make(KVASIR_I8, {2});
  c.write<int8_t>(small, {-128, 127});
  EXPECT_EQ(c.read<int32_t>(small, 2)[0], -128);
  EXPECT_EQ(c.read<int32_t>(c.ints({1}, {INT_MIN}), 1)[0], INT_MIN);
  float out[8];
  EXPECT_FAILS(kvasir_tensor_read(c, out, half, 8), KVASIR_ARGUMENT, "has 7");
  EXPECT_FAILS(kvasir_tensor_read(c, nullptr, half, 7), KVASIR_ARGUMENT, "missing");
}

TEST("context options: canonical, and wrong ones say what is right") {
  char text[100];
  Context c("threads=2,isa=portable,precision=fast");
  EXPECT_OK(kvasir_context_describe(c, text, sizeof text));
  EXPECT_EQ(std::string(text), std::string("isa=portable,precision=fast,threads=2"));
  EXPECT_FAILS(kvasir_context_describe(c, text, 5), KVASIR_ARGUMENT, "needs 38");
  const char* wrong[][2] = {{"isa=sse", "expected auto, avx512, avx2 or portable"},
                            {"threads=x", "expected 1 to 1024"},
                            {"threads=", "expected 1 to 1024"},
                            {"threads=99999999999999999999", "expected 1 to 1024"},
                            {"threads=2x", "expected 1 to 1024"},
                            {"precision=best", "expected exact or fast"},
                            {"speed=1", "expected isa, threads or precision"},
                            {"isa=auto,,threads=1", "option \"\" is unknown"},
                            {"threads=1,threads=2", "twice"}};
  for (auto& w : wrong) {
    EXPECT(kvasir_context_create(w[0]) == nullptr);
    EXPECT(last_error().find(w[1]) != std::string::npos);
  }
  kvasir_context* plain = kvasir_context_create(nullptr);
  EXPECT(plain != nullptr);
  EXPECT_OK(kvasir_context_destroy(plain));
  EXPECT_EQ(kvasir_abi_version(), KVASIR_ABI_VERSION);
}

TEST("last_error() is cut to the buffer") {
  Context c("threads=1");
  EXPECT_EQ(kvasir_tensor_destroy(c, 0), KVASIR_ARGUMENT);
  char text[8] = "xxxxxxx";
  EXPECT_OK(kvasir_last_error(text, 4));
  EXPECT_EQ(std::string(text), std::string("Can"));
  EXPECT_OK(kvasir_last_error(nullptr, 0));
}

TEST("context_keep() checks its size") {
  Context c("threads=1");
  EXPECT_OK(kvasir_context_keep(c, 1e6));
  EXPECT_OK(kvasir_context_keep(c, 0));
  EXPECT_FAILS(kvasir_context_keep(c, -1), KVASIR_ARGUMENT, "Cannot keep memory");
  EXPECT_FAILS(kvasir_context_keep(c, std::nan("")), KVASIR_ARGUMENT, "Cannot keep memory");
}

TEST("context_bandwidth() measures something and checks its size") {
  Context c("threads=2");
  double rate = 0;
  EXPECT_OK(kvasir_context_bandwidth(c, &rate, 8));
  EXPECT(rate > 0.1 && rate < 10000);
  EXPECT_FAILS(kvasir_context_bandwidth(c, &rate, 0), KVASIR_ARGUMENT, "expected 1 to 65536");
}
