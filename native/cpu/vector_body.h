// Bodies of VectorKernels for layers; see vector.h. Included once per instruction set.
#pragma once
#include "vec.h"
#include "vector.h"

namespace kvasir {
namespace {

void rms_norm(float* out, const float* x, const float* weight, size_t width, float epsilon) {
  // Four float sums in flight per lane; lanes are summed in double, so the error does not grow with the vector width.
  Floats a = {}, b = {}, c = {}, d = {};
  size_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    const Floats p = load(x + i), q = load(x + i + kLanes), r = load(x + i + 2 * kLanes), s = load(x + i + 3 * kLanes);
    a += p * p;
    b += q * q;
    c += r * r;
    d += s * s;
  }
  for (; i + kLanes <= width; i += kLanes) {
    const Floats p = load(x + i);
    a += p * p;
  }
  if (i < width) {
    const Floats p = load_some(x + i, width - i, 0);
    b += p * p;
  }
  double squares = 0;
  for (size_t lane = 0; lane < kLanes; lane++) {
    squares += (static_cast<double>(a[lane]) + b[lane]) + (static_cast<double>(c[lane]) + d[lane]);
  }
  const double mean = squares / static_cast<double>(width == 0 ? 1 : width) + static_cast<double>(epsilon);
  const float factor = static_cast<float>(1.0 / __builtin_sqrt(mean));
  for (i = 0; i + kLanes <= width; i += kLanes) store(out + i, load(x + i) * factor * load(weight + i));
  if (i < width) {
    store_some(out + i, width - i, load_some(x + i, width - i, 0) * factor * load_some(weight + i, width - i, 0));
  }
}

void add(float* out, const float* x, const float* y, size_t count) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i) + load(y + i));
  for (; i < count; i++) out[i] = x[i] + y[i];
}

// x / (1 + e^-x). Below -87 the exact value is smaller than any normal float; the clamp keeps -infinity out.
inline Floats silu_floats(Floats x) {
  const Floats c = x < -87.0f ? all(-87.0f) : x;
  return c / (exp_floats(-c) + 1.0f);
}

// x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for negative x.
inline Floats gelu_floats(Floats x) {
  const Floats c = x < -10.0f ? all(-10.0f) : x;  // e^-87 of it
  const Floats u2 = c * 1.5957691216f * (c * c * 0.044715f + 1.0f);
  return c / (exp_floats(-u2) + 1.0f);
}

template <class Activation>
inline void gated(float* out, const float* gate, const float* up, size_t count, Activation activation) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, activation(load(gate + i)) * load(up + i));
  if (i < count) {
    const size_t rest = count - i;
    store_some(out + i, rest, activation(load_some(gate + i, rest, 0)) * load_some(up + i, rest, 0));
  }
}

void silu(float* out, const float* gate, const float* up, size_t count) {
  gated(out, gate, up, count, [](Floats x) { return silu_floats(x); });
}

void gelu(float* out, const float* gate, const float* up, size_t count) {
  gated(out, gate, up, count, [](Floats x) { return gelu_floats(x); });
}

// Pairs whose factors are spread out at a time; every head then uses them from L1.
constexpr size_t kRopeChunk = 128;

void rope_halves(float* x, const float* table, size_t heads, size_t head_dim, size_t pairs) {
  float cosines[kRopeChunk], sines[kRopeChunk];
  for (size_t from = 0; from < pairs; from += kRopeChunk) {
    const size_t count = pairs - from < kRopeChunk ? pairs - from : kRopeChunk;
    for (size_t p = 0; p < count; p++) {
      cosines[p] = table[2 * (from + p)];
      sines[p] = table[2 * (from + p) + 1];
    }
    for (size_t h = 0; h < heads; h++) {
      float* low = x + h * head_dim + from;
      float* high = low + pairs;
      size_t p = 0;
      for (; p + kLanes <= count; p += kLanes) {
        const Floats a = load(low + p), b = load(high + p), c = load(cosines + p), s = load(sines + p);
        store(low + p, a * c - b * s);
        store(high + p, b * c + a * s);
      }
      for (; p < count; p++) {
        const float a = low[p], b = high[p];
        low[p] = a * cosines[p] - b * sines[p];
        high[p] = b * cosines[p] + a * sines[p];
      }
    }
  }
}

void rope_neighbours(float* x, const float* table, size_t heads, size_t head_dim, size_t pairs) {
  float cosines[2 * kRopeChunk], sines[2 * kRopeChunk];  // (c, c), (-s, s)
  for (size_t from = 0; from < pairs; from += kRopeChunk) {
    const size_t count = pairs - from < kRopeChunk ? pairs - from : kRopeChunk;
    for (size_t p = 0; p < count; p++) {
      cosines[2 * p] = cosines[2 * p + 1] = table[2 * (from + p)];
      sines[2 * p + 1] = table[2 * (from + p) + 1];
      sines[2 * p] = -sines[2 * p + 1];
    }
    for (size_t h = 0; h < heads; h++) {
      float* row = x + h * head_dim + 2 * from;
      size_t i = 0;
      for (; i + kLanes <= 2 * count; i += kLanes) {
        const Floats v = load(row + i);
        const Floats swapped = (Floats)((Pairs)v >> 32 | (Pairs)v << 32);
        store(row + i, v * load(cosines + i) + swapped * load(sines + i));
      }
      for (; i < 2 * count; i += 2) {
        const float a = row[i], b = row[i + 1];
        row[i] = a * cosines[i] + b * sines[i];
        row[i + 1] = b * cosines[i] + a * sines[i + 1];
      }
    }
  }
}

void rope(float* x, const float* table, size_t heads, size_t head_dim, size_t pairs, bool neighbours) {
  if (neighbours) rope_neighbours(x, table, heads, head_dim, pairs);
  else rope_halves(x, table, heads, head_dim, pairs);
}

}  // namespace
}  // namespace kvasir
