// Tensors of one context by id. An id is a slot index and the slot's generation, so that an id kept after its tensor
// ended is recognized: 0 is never one, a slot is reused only after 1024 others, and then under a new generation.
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "dtype.h"
#include "prefetch.h"
#include "tensor.h"

namespace kvasir {

// Where the tensors of a context lie.
class TensorMemory {
 public:
  virtual ~TensorMemory() = default;
  virtual uint8_t* allocate(size_t bytes) = 0;   // null when memory is out
  // What the sentence about that ends with: which memory it is, and what to do.
  virtual const char* remedy(int32_t /*lifetime*/) const { return ""; }
  virtual void free(uint8_t* data) noexcept = 0;  // of allocate, or null
  // What frees data once nobody holds it; null: the host's memory, which aligned_free does.
  virtual std::shared_ptr<const void> keeper(uint8_t*) { return nullptr; }
  // Sets packed and bytes of a rank-2 model tensor; throws Error.
  virtual void make_weight(Tensor& tensor) = 0;
};

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

class Table {
 public:
  static constexpr int kIndexBits = 18;
  static constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;

  std::deque<Slot> slots;  // slot 0 is never used
  std::deque<uint32_t> unused;
  double live[3] = {0, 0, 0};  // bytes by lifetime

  explicit Table(TensorMemory& memory);  // which outlives it
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  // Throws Error{KVASIR_ARGUMENT} naming `what` when the id is stale, foreign or 0.
  Slot& find(uint32_t id, const char* what);
  Tensor& tensor(uint32_t id, const char* what) { return find(id, what).tensor; }
  // Asks for what find() will read: a step of many sequences comes by hundreds of slots that were last looked at a step ago. Any id.
  void fetch(uint32_t id) const {
    const uint32_t index = id & kIndexMask;
    if (index < slots.size()) prefetch_lines(&slots[index], sizeof(Slot));
  }
  // Both return the id; the caller has checked shapes. create allocates (or makes a packed weight).
  uint32_t create(int32_t dtype, int32_t rank, const int32_t* shape, int32_t lifetime);
  uint32_t view(uint32_t parent, int32_t rank, const int32_t* shape, double offset);
  // Sequence memory that is somebody else's: `holder` keeps it. Counts as no memory of the context's.
  uint32_t map(int32_t dtype, int32_t rank, const int32_t* shape, uint8_t* data, size_t bytes,
                    std::shared_ptr<const void> holder);
  void destroy(uint32_t id);
  kvasir_memory* memory(uint32_t id);  // made at the first call

 private:
  uint32_t take_slot();
  void give_slot(uint32_t index);
  void end_views(uint32_t index);
  void free_data(Slot& s);
  TensorMemory& where_;
};

}  // namespace kvasir
