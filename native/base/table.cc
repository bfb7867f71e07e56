#include "table.h"

#include <cmath>
#include "error.h"
#include "kvasir_backend.h"
#include "memory.h"

namespace kvasir {
namespace {

constexpr size_t kReuseDelay = 1024;

struct Size {
  size_t elements, bytes;
};

// Elements and bytes of a shape, checked. Counts stay below 2^40, so products of two dimensions and byte counts
// cannot overflow 64 bits anywhere in the library.
Size checked_size(const char* action, int32_t dtype, int32_t rank, const int32_t* shape) {
  if (dtype < 0 || dtype >= kDTypeCount) fail(KVASIR_ARGUMENT, "Cannot %s: unknown type %d", action, dtype);
  if (rank < 1 || rank > 4) fail(KVASIR_ARGUMENT, "Cannot %s: rank %d, expected 1 to 4", action, rank);
  if (shape == nullptr) fail(KVASIR_ARGUMENT, "Cannot %s: shape is missing", action);
  bool empty = false;
  for (int32_t i = 0; i < rank; i++) {
    if (shape[i] < 0) fail(KVASIR_ARGUMENT, "Cannot %s: dimension %d is negative", action, shape[i]);
    if (shape[i] == 0) empty = true;
  }
  uint64_t count = empty ? 0 : 1;
  for (int32_t i = 0; i < rank && !empty; i++) {
    count *= static_cast<uint64_t>(shape[i]);  // below 2^40 * 2^31 each time
    if (count >= uint64_t{1} << 40) {
      const std::string text = shape_text(shape, rank);
      fail(KVASIR_ARGUMENT, "Cannot %s: shape %s has 2^40 elements or more", action, text.c_str());
    }
  }
  const DType& type = kDTypes[dtype];
  if (shape[rank - 1] % type.elements != 0) {
    fail(KVASIR_ARGUMENT, "Cannot %s: rows of %d are not whole blocks of %d (%s)", action, shape[rank - 1],
         type.elements, type.name);
  }
  return {static_cast<size_t>(count), static_cast<size_t>(count / type.elements * type.bytes)};
}

void set_shape(Tensor& t, int32_t dtype, int32_t rank, const int32_t* shape, int32_t lifetime) {
  t.dtype = dtype;
  t.rank = rank;
  t.lifetime = lifetime;
  for (int32_t i = 0; i < 4; i++) t.shape[i] = i < rank ? shape[i] : 1;
}

}  // namespace

Table::Table(TensorMemory& memory) : slots(1), where_(memory) {}

Table::~Table() {
  for (Slot& s : slots) {
    if (s.used && s.owner) free_data(s);
  }
}

// Memory that another library still holds outlives its tensor.
void Table::free_data(Slot& s) {
  if (s.memory != nullptr) s.memory->release(s.memory);
  else where_.free(s.tensor.data);
}

Slot& Table::find(uint32_t id, const char* what) {
  const uint32_t index = id & kIndexMask;
  if (id == 0) fail(KVASIR_ARGUMENT, "Cannot use %s: tensor id 0 is no tensor", what);
  if (index == 0 || index >= slots.size() || !slots[index].used || slots[index].generation != id >> kIndexBits) {
    fail(KVASIR_ARGUMENT, "Cannot use %s: tensor id %u is stale or foreign", what, id);
  }
  if (slots[index].stale) fail(KVASIR_ARGUMENT, "Cannot use %s: the tensor that view %u shows has ended", what, id);
  return slots[index];
}

uint32_t Table::take_slot() {
  uint32_t index;
  if (unused.size() >= kReuseDelay || (slots.size() > kIndexMask && !unused.empty())) {
    index = unused.front();
    unused.pop_front();
  } else {
    if (slots.size() > kIndexMask) fail(KVASIR_MEMORY, "Cannot create tensor: %u tensors are live already", kIndexMask);
    slots.emplace_back();
    index = static_cast<uint32_t>(slots.size() - 1);
  }
  return index;
}

void Table::give_slot(uint32_t index) {
  Slot& s = slots[index];
  const uint32_t generation = (s.generation + 1) & ((1u << (32 - kIndexBits)) - 1);
  s = Slot();
  s.generation = generation == 0 ? 1 : generation;
  unused.push_back(index);
}

uint32_t Table::create(int32_t dtype, int32_t rank, const int32_t* shape, int32_t lifetime) {
  if (lifetime < KVASIR_MODEL || lifetime > KVASIR_STEP) {
    fail(KVASIR_ARGUMENT, "Cannot create tensor: unknown lifetime %d", lifetime);
  }
  const Size size = checked_size("create tensor", dtype, rank, shape);
  const bool weight = lifetime == KVASIR_MODEL && rank == 2;
  if (!weight && !is_plain(dtype)) {
    fail(KVASIR_ARGUMENT, "Cannot create tensor: type %s is for model tensors of rank 2", dtype_name(dtype));
  }
  Tensor tensor;
  set_shape(tensor, dtype, rank, shape, lifetime);
  if (weight) where_.make_weight(tensor);
  const uint32_t index = take_slot();
  Slot& s = slots[index];
  if (!weight) {
    tensor.bytes = size.bytes;
    tensor.data = where_.allocate(size.bytes);
    if (tensor.data == nullptr) {
      unused.push_back(index);
      fail(KVASIR_MEMORY, "Cannot create tensor: out of memory for %zu bytes%s", size.bytes, where_.remedy(lifetime));
    }
  }
  s.tensor = std::move(tensor);
  s.used = s.owner = true;
  live[lifetime] += static_cast<double>(s.tensor.bytes);
  return s.generation << kIndexBits | index;
}

uint32_t Table::map(int32_t dtype, int32_t rank, const int32_t* shape, uint8_t* data, size_t bytes,
                                         std::shared_ptr<const void> holder) {
  const Size size = checked_size("map tensor", dtype, rank, shape);
  if (!is_plain(dtype)) fail(KVASIR_ARGUMENT, "Cannot map tensor: type %s is for weights", dtype_name(dtype));
  if (size.bytes != bytes) {
    fail(KVASIR_ARGUMENT, "Cannot map tensor: shape %s takes %zu bytes, the section has %zu",
         shape_text(shape, rank).c_str(), size.bytes, bytes);
  }
  kvasir_memory* memory = share_held(data, bytes, std::move(holder));
  const uint32_t index = take_slot();
  Slot& s = slots[index];
  s.tensor = Tensor();
  set_shape(s.tensor, dtype, rank, shape, KVASIR_SEQUENCE);
  s.tensor.data = data;
  s.memory = memory;
  s.used = s.owner = true;
  return s.generation << kIndexBits | index;
}

uint32_t Table::view(uint32_t parent, int32_t rank, const int32_t* shape, double offset) {
  const uint32_t from = parent & kIndexMask;
  const Tensor& whole = find(parent, "parent of view").tensor;
  if (whole.packed != nullptr) fail(KVASIR_ARGUMENT, "Cannot view tensor: weights are repacked");
  const Size size = checked_size("view tensor", whole.dtype, rank, shape);
  const size_t total = whole.elements();
  if (!(offset >= 0) || offset != std::floor(offset) || offset > static_cast<double>(total) ||
      size.elements > total - static_cast<size_t>(offset)) {
    const std::string text = shape_text(shape, rank);
    fail(KVASIR_ARGUMENT, "Cannot view tensor: shape %s at element %.17g exceeds the %zu elements of its parent",
         text.c_str(), offset, total);
  }
  const uint32_t index = take_slot();  // deque: references stay valid
  Slot& s = slots[index];
  Slot& p = slots[from];
  set_shape(s.tensor, whole.dtype, rank, shape, whole.lifetime);
  s.tensor.bytes = size.bytes;
  s.tensor.data = whole.data + static_cast<size_t>(offset) * kDTypes[whole.dtype].bytes;
  s.used = true;
  s.parent = from;
  s.next_view = p.first_view;
  if (p.first_view != 0) slots[p.first_view].previous_view = index;
  p.first_view = index;
  return s.generation << kIndexBits | index;
}

// Marks every view below `index` as stale. Lists are spliced, not recursed into: chains of views may be long.
void Table::end_views(uint32_t index) {
  uint32_t pending = slots[index].first_view;
  slots[index].first_view = 0;
  while (pending != 0) {
    Slot& v = slots[pending];
    uint32_t next = v.next_view;
    if (v.first_view != 0) {
      uint32_t tail = v.first_view;
      while (slots[tail].next_view != 0) tail = slots[tail].next_view;
      slots[tail].next_view = next;
      next = v.first_view;
    }
    v.stale = true;
    v.tensor.data = nullptr;
    v.parent = v.first_view = v.next_view = v.previous_view = 0;
    pending = next;
  }
}

void Table::destroy(uint32_t id) {
  const uint32_t index = id & kIndexMask;
  // A stale view may still be destroyed, so this is find() without its last check.
  if (index == 0 || index >= slots.size() || !slots[index].used || slots[index].generation != id >> kIndexBits) {
    fail(KVASIR_ARGUMENT, "Cannot destroy tensor: id %u is stale or foreign", id);
  }
  Slot& s = slots[index];
  end_views(index);
  if (s.parent != 0) {
    if (s.previous_view != 0) slots[s.previous_view].next_view = s.next_view;
    else slots[s.parent].first_view = s.next_view;
    if (s.next_view != 0) slots[s.next_view].previous_view = s.previous_view;
  }
  if (s.owner) {
    live[s.tensor.lifetime] -= static_cast<double>(s.tensor.bytes);
    free_data(s);
  }
  give_slot(index);
}

kvasir_memory* Table::memory(uint32_t id) {
  Slot& s = find(id, "tensor to share");
  if (s.tensor.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot share tensor: weights are repacked");
  if (!s.owner) fail(KVASIR_ARGUMENT, "Cannot share tensor: it is a view, share the tensor it shows");
  if (s.memory == nullptr) s.memory = share_held(s.tensor.data, s.tensor.bytes, where_.keeper(s.tensor.data));
  return s.memory;
}

}  // namespace kvasir
