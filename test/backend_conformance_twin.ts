/**
 * What kernels should compute, written again, plainly, with the rounding as a parameter: without any it is the truth in
 * float64; with `Math.fround` after every operation it is the naive run that sets the tolerance.
 *
 * @module
 */
import type { BlockType, DType } from "../core/tensor.ts";
import { byteLength, DTYPES } from "../core/dtype.ts";
import { DEQUANTIZE } from "../backends/dequant.ts";
import { toBfloat } from "../backends/half.ts";

/** Rounding after every operation. */
export type Rounding = (x: number) => number;
export const exact: Rounding = (x) => x;
export const single: Rounding = Math.fround;
export const half: Rounding = (x) => Math.f16round(x);

/** A reproducible stream of numbers: mulberry32, and sums of four uniforms for a bell. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  int(below: number): number {
    return Math.floor(this.uniform() * below);
  }

  /** About normal, mean 0, deviation 1. */
  bell(): number {
    return (this.uniform() + this.uniform() + this.uniform() + this.uniform() - 2) * 1.732;
  }

  floats(count: number, scale = 1): Float32Array<ArrayBuffer> {
    return Float32Array.from({ length: count }, () => this.bell() * scale);
  }
}

/** Where each format keeps its halves, and of what size they make weights near 0.05. */
const HALVES: Readonly<Record<BlockType, { readonly at: readonly number[]; readonly scale: number }>> = {
  q4_0: { at: [0], scale: 0.01 },
  q4_1: { at: [0, 2], scale: 0.01 },
  q5_0: { at: [0], scale: 0.005 },
  q5_1: { at: [0, 2], scale: 0.005 },
  q8_0: { at: [0], scale: 0.001 },
  q3_k: { at: [108], scale: 0.001 },
  q4_k: { at: [0, 2], scale: 0.0002 },
  q5_k: { at: [0, 2], scale: 0.0001 },
  q6_k: { at: [208], scale: 0.0001 },
  iq4_nl: { at: [0], scale: 0.001 },
};

/** A random weight: its file bytes, and the numbers they stand for. */
export function randomWeight(
  random: Random,
  m: number,
  k: number,
  dtype: DType,
): { bytes: Uint8Array<ArrayBuffer>; values: Float32Array } {
  const values = new Float32Array(m * k);
  if (dtype === "f32" || dtype === "f16" || dtype === "bf16") {
    const floats = random.floats(m * k, 0.05);
    if (dtype === "f32") return { bytes: new Uint8Array(floats.buffer), values: floats };
    if (dtype === "f16") {
      const halves = new Float16Array(floats);
      return { bytes: new Uint8Array(halves.buffer), values: new Float32Array(halves) };
    }
    const bits = Uint16Array.from(floats, toBfloat);
    for (let i = 0; i < bits.length; i++) {
      values[i] = new Float32Array(Uint32Array.of((bits[i] as number) << 16).buffer)[0] as number;
    }
    return { bytes: new Uint8Array(bits.buffer), values };
  }
  const bytes = new Uint8Array(byteLength([m, k], dtype));
  const { at, scale } = HALVES[dtype as BlockType];
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.int(256);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < bytes.length; block += DTYPES[dtype].bytes) {
    for (const o of at) view.setFloat16(block + o, scale * random.bell(), true);
  }
  DEQUANTIZE[dtype as BlockType](values, bytes, 0, values.length);
  return { bytes, values };
}

/** x as llama.cpp's 8-bit activations: 32 values share a half-precision scale. */
function eightBit(x: Float32Array): Float32Array {
  const out = new Float32Array(x.length);
  for (let b = 0; b < x.length; b += 32) {
    const block = x.subarray(b, b + 32);
    const d = Math.f16round(block.reduce((a, v) => Math.max(a, Math.abs(v)), 0) / 127);
    for (let i = 0; i < block.length; i++) {
      out[b + i] = d === 0 ? 0 : Math.max(-127, Math.min(127, Math.round((block[i] as number) / d))) * d;
    }
  }
  return out;
}

