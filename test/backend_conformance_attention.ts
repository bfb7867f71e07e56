/**
 * Conformance: caches and exact attention.
 *
 * @module
 */
import type { KvLayer, KvSegment } from "../core/kv.ts";
import { type Bench, type Case, check, once, same } from "./backend_conformance.ts";
import * as twin from "./backend_conformance_twin.ts";

const { exact, half, Random, single } = twin;

export type KvType = "f32" | "f16" | "i8";
export const KV_TYPES: readonly KvType[] = ["f32", "f16", "i8"];

/** A cache of one layer: what its memory holds, and the numbers that stand for. */
export interface Cache {
  /** [kvHeads, length, headDim] */
  readonly data: Float32Array<ArrayBuffer> | Float16Array<ArrayBuffer> | Int8Array<ArrayBuffer>;
  /** [kvHeads, length] */
  readonly scales: Float32Array<ArrayBuffer>;
  readonly values: Float32Array;
}

export function randomCache(seed: number, type: KvType, kvHeads: number, length: number, headDim: number): Cache {
  const random = new Random(seed);
  const floats = random.floats(kvHeads * length * headDim);
  const scales = Float32Array.from({ length: kvHeads * length }, () => 0.01 * (0.5 + random.uniform()));
  if (type === "f32") return { data: floats, scales, values: floats };
  if (type === "f16") {
    const data = new Float16Array(floats);
    return { data, scales, values: new Float32Array(data) };
  }
  const data = Int8Array.from(floats, (x) => Math.max(-127, Math.min(127, Math.round(x * 60))));
  const values = Float32Array.from(data, (q, i) => q * (scales[Math.floor(i / headDim)] as number));
  return { data, scales, values };
}

/** Rows `[from, to)` of every head, in a segment with `spare` unused rows. */
export function segmentOf(
  at: Bench,
  type: KvType,
  keys: Cache,
  values: Cache,
  kvHeads: number,
  length: number,
  headDim: number,
  from: number,
  to: number,
  spare: number,
  start: number,
): KvSegment {
  const capacity = to - from + spare;
  const cut = (cache: Cache) => {
    const rows = at.tensor([kvHeads, capacity, headDim], type, undefined, "sequence");
    const scales = type === "i8" ? at.tensor([kvHeads, capacity], "f32", undefined, "sequence") : undefined;
    const factors = new Float32Array(kvHeads * capacity);
    for (let h = 0; h < kvHeads; h++) {
      const part = cache.data.slice((h * length + from) * headDim, (h * length + to) * headDim);
      at.backend.write(rows, part, h * capacity);
      factors.set(cache.scales.subarray(h * length + from, h * length + to), h * capacity);
    }
    if (scales !== undefined) at.backend.write(scales, factors);
    return { rows, scales };
  };
  const k = cut(keys);
  const v = cut(values);
  const scales = k.scales === undefined || v.scales === undefined ? {} : { keyScales: k.scales, valueScales: v.scales };
  return { start, count: to - from, sealed: false, keys: k.rows, values: v.rows, ...scales };
}

interface Problem {
  readonly n: number;
  readonly length: number;
  readonly kvHeads?: number;
  readonly group?: number;
  readonly headDim?: number;
  readonly window?: number;
  readonly softcap?: number;
  /** Where segments end, besides at `length`. */
  readonly cuts?: readonly number[];
  /** Position of the first row. */
  readonly start?: number;
  /** Scale of queries: 1 gives soft, 8 sharp distributions. */
  readonly sharp?: number;
}

