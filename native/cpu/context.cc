#include "context.h"

#include "tensor_file.h"
#include "weights.h"

namespace {

class HostTensors final : public kvasir::TensorMemory {
 public:
  uint8_t* allocate(size_t bytes) override { return static_cast<uint8_t*>(kvasir::aligned_allocate(bytes)); }
  void free(uint8_t* data) noexcept override { kvasir::aligned_free(data); }
  void make_weight(kvasir::Tensor& t) override {
    t.packed = kvasir::weight_create(t.dtype, t.shape[0], t.shape[1]);
    t.bytes = kvasir::weight_bytes(*t.packed);
  }
};

}  // namespace

kvasir_context::kvasir_context()
    : tensors(new HostTensors), table(new kvasir::Table(*tensors)), files(new Files) {}
kvasir_context::~kvasir_context() = default;
