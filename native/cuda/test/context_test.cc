// A context's life on a machine that lacks something, and after a kernel's fault.
#include "fixture.h"

using namespace kvasir_test;

TEST("cuda: a machine that cannot run it is told in one sentence") {
  EXPECT(kvasir_context_create("driver=0") == nullptr);
  EXPECT_EQ(last_error(), std::string("Cannot open cuda: this machine has no NVIDIA driver, use backend \"cpu\""));
  EXPECT(kvasir_context_create("driver=12020") == nullptr);
  EXPECT(last_error().find("the driver is for CUDA 12.2") != std::string::npos);
  EXPECT(kvasir_context_create("devices=0") == nullptr);
  EXPECT_EQ(last_error(), std::string("Cannot open cuda: the driver finds no device, use backend \"cpu\""));
  EXPECT(kvasir_context_create("device=3") == nullptr);
  EXPECT(last_error().find("there is no device 3") != std::string::npos);
  EXPECT(kvasir_context_create("colour=3") == nullptr);
  EXPECT(last_error().find("expected device") != std::string::npos);
}

TEST("cuda: a context says how prompts are attended to") {
  const auto described = [](const char* options) {
    Context ctx(options);
    char text[200];
    EXPECT_OK(kvasir_context_describe(ctx, text, sizeof text));
    return std::string(text);
  };
  EXPECT_EQ(described(""), std::string("device=emulated,sm=90,prompts=wgmma+tma"));
  EXPECT_EQ(described("tma=false"), std::string("device=emulated,sm=90,prompts=wgmma"));
  EXPECT_EQ(described("maps=false"), std::string("device=emulated,sm=90,prompts=wgmma"));
  EXPECT_EQ(described("wgmma=false"), std::string("device=emulated,sm=90,prompts=mma"));
  EXPECT(kvasir_context_create("tma=1") == nullptr);
  EXPECT_EQ(last_error(), std::string("Cannot open cuda: tma is \"1\", expected true or false"));
}

TEST("cuda: tensors are written, viewed, copied and read") {
  Context ctx("");
  const kvasir_tensor x = ctx.floats({2, 3}, {1, 2, 3, 4, 5, 6});
  kvasir_tensor view = 0;
  const int32_t shape[] = {3};
  EXPECT_OK(kvasir_tensor_view(ctx, &view, x, 1, shape, 3));
  EXPECT(ctx.read(view, 3) == std::vector<float>({4, 5, 6}));
  const kvasir_tensor y = ctx.floats({3}, {0, 0, 0});
  EXPECT_OK(kvasir_tensor_copy(ctx, y, 1, view, 0, 2));
  EXPECT(ctx.read(y, 3) == std::vector<float>({0, 4, 5}));
  EXPECT_FAILS(kvasir_tensor_copy(ctx, y, 2, view, 0, 2), KVASIR_ARGUMENT, "Cannot copy tensor");
  EXPECT(kvasir_tensor_address(ctx, x) != nullptr);  // the device's
  EXPECT_OK(kvasir_tensor_destroy(ctx, x));
  EXPECT_FAILS(kvasir_tensor_destroy(ctx, x), KVASIR_ARGUMENT, "stale");
}

TEST("cuda: out of memory is an error that leaves the context as it was") {
  Context ctx("memory=1");
  const kvasir_tensor x = ctx.floats({4}, {1, 2, 3, 4});
  kvasir_tensor big = 0;
  const int32_t shape[] = {1 << 20};
  EXPECT_FAILS(kvasir_tensor_create(ctx, &big, KVASIR_F32, 1, shape, KVASIR_SEQUENCE), KVASIR_MEMORY,
               "out of memory for 4194304 bytes on the device, use a smaller context, a cache of type i8, or backend \"hybrid:device=cuda,host=cpu\"");
  EXPECT_FAILS(kvasir_tensor_create(ctx, &big, KVASIR_F32, 1, shape, KVASIR_MODEL), KVASIR_MEMORY, "use a smaller or more quantized model");
  const int32_t matrix[] = {1 << 10, 1 << 10};
  EXPECT_FAILS(kvasir_tensor_create(ctx, &big, KVASIR_F32, 2, matrix, KVASIR_MODEL), KVASIR_MEMORY, "use a smaller or more quantized model");
  EXPECT(ctx.read(x, 4) == std::vector<float>({1, 2, 3, 4}));
  double live[3];
  EXPECT_OK(kvasir_context_bytes(ctx, live));
  EXPECT_EQ(live[1], 0.0);
}

TEST("cuda: what is fetched is what was there, whatever comes after") {
  Context ctx("");
  const kvasir_tensor x = ctx.floats({4}, {1, 2, 3, 4}), y = ctx.floats({2}, {7, 8});
  int32_t first = 0, second = 0, third = 0;
  EXPECT_OK(kvasir_add(ctx, x, x, x));  // still to be launched
  EXPECT_OK(kvasir_tensor_fetch(ctx, &first, x));
  EXPECT_OK(kvasir_add(ctx, x, x, x));
  EXPECT_OK(kvasir_tensor_fetch(ctx, &second, x));
  EXPECT_OK(kvasir_tensor_fetch(ctx, &third, y));
  EXPECT(first != second && second != third && first != third);
  EXPECT_OK(kvasir_add(ctx, x, x, x));
  EXPECT_OK(kvasir_tensor_destroy(ctx, x));
  float out[4];
  EXPECT_FAILS(kvasir_tensor_fetched(ctx, out, second, 3), KVASIR_ARGUMENT, "room for 3 elements, it has 4");
  EXPECT_OK(kvasir_tensor_fetched(ctx, out, second, 4));
  EXPECT(out[0] == 4 && out[3] == 16);
  EXPECT_OK(kvasir_tensor_fetched(ctx, nullptr, third, 0));
  EXPECT_FAILS(kvasir_tensor_fetched(ctx, out, third, 2), KVASIR_ARGUMENT, "none that was begun");
  EXPECT_OK(kvasir_tensor_fetch(ctx, &third, y));  // where what was dropped lay, or what was taken
  EXPECT_OK(kvasir_tensor_fetched(ctx, out, first, 4));
  EXPECT(out[0] == 2 && out[3] == 8);
  EXPECT_OK(kvasir_tensor_fetched(ctx, out, third, 2));
  EXPECT(out[0] == 7 && out[1] == 8);
  EXPECT_FAILS(kvasir_tensor_fetched(ctx, out, 0, 2), KVASIR_ARGUMENT, "none that was begun");
  EXPECT_FAILS(kvasir_tensor_fetch(ctx, &first, 0), KVASIR_ARGUMENT, "tensor to fetch");
}

TEST("cuda: a kernel's fault loses the device, not the process, and memory comes back") {
  Context ctx("fault=2");
  const kvasir_tensor x = ctx.floats({4}, {1, 2, 3, 4});
  EXPECT_OK(kvasir_add(ctx, x, x, x));
  EXPECT_OK(kvasir_add(ctx, x, x, x));  // said by the call that waits for it
  float out[4];
  EXPECT_FAILS(kvasir_tensor_read(ctx, out, x, 4), KVASIR_DEVICE, "illegal memory access");
  EXPECT_FAILS(kvasir_add(ctx, x, x, x), KVASIR_DEVICE, "the device is lost");
  EXPECT_FAILS(kvasir_tensor_read(ctx, out, x, 4), KVASIR_DEVICE, "open the backend again");
  EXPECT_OK(kvasir_tensor_destroy(ctx, x));
  double live[3];
  EXPECT_OK(kvasir_context_bytes(ctx, live));
  EXPECT_EQ(live[2], 0.0);
}