function attend(at: Bench, type: KvType, p: Problem): void {
  const { n, length, kvHeads = 2, group = 3, headDim = 64, window = 0, softcap = 0, cuts = [], start = 0, sharp = 2 } =
    p;
  const heads = kvHeads * group;
  const key = `attend ${type} ${JSON.stringify(p)}`;
  const { problem, keys, values, truth } = once(key, () => {
    const keys = randomCache(1, type, kvHeads, length, headDim);
    const values = randomCache(2, type, kvHeads, length, headDim);
    const q = new Random(3).floats(n * heads * headDim, sharp);
    const scale = 1 / Math.sqrt(headDim);
    const problem = {
      n,
      length,
      heads,
      kvHeads,
      headDim,
      scale,
      softcap,
      window,
      q,
      keys: keys.values,
      values: values.values,
    };
    return { problem, keys, values, truth: twin.attend(problem, exact, exact) };
  });
  const operand = type !== "f32" && at.subject.attention === "f16" ? half : exact;
  const naive = once(`${key} ${operand === half}`, () => twin.attend(problem, single, operand));
  // A weight is as exact as its logit, which f32 holds to 2^-24 of its size; operands of 16 bits are rounded once at least.
  const unit = operand === half ? 2 ** -12 : 2 ** -24 * (1 + 3 * sharp);
  const bounds = [0, ...cuts, length];
  const segments = bounds.slice(1).map((to, i) => {
    const from = bounds[i] as number;
    return segmentOf(at, type, keys, values, kvHeads, length, headDim, from, to, i % 2 === 0 ? 3 : 0, start + from);
  });
  const shape = {
    heads,
    kvHeads,
    headDim,
    scale: problem.scale,
    ...(window > 0 ? { slidingWindow: window } : {}),
    ...(softcap > 0 ? { softcap } : {}),
  };
  const kv: KvLayer = { shape, length, segments };
  for (const offset of n < 10 ? [0, 1] : [0]) {
    const q = offset === 0
      ? at.floats([n, heads, headDim], problem.q)
      : at.misaligned([n, heads, headDim], problem.q, 1);
    const out = at.floats([n, heads, headDim]);
    at.backend.kernels.attendCausal(out, q, kv);
    at.near(out, truth, naive, JSON.stringify({ ...p, offset }), unit);
  }
}

function appendCase(type: KvType): Case {
  return {
    name: `append: ${type}`,
    run(at) {
      for (
        const [n, kvHeads, headDim, row, capacity] of [[1, 1, 4, 0, 1], [3, 2, 33, 5, 9], [97, 3, 64, 2, 129], [
          0,
          2,
          8,
          4,
          4,
        ]] as const
      ) {
        const random = new Random(n + headDim);
        const cache = randomCache(1, type, kvHeads, capacity, headDim);
        const before = segmentOf(at, type, cache, cache, kvHeads, capacity, headDim, 0, capacity, 0, 0);
        const [k, v] = [random.floats(n * kvHeads * headDim), random.floats(n * kvHeads * headDim, 40)];
        if (n > 1) k.fill(0, 0, kvHeads * headDim);
        const shape = [n, kvHeads, headDim];
        at.backend.kernels.append(before, row, at.floats(shape, k), at.misaligned(shape, v, 1));
        for (
          const [tensor, scales, x] of [[before.keys, before.keyScales, k], [
            before.values,
            before.valueScales,
            v,
          ]] as const
        ) {
          const got = at.read(tensor);
          const factors = scales === undefined ? undefined : at.read(scales);
          for (let h = 0; h < kvHeads; h++) {
            for (let r = 0; r < capacity; r++) {
              const rowAt = h * capacity + r;
              const stored = got.slice(rowAt * headDim, (rowAt + 1) * headDim);
              if (r < row || r >= row + n) {
                same(
                  stored,
                  Float32Array.from(cache.data.slice(rowAt * headDim, (rowAt + 1) * headDim)),
                  "rows around",
                );
                continue;
              }
              const from = ((r - row) * kvHeads + h) * headDim;
              const given = x.slice(from, from + headDim);
              if (factors === undefined) {
                same(stored, type === "f16" ? given.map(half) : given, "rows");
                continue;
              }
              const factor = factors[rowAt] as number;
              const largest = given.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
              check(Math.abs(factor - largest / 127) <= 1e-6 * largest, `factor ${factor} of a row up to ${largest}`);
              for (let j = 0; j < headDim; j++) {
                const error = Math.abs((stored[j] as number) * factor - (given[j] as number));
                check(error <= 0.5001 * factor, `element ${j} is off by ${error}, a step is ${factor}`);
              }
            }
          }
        }
      }
    },
  };
}

