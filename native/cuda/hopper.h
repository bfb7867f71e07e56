// What compute capability 9.0 has beside mma.sync, by name: phases that threads wait for (mbarrier), copies of boxes by tensor maps (TMA),
// and products of a warpgroup of 128 threads whose operands lie in shared memory (wgmma). PTX ISA 9.7.9.27, 9.7.13 and 9.7.15; each has
// its twin in async_emulated.cc. Where code is not compiled for sm_90a, products, copies and waits trap: who launches asks DeviceFacts.
//
// An operand is rows of 64 halves (128 bytes) that begin at a multiple of 1024 bytes, pieces of 16 bytes swizzled; what is wider is
// further blocks of such rows. `piece_of` says where a piece goes.
#pragma once
#include "device.h"
#include "tensor_core.h"
#include "tensor_map.h"

namespace kvasir {

constexpr uint32_t kOperandRow = 128, kOperandAligned = 1024;  // bytes

// Bytes from an operand's block to a piece of 8 halves.
__device__ __forceinline__ uint32_t piece_of(uint32_t row, uint32_t piece) { return row * kOperandRow + ((piece ^ (row & 7)) << 4); }

#ifdef KVASIR_EMULATION

inline uint32_t operand_address(const void* p) { return emulation::shared_offset(p); }
inline void phase_make(uint64_t* phase, uint32_t count) { emulation::phase_make(phase, count); }
inline void phase_arrive(uint64_t* phase, KVASIR_HERE) { emulation::phase_arrive(phase, at); }
inline void phase_wait(uint64_t* phase, uint32_t parity, KVASIR_HERE) { emulation::phase_wait(phase, parity, at); }
inline void phase_arrive_expecting(uint64_t* phase, uint32_t bytes, KVASIR_HERE) { emulation::phase_arrive_expecting(phase, bytes, at); }
inline void copy_box(void* to, const TensorMap& map, int32_t element, int32_t row, int32_t head, uint64_t* phase, KVASIR_HERE) {
  emulation::copy_box_later(to, &map, element, row, head, phase, at);
}
inline void store_piece(void* to, uint4 piece) {
  std::memcpy(to, &piece, sizeof piece);
  emulation::note_write(to, sizeof piece);
}
inline void fence_operands() { emulation::fence_operands(); }
inline void warpgroup_barrier(uint32_t group, KVASIR_HERE) {
  emulation::group(group * 128, 128, nullptr, [](void* const*, uint32_t) {}, at);
}
template <int kRegisters> void take_registers() {}
template <int kRegisters> void give_registers() {}
inline void products_begin() { emulation::products_begin(); }
inline void products_commit() { emulation::products_commit(); }
template <int kLeft> void products_wait(KVASIR_HERE) { emulation::products_wait(kLeft, at); }
template <int kCount> void hold(float (&)[kCount]) {}
template <int kColumns>
void multiply_shared(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool adds, KVASIR_HERE) {
  emulation::multiply_later({d, kColumns, a, b, {}, false, false, adds}, at);
}
template <int kColumns>
void multiply_held(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, KVASIR_HERE) {
  emulation::multiply_later({d, kColumns, 0, b, {a[0], a[1], a[2], a[3]}, true, true, true}, at);
}

#else  // CUDA

__device__ __forceinline__ uint32_t operand_address(const void* p) { return shared_address(p); }
// By one thread; a barrier of the block before others use it.
__device__ __forceinline__ void phase_make(uint64_t* phase, uint32_t count) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(phase)), "r"(count) : "memory");
#endif
}
__device__ __forceinline__ void phase_arrive(uint64_t* phase) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(shared_address(phase)) : "memory");
#endif
}
// Until the phase of this parity is complete; one that has not begun counts as the one before it.
__device__ __forceinline__ void phase_wait(uint64_t* phase, uint32_t parity) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  uint32_t done = 0;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(phase)), "r"(parity) : "memory");
  } while (done == 0);
#else
  __trap();
#endif
}
// An arrival after which so many bytes of boxes have to land before the phase is complete.
__device__ __forceinline__ void phase_arrive_expecting(uint64_t* phase, uint32_t bytes) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(phase)), "r"(bytes) : "memory");
#endif
}
// By one thread: the box at these coordinates comes to a block of an operand, later, and counts its bytes on the phase. Needs no fence.
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, int32_t element, int32_t row, int32_t head, uint64_t* phase) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
               ::"r"(shared_address(to)), "l"(reinterpret_cast<uint64_t>(&map)), "r"(element), "r"(row), "r"(head), "r"(shared_address(phase))
               : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void store_piece(void* to, uint4 piece) { *static_cast<uint4*>(to) = piece; }
// What this thread wrote to operands, by stores or copies that it waited for, is there for products.
__device__ __forceinline__ void fence_operands() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void warpgroup_barrier(uint32_t group) {
  // Named in the instruction, so that the block needs three barriers, not all sixteen.
  if (group == 0) asm volatile("bar.sync 1, 128;" ::: "memory");
  else asm volatile("bar.sync 2, 128;" ::: "memory");
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
// Before the first product, and whenever registers of products were touched.
__device__ __forceinline__ void products_begin() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void products_commit() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kLeft>
__device__ __forceinline__ void products_wait() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
#endif
}
// Registers of products stay where they are: the compiler does not see that they change.
template <int kCount>
__device__ __forceinline__ void hold(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(x[i])::"memory");
}

#define KVASIR_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define KVASIR_D32 KVASIR_D8(0), KVASIR_D8(8), KVASIR_D8(16), KVASIR_D8(24)
#define KVASIR_D64 KVASIR_D32, KVASIR_D8(32), KVASIR_D8(40), KVASIR_D8(48), KVASIR_D8(56)
#define KVASIR_N32                                                                                              \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define KVASIR_N64                                                                                                                \
  KVASIR_N32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59," \
             "%60,%61,%62,%63"

// d (+)= A B: 64 rows of A by columns of B, whose rows B's operand holds; sums over 16. Lanes hold d as mma.sync's m16n8 tiles.
template <int kColumns>
__device__ __forceinline__ void multiply_shared(float (&d)[kColumns / 2], uint64_t a, uint64_t b, bool adds) {
  static_assert(kColumns == 64 || kColumns == 128, "as below");
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (kColumns == 64) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" KVASIR_N32
                 "}, %32, %33, p, 1, 1, 0, 0; }" : KVASIR_D32 : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
  } else {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" KVASIR_N64
                 "}, %64, %65, p, 1, 1, 0, 0; }" : KVASIR_D64 : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
  }
#else
  __trap();
#endif
}
// d += A B with A in registers, as mma.sync's m16k16 tile, and B's rows the 16 that are summed over.
template <int kColumns>
__device__ __forceinline__ void multiply_held(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128, "as below");
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (kColumns == 64) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" KVASIR_N32
                 "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1; }" : KVASIR_D32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" KVASIR_N64
                 "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1; }" : KVASIR_D64 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
#else
  __trap();
#endif
}

#endif

// Descriptions of operands by the address they are read from. `rows`: their rows are A's rows, or B's columns, and the sum goes along
// them. `columns`: the sum goes from row to row; `block` bytes on lie the next 64 columns.
__device__ __forceinline__ uint64_t describe_operand(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | uint64_t{1} << 62;
}
__device__ __forceinline__ uint64_t describe_rows(uint32_t address) { return describe_operand(address, 16, 8 * kOperandRow); }
__device__ __forceinline__ uint64_t describe_columns(uint32_t address, uint32_t block) {
  return describe_operand(address, block, 8 * kOperandRow);
}

}  // namespace kvasir