/** How block-quantized products are computed: float, or from operands of 16 or 8 bits. */
export type Arithmetic = "f32" | "f16" | "i8";

/** x [n, k] · w [m, k]ᵀ. Operands are rounded to the arithmetic's type first, sums by `r`. */
export function matmul(
  x: Float32Array,
  w: Float32Array,
  n: number,
  m: number,
  k: number,
  r: Rounding,
  arithmetic: Arithmetic = "f32",
): Float64Array {
  const a = arithmetic === "f16" ? x.map(half) : arithmetic === "i8" ? eightBit(x) : x;
  const b = arithmetic === "f16" ? w.map(half) : w;
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      if (r === exact) { for (let l = 0; l < k; l++) sum += (a[i * k + l] as number) * (b[j * k + l] as number); }
      else {
        for (let l = 0; l < k; l++) {
          sum = Math.fround(sum + Math.fround((a[i * k + l] as number) * (b[j * k + l] as number)));
        }
      }
      out[i * m + j] = sum;
    }
  }
  return out;
}

/** L2 error that a naive run of {@link matmul} has on average: it may be lucky, few outputs above all. */
export function matmulNoise(
  x: Float32Array,
  w: Float32Array,
  n: number,
  m: number,
  k: number,
  arithmetic: Arithmetic,
): number {
  // Sums in f32: k roundings of partial sums. Operands in f16: two roundings of 2^-12, 0.42 of that in the mean.
  const relative = (0.3 * 2 ** -24) ** 2 * k + (arithmetic === "f16" ? 2 * (0.42 * 2 ** -12) ** 2 : 0);
  let variance = 0;
  for (let i = 0; i < n; i++) {
    for (let b = 0; b < k; b += 32) {
      const end = Math.min(k, b + 32);
      let largest = 0;
      for (let l = b; l < end; l++) largest = Math.max(largest, Math.abs(x[i * k + l] as number));
      const step = arithmetic === "i8" ? (largest / 127) ** 2 / 12 : 0;
      for (let l = b; l < end; l++) {
        const size = (x[i * k + l] as number) ** 2 * relative + step;
        for (let j = 0; j < m; j++) variance += size * (w[j * k + l] as number) ** 2;
      }
    }
  }
  return Math.sqrt(variance);
}

/** Rows of `width`, normalized. */
export function rmsNorm(x: Float32Array, w: Float32Array, epsilon: number, r: Rounding): Float64Array {
  const width = w.length;
  const out = new Float64Array(x.length);
  for (let o = 0; o < x.length; o += width) {
    let sum = 0;
    for (let j = 0; j < width; j++) sum = r(sum + r((x[o + j] as number) * (x[o + j] as number)));
    const rms = r(Math.sqrt(r(r(sum / width) + epsilon)));
    for (let j = 0; j < width; j++) out[o + j] = r(r((x[o + j] as number) / rms) * (w[j] as number));
  }
  return out;
}

/** x + y, y repeated over rows. */
export function add(x: Float32Array, y: Float32Array, r: Rounding): Float64Array {
  return Float64Array.from(x, (v, i) => r(v + (y[i % y.length] as number)));
}

/** activation(gate) · up */
export function glu(gate: Float32Array, up: Float32Array, activation: "silu" | "gelu", r: Rounding): Float64Array {
  return Float64Array.from(gate, (g, i) => {
    const silu = () => r(g / r(1 + r(Math.exp(-g))));
    const gelu = () => {
      const inner = r(0.7978845608028654 * r(g + r(0.044715 * r(g * r(g * g)))));
      return r(r(0.5 * g) * r(1 + r(Math.tanh(inner))));
    };
    return r((activation === "silu" ? silu() : gelu()) * (up[i] as number));
  });
}