export const attentionCases: readonly Case[] = [
  ...KV_TYPES.map(appendCase),
  {
    name: "append: what does not fit is refused",
    run(at) {
      const cache = randomCache(1, "f16", 2, 4, 8);
      const segment = segmentOf(at, "f16", cache, cache, 2, 4, 8, 0, 4, 0, 0);
      const k = at.floats([2, 2, 8], new Float32Array(32));
      for (const row of [3, 4, -1, NaN, 0.5, 2 ** 31]) {
        at.throws(() => at.backend.kernels.append(segment, row, k, k), "");
      }
      at.throws(() => at.backend.kernels.append(segment, 0, at.floats([2, 1, 8]), at.floats([2, 1, 8])), "");
      at.throws(() => at.backend.kernels.append(segment, 0, k, at.floats([1, 2, 8])), "");
      at.throws(() => at.backend.kernels.append({ ...segment, sealed: true }, 0, k, k), "sealed");
    },
  },
  ...KV_TYPES.flatMap((type): Case[] => [
    {
      name: `attendCausal: ${type}, head groups 1, 3, 4, 8`,
      run(at) {
        for (const group of [1, 3, 4, 8]) {
          attend(at, type, { n: 1, length: 129, group });
          attend(at, type, { n: 3, length: 97, group, kvHeads: 1 });
        }
      },
    },
    {
      name: `attendCausal: ${type}, odd lengths`,
      run(at) {
        for (
          const [n, length] of [[0, 5], [1, 1], [1, 3], [3, 3], [1, 1000], [97, 97], [129, 129], [33, 200]] as const
        ) {
          attend(at, type, { n, length, kvHeads: 1, group: 2 });
        }
      },
    },
    {
      name: `attendCausal: ${type}, head dimensions`,
      run(at) {
        for (const headDim of [1, 8, 33, 80, 96, 128, 256]) {
          attend(at, type, { n: 1, length: 97, headDim, kvHeads: 1 });
          attend(at, type, { n: 17, length: 65, headDim, kvHeads: 1, group: 2 });
        }
      },
    },
    {
      name: `attendCausal: ${type}, sliding window and soft cap`,
      run(at) {
        for (const window of [1, 3, 97, 500]) {
          attend(at, type, { n: 1, length: 129, window, group: 2 });
          attend(at, type, { n: 65, length: 129, window, kvHeads: 1, group: 2 });
        }
        attend(at, type, { n: 3, length: 129, softcap: 5, sharp: 8 });
        attend(at, type, { n: 40, length: 40, softcap: 5, window: 7, kvHeads: 1, sharp: 8 });
      },
    },
    {
      name: `attendCausal: ${type}, segments`,
      run(at) {
        for (const [n, window] of [[1, 0], [7, 0], [60, 0], [60, 9], [1, 9]] as const) {
          attend(at, type, { n, length: 97, cuts: [1, 33, 64, 96], kvHeads: 1, group: 3, window });
        }
        attend(at, type, { n: 3, length: 40, cuts: [16], start: 1000, window: 20, kvHeads: 1 });
        attend(at, type, { n: 1, length: 40, start: 100_000, kvHeads: 1 });
      },
    },
    {
      name: `attendCausal: ${type}, sharp distributions`,
      run(at) {
        attend(at, type, { n: 1, length: 500, sharp: 30, kvHeads: 1 });
        attend(at, type, { n: 50, length: 100, sharp: 30, kvHeads: 1 });
      },
    },
  ]),
  {
    name: "attendCausal: what does not fit is refused",
    run(at) {
      const cache = randomCache(1, "f16", 2, 4, 8);
      const segment = segmentOf(at, "f16", cache, cache, 2, 4, 8, 0, 4, 0, 0);
      const shape = { heads: 4, kvHeads: 2, headDim: 8, scale: 1 };
      const { kernels } = at.backend;
      const q = (n: number, heads = 4, headDim = 8) =>
        at.floats([n, heads, headDim], new Float32Array(n * heads * headDim));
      const run = (kv: KvLayer, x = q(1)) => kernels.attendCausal(at.floats(x.shape), x, kv);
      run({ shape, length: 4, segments: [segment] });
      at.throws(() => run({ shape, length: 5, segments: [segment] }), "");
      at.throws(() => run({ shape, length: 4, segments: [segment] }, q(5)), "");
      at.throws(() => run({ shape, length: 4, segments: [segment] }, q(1, 3)), "");
      at.throws(() => run({ shape, length: 4, segments: [segment] }, q(1, 4, 9)), "");
      at.throws(() => run({ shape, length: 5, segments: [{ ...segment, count: 5 }] }), "");
      at.throws(() => kernels.attendCausal(at.floats([1, 4, 9]), q(1), { shape, length: 4, segments: [segment] }), "");
      at.throws(() => run({ shape, length: 0, segments: [] }), "");
    },
  },
];
