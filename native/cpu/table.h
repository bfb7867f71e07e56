// Tensors of one context by id. An id is a slot index and the slot's generation, so that an id kept after its tensor
// ended is recognized: 0 is never one, a slot is reused only after 1024 others, and then under a new generation.
#pragma once
#include <deque>
#include <vector>

#include "context.h"
#include "dtype.h"

namespace kvasir {

struct Slot {
  Tensor tensor;
  uint32_t generation = 1;
  bool used = false;
  bool owner = false;
  kvasir_memory* memory = nullptr;  // an owner's, once another library asked for it; frees the data then
  bool stale = false;  // a view whose parent has ended; it can only be destroyed
  // Views of this tensor, and the list this view is in; slot indices, 0 is none.
  uint32_t parent = 0, first_view = 0, next_view = 0, previous_view = 0;
};

}  // namespace kvasir

struct kvasir_context::Table {
  static constexpr int kIndexBits = 18;
  static constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;

  std::deque<kvasir::Slot> slots;  // slot 0 is never used
  std::deque<uint32_t> unused;
  double live[3] = {0, 0, 0};  // bytes by lifetime

  Table();
  ~Table();
  kvasir::Slot& find(kvasir_tensor id, const char* what);
  // Both return the id; the caller has checked shapes. create allocates (or makes a packed weight).
  kvasir_tensor create(kvasir_context& context, int32_t dtype, int32_t rank, const int32_t* shape, int32_t lifetime);
  kvasir_tensor view(kvasir_tensor parent, int32_t rank, const int32_t* shape, double offset);
  // Sequence memory that is somebody else's: `holder` keeps it. Counts as no memory of the context's.
  kvasir_tensor map(int32_t dtype, int32_t rank, const int32_t* shape, uint8_t* data, size_t bytes,
                    std::shared_ptr<const void> holder);
  void destroy(kvasir_tensor id);
  kvasir_memory* memory(kvasir_tensor id);  // made at the first call

 private:
  uint32_t take_slot();
  void give_slot(uint32_t index);
  void end_views(uint32_t index);
};
