// Tensor maps by the driver. Its function is asked for at run time: the library is linked with no driver and loads without one.
#include "tensor_map.h"

#include <cuda_runtime_api.h>
#include <cudaTypedefs.h>

#include <cstring>

namespace kvasir {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
  if (e != cudaSuccess) cudaGetLastError();
  if (e != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
}

}  // namespace

bool make_tensor_map(TensorMap& map, const TensorRows& of) {
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap), "as the driver has it");
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
  if (encode == nullptr) return false;
  const auto dim = static_cast<cuuint64_t>(of.dim);
  const cuuint64_t sizes[] = {dim, static_cast<cuuint64_t>(of.count), static_cast<cuuint64_t>(of.heads)};
  const cuuint64_t strides[] = {2 * dim, 2 * dim * static_cast<cuuint64_t>(of.capacity)};  // bytes from row to row, and head to head
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(of.box), 1}, steps[] = {1, 1, 1};
  CUtensorMap made;
  const CUresult result = encode(&made, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, const_cast<void*>(of.rows), sizes, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) return false;
  std::memcpy(&map, &made, sizeof map);
  return true;
}

}  // namespace kvasir
