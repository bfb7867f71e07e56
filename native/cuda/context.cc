#include "context.h"

#include <cstring>

#include "problem.h"
#include "runtime_fail.h"
#include "weights.h"

namespace kvasir {

void HostInts::written(const uint8_t* data, const int32_t* values, size_t first, size_t count, size_t total) {
  const auto found = known_.find(data);
  std::vector<int32_t> mine = found == known_.end() ? std::vector<int32_t>() : found->second;
  forget(data, total * sizeof(int32_t));
  if (total > kMostValues || (mine.size() != total && count != total)) return;
  mine.resize(total);
  std::memcpy(mine.data() + first, values, count * sizeof(int32_t));
  known_[data] = std::move(mine);
}

void HostInts::forget(const uint8_t* data, size_t bytes) {
  for (auto at = known_.begin(); at != known_.end();) {
    const bool apart = at->first + at->second.size() * sizeof(int32_t) <= data || data + bytes <= at->first;
    at = apart ? std::next(at) : known_.erase(at);
  }
}

const int32_t* HostInts::find(const uint8_t* data, size_t count) const {
  const auto found = known_.find(data);
  return found != known_.end() && found->second.size() == count ? found->second.data() : nullptr;
}

}  // namespace kvasir

namespace {

class DeviceTensors final : public kvasir::TensorMemory {
 public:
  explicit DeviceTensors(kvasir_context& ctx) : ctx_(ctx) {}
  uint8_t* allocate(size_t bytes) override {
    auto* data = static_cast<uint8_t*>(ctx_.runtime->allocate(bytes));
    ctx_.ints.forget(data, bytes);  // of a tensor that lay here before
    return data;
  }
  void free(uint8_t* data) noexcept override { ctx_.runtime->free(data); }
  const char* remedy(int32_t lifetime) const override {
    return lifetime == KVASIR_MODEL ? kvasir::kWeightsTooLarge : kvasir::kContextTooLarge;
  }
  std::shared_ptr<const void> keeper(uint8_t* data) override {
    return {static_cast<const void*>(data), [runtime = ctx_.runtime](const void* d) { runtime->free(const_cast<void*>(d)); }};
  }
  void make_weight(kvasir::Tensor& t) override {
    t.packed = kvasir::weight_create(*ctx_.runtime, t.dtype, t.shape[0], t.shape[1]);
    t.bytes = t.packed->bytes;
  }

 private:
  kvasir_context& ctx_;
};

void run_in_order(void*, int32_t tasks, void* body, void (*entry)(void* body, int32_t task, int32_t worker)) {
  for (int32_t task = 0; task < tasks; task++) entry(body, task, 0);
}

}  // namespace

kvasir_context& kvasir::context_of(const kvasir_executor* executor) {
  if (executor == nullptr || executor->run != run_in_order) {
    fail(KVASIR_UNSUPPORTED, "Cannot open index: the device's works on memory of backend cuda alone");
  }
  return *static_cast<kvasir_context*>(executor->self);
}

kvasir_context::kvasir_context(std::unique_ptr<kvasir::Runtime> device)
    : runtime(std::move(device)),
      tensors(new DeviceTensors(*this)),
      table(new kvasir::Table(*tensors)),
      scratch(new kvasir::DeviceScratch(*runtime)),
      operand(new kvasir::DeviceScratch(*runtime)),
      attention(new kvasir::DeviceScratch(*runtime)),
      executor{this, 1, run_in_order},
      problem(static_cast<uint32_t*>(runtime->allocate_host(sizeof(uint32_t)))) {
  if (problem == nullptr) kvasir::fail(KVASIR_MEMORY, "Cannot open cuda: out of pinned memory, end what else uses it");
  *problem = 0;
}

kvasir_context::~kvasir_context() { runtime->free_host(problem); }

void kvasir_context::check_problem() {
  const uint32_t what = *problem;
  if (what == 0) return;
  *problem = 0;
  const uint32_t row = what & kvasir::kRowMask;
  if ((what & kvasir::kNanInRow) != 0) kvasir::fail(KVASIR_ARGUMENT, "Cannot use row %u: logits hold NaN", row);
  kvasir::fail(KVASIR_ARGUMENT, "Cannot compare logits: the largest of row %u is infinite", row);
}

const int32_t* kvasir_context::host_ints(const kvasir::Tensor& t) {
  const size_t count = t.elements();
  const int32_t* known = ints.find(t.data, count);
  if (known != nullptr) return known;
  fetched_.resize(count);
  runtime->download(fetched_.data(), t.data, count * sizeof(int32_t));
  return fetched_.data();
}
