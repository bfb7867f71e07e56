// Tensor maps of the host's twin: the numbers themselves, refused where the driver refuses them (cuTensorMapEncodeTiled).
#include "tensor_map.h"

#include <cstring>

#include "emulation_machine.h"

namespace kvasir {

bool make_tensor_map(TensorMap& map, const TensorRows& of) {
  emulation::BoxMap made{};
  made.mark = emulation::kBoxMapMark;
  made.base = static_cast<const uint8_t*>(of.rows);
  const int32_t sizes[] = {of.dim, of.count, of.heads}, box[] = {kBoxColumns, of.box, 1};
  for (int i = 0; i < 3; i++) {
    if (sizes[i] < 1 || box[i] < 1 || box[i] > 256) return false;
    made.sizes[i] = static_cast<uint32_t>(sizes[i]), made.box[i] = static_cast<uint32_t>(box[i]);
  }
  made.strides[0] = 2 * static_cast<uint64_t>(of.dim);
  made.strides[1] = made.strides[0] * static_cast<uint64_t>(of.capacity);
  for (const uint64_t stride : made.strides) {
    if (stride % 16 != 0 || stride >= uint64_t{1} << 40) return false;
  }
  if (reinterpret_cast<uintptr_t>(of.rows) % 16 != 0) return false;
  static_assert(sizeof made <= sizeof map, "has room");
  std::memset(&map, 0, sizeof map);
  std::memcpy(&map, &made, sizeof made);
  return true;
}

}  // namespace kvasir