/** cos and sin of each position and frequency: [n, pairs, 2]. */
export function ropeTable(
  positions: Int32Array,
  frequencies: Float64Array,
  magnitude: number,
  r: Rounding,
): Float64Array {
  const out: number[] = [];
  for (const p of positions) {
    for (const f of frequencies) out.push(r(magnitude * r(Math.cos(p * f))), r(magnitude * r(Math.sin(p * f))));
  }
  return Float64Array.from(out);
}

/** x [n, heads, headDim] rotated by table [n, pairs, 2]. */
export function rope(
  x: Float32Array,
  table: Float32Array,
  n: number,
  headDim: number,
  pairing: "halves" | "neighbours",
  r: Rounding,
): Float64Array {
  const out = Float64Array.from(x);
  const pairs = table.length / n / 2;
  const heads = x.length / n / headDim;
  for (let i = 0; i < n; i++) {
    for (let h = 0; h < heads; h++) {
      for (let p = 0; p < pairs; p++) {
        const base = (i * heads + h) * headDim;
        const [a, b] = pairing === "halves" ? [base + p, base + p + pairs] : [base + 2 * p, base + 2 * p + 1];
        const cos = table[(i * pairs + p) * 2] as number;
        const sin = table[(i * pairs + p) * 2 + 1] as number;
        out[a] = r(r((x[a] as number) * cos) - r((x[b] as number) * sin));
        out[b] = r(r((x[b] as number) * cos) + r((x[a] as number) * sin));
      }
    }
  }
  return out;
}

/** One attention problem; keys and values [kvHeads, length, headDim] as the cache holds them. */
export interface Attention {
  readonly n: number;
  readonly length: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly scale: number;
  readonly softcap: number;
  readonly window: number;
  readonly q: Float32Array;
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** Operands, and the weights of the softmax, are rounded by `operand`; everything else by `r`. */
export function attend(a: Attention, r: Rounding, operand: Rounding): Float64Array {
  const out = new Float64Array(a.q.length);
  const q = a.q.map(operand);
  const keys = a.keys.map(operand);
  const values = a.values.map(operand);
  for (let i = 0; i < a.n; i++) {
    const position = a.length - a.n + i;
    for (let h = 0; h < a.heads; h++) {
      const kv = Math.floor(h / (a.heads / a.kvHeads));
      const at = (i * a.heads + h) * a.headDim;
      const first = a.window > 0 ? Math.max(0, position - a.window + 1) : 0;
      const logits: number[] = [];
      for (let t = first; t <= position; t++) {
        const row = (kv * a.length + t) * a.headDim;
        let sum = 0;
        for (let j = 0; j < a.headDim; j++) sum = r(sum + r((q[at + j] as number) * (keys[row + j] as number)));
        const logit = r(a.scale * sum);
        logits.push(a.softcap > 0 ? r(a.softcap * r(Math.tanh(r(logit / a.softcap)))) : logit);
      }
      const max = logits.reduce((x, y) => Math.max(x, y), -Infinity);
      const weights = logits.map((l) => r(Math.exp(r(l - max))));
      const total = weights.reduce((x, y) => r(x + y), 0);
      for (let j = 0; j < a.headDim; j++) {
        let sum = 0;
        for (let t = 0; t < weights.length; t++) {
          const value = values[(kv * a.length + first + t) * a.headDim + j] as number;
          sum = r(sum + r(operand(weights[t] as number) * value));
        }
        out[at + j] = r(sum / total);
      }
    }
  }
  return out;
}

/** Log-softmax of a row. */
export function logSoftmax(row: Float32Array, r: Rounding): Float64Array {
  const max = row.reduce((x, y) => Math.max(x, y), -Infinity);
  let sum = 0;
  for (const x of row) sum = r(sum + r(Math.exp(r(x - max))));
  return Float64Array.from(row, (x) => r(r(x - max) - r(Math.log(sum))));
}
