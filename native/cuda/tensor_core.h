// Tensor cores and asynchronous copies by name, each with a scalar twin for the emulation. Warp-wide functions want all 32 lanes.
#pragma once
#include "device.h"

namespace kvasir {

#ifdef KVASIR_EMULATION

struct MmaLane {
  float* d;            // [4], in and out
  const uint32_t* a;   // [4]
  const uint32_t* b;   // [2]
};
// Fragments as in PTX (mma.m16n8k16, 16-bit): lane = 4 group + t. a[0] is row group, columns 2t, 2t+1; a[1] row group + 8;
// a[2], a[3] the same 8 columns on. b[0] is rows 2t, 2t+1 of column group; b[1] 8 rows on. d[0], d[1] row group, columns 2t, 2t+1;
// d[2], d[3] row group + 8.
template <class ToFloat>
void mma_twin(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], ToFloat, emulation::Place at) {
  MmaLane mine = {d, a, b};
  emulation::warp(kFullWarp, &mine, [](void* const* args, uint32_t) {
    float a[16][16], b[16][8];
    const auto value = [](uint32_t pair, int i) { return ToFloat()(static_cast<uint16_t>(pair >> 16 * i)); };
    for (int lane = 0; lane < 32; lane++) {
      const MmaLane& l = *static_cast<const MmaLane*>(args[lane]);
      const int group = lane / 4, t = lane % 4;
      for (int i = 0; i < 2; i++) {
        for (int r = 0; r < 4; r++) a[group + r % 2 * 8][2 * t + r / 2 * 8 + i] = value(l.a[r], i);
        for (int r = 0; r < 2; r++) b[2 * t + r * 8 + i][group] = value(l.b[r], i);
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      const MmaLane& l = *static_cast<const MmaLane*>(args[lane]);
      for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = l.d[i];
        for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
        l.d[i] = sum;
      }
    }
  }, at);
}
struct HalfToFloat { float operator()(uint16_t x) const { return half_to_float(x); } };
struct BfloatToFloat { float operator()(uint16_t x) const { return bfloat_to_float(x); } };

inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KVASIR_HERE) {
  mma_twin(d, a, b, HalfToFloat(), at);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], KVASIR_HERE) {
  mma_twin(d, a, b, BfloatToFloat(), at);
}

struct MatrixLane {
  const uint8_t* row;  // 16 bytes: lane 8i + j gives row j of matrix i
  uint32_t* out;       // [4]
};
template <bool kTransposed>
void load_matrices_twin(uint32_t (&out)[4], const void* row, emulation::Place at) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulation::fault(at, "a row of a matrix that is not aligned to 16 bytes");
  MatrixLane mine = {static_cast<const uint8_t*>(row), out};
  emulation::warp(kFullWarp, &mine, [](void* const* args, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
      for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
          const int r = kTransposed ? lane % 4 * 2 + i : lane / 4, c = kTransposed ? lane / 4 : lane % 4 * 2 + i;
          std::memcpy(&pair[i], static_cast<const MatrixLane*>(args[8 * matrix + r])->row + 2 * c, 2);
        }
        static_cast<MatrixLane*>(args[lane])->out[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
      }
    }
  }, at);
}
// Four 8x8 matrices of 16-bit numbers from shared memory.
inline void load_matrices(uint32_t (&out)[4], const void* row, KVASIR_HERE) { load_matrices_twin<false>(out, row, at); }
inline void load_matrices_transposed(uint32_t (&out)[4], const void* row, KVASIR_HERE) {
  load_matrices_twin<true>(out, row, at);
}

// 16 bytes from global to shared memory, of which the last 16 - bytes become zero; there after copies_wait and a barrier.
inline void copy_async(void* to, const void* from, int bytes = 16, KVASIR_HERE) {
  emulation::copy_later(to, from, static_cast<size_t>(bytes), static_cast<size_t>(16 - bytes), at);
}
inline void copies_commit() { emulation::copies_commit(); }
template <int kLeft>
void copies_wait() { emulation::copies_wait(kLeft); }

#else  // CUDA

__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing multiplies 8 deep
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}
// From sm_80 on.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void copy_async(void* to, const void* from, int bytes = 16) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
#else
  uint4 v = make_uint4(0, 0, 0, 0);
  if (bytes == 16) {
    v = *static_cast<const uint4*>(from);
  } else {
    for (int i = 0; i < bytes; i++) reinterpret_cast<uint8_t*>(&v)[i] = static_cast<const uint8_t*>(from)[i];
  }
  *static_cast<uint4*>(to) = v;
#endif
}
__device__ __forceinline__ void copies_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kLeft>
__device__ __forceinline__ void copies_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

#endif

}  // namespace kvasir
