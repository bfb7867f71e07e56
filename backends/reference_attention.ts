/**
 * Key/value caches and exact attention of the reference backend.
 *
 * @module
 */
import type { PromptSink } from "../attention/policy.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import { HALF } from "./half.ts";
import { SinkNotes } from "./reference_sink.ts";
import { dot, expect, floats, type Resolve } from "./reference_layers.ts";

/** See `Kernels.append`. */
export function append(live: Resolve, segment: KvSegment, row: number, k: Tensor, v: Tensor): void {
  if (segment.sealed) throw new RangeError("Cannot append to cache: the segment is sealed");
  const [n, kvHeads, headDim] = k.shape as readonly [number, number, number];
  expect(v, k.shape, "append v");
  const capacity = segment.keys.shape[1] as number;
  expect(segment.keys, [kvHeads, capacity, headDim], "append keys");
  expect(segment.values, [kvHeads, capacity, headDim], "append values");
  if (!Number.isInteger(row) || row < 0 || row + n > capacity) {
    throw new RangeError(`Cannot append to cache: rows ${row} to ${row + n}, the segment has room for ${capacity}`);
  }
  store(live, segment.keys, segment.keyScales, row, floats(live, k, "append k"), n);
  store(live, segment.values, segment.valueScales, row, floats(live, v, "append v"), n);
}

/** x [n, kvHeads, headDim] to rows `row …` of `to` [kvHeads, capacity, headDim]. */
function store(
  live: Resolve,
  to: Tensor,
  scales: Tensor | undefined,
  row: number,
  x: Float32Array,
  n: number,
): void {
  const [kvHeads, capacity, headDim] = to.shape as readonly [number, number, number];
  const { data, dtype } = live(to, "cache rows");
  const factors = dtype === "i8" ? rowFactors(live, to, scales) : undefined;
  const halves = dtype === "f16" ? new Float16Array(data.buffer, data.byteOffset, data.length) : undefined;
  for (let i = 0; i < n; i++) {
    for (let h = 0; h < kvHeads; h++) {
      const from = x.subarray((i * kvHeads + h) * headDim, (i * kvHeads + h + 1) * headDim);
      const at = (h * capacity + row + i) * headDim;
      if (halves !== undefined) halves.set(from, at);
      else if (factors !== undefined) factors[h * capacity + row + i] = quantize(data as Int8Array, at, from);
      else if (dtype === "f32") (data as Float32Array).set(from, at);
      else throw new RangeError(`Cannot use cache rows: type ${dtype}, expected f32, f16 or i8`);
    }
  }
}

/** The row's largest magnitude becomes ±127; returns the factor that undoes it. */
function quantize(to: Int8Array, at: number, x: Float32Array): number {
  let largest = 0;
  for (let j = 0; j < x.length; j++) largest = Math.max(largest, Math.abs(x[j] as number));
  const factor = Math.fround(largest / 127);
  for (let j = 0; j < x.length; j++) to[at + j] = factor === 0 ? 0 : Math.round((x[j] as number) / factor);
  return factor;
}

function rowFactors(live: Resolve, rows: Tensor, scales: Tensor | undefined): Float32Array {
  if (scales === undefined) throw new RangeError("Cannot use cache rows: i8 needs a scale a row, none is given");
  expect(scales, [rows.shape[0] as number, rows.shape[1] as number], "cache scales");
  return floats(live, scales, "cache scales");
}

/** See `Kernels.attendCausal`. Keys and values of one head at a time are widened once and serve its whole group. */
export function attendCausal(
  live: Resolve,
  out: Tensor,
  q: Tensor,
  kv: KvLayer,
  sink?: PromptSink,
  lse?: Tensor,
): void {
  const [n, heads, headDim] = q.shape as readonly [number, number, number];
  const { kvHeads, scale, softcap, slidingWindow } = kv.shape;
  expect(out, q.shape, "attendCausal out");
  if (kvHeads < 1 || heads % kvHeads !== 0) {
    throw new RangeError(`Cannot attend: ${heads} query heads are no multiple of ${kvHeads} key heads`);
  }
  const length = kv.segments.reduce((sum, s) => sum + s.count, 0);
  if (length !== kv.length || n > length) {
    throw new RangeError(`Cannot attend: ${n} queries, length ${kv.length}, segments of ${length}`);
  }
  if (n === 0) return;
  const queries = floats(live, q, "attendCausal q");
  const to = floats(live, out, "attendCausal out");
  if (lse !== undefined) expect(lse, [n, heads], "attendCausal lse");
  const sums = lse === undefined ? undefined : floats(live, lse, "attendCausal lse");
  const start = kv.segments[0]?.start ?? 0;
  const notes = sink === undefined
    ? undefined
    : new SinkNotes(live, sink, start, start + length - n, n, heads, start + length);
  const group = heads / kvHeads;
  const reach = slidingWindow ?? length;
  const first = Math.max(0, length - n - reach + 1);
  const keys = new Float32Array((length - first) * headDim);
  const values = new Float32Array((length - first) * headDim);
  const weights = new Float64Array(length - first);
  const sum = new Float64Array(headDim);
  for (let h = 0; h < kvHeads; h++) {
    gather(live, keys, kv, first, h, headDim, "keys");
    gather(live, values, kv, first, h, headDim, "values");
    for (let i = 0; i < n; i++) {
      const end = length - n + i + 1 - first;
      const begin = Math.max(0, end - reach);
      for (let g = 0; g < group; g++) {
        const at = (i * heads + h * group + g) * headDim;
        let best = -Infinity;
        for (let t = begin; t < end; t++) {
          let logit = scale * dot(queries, at, keys, t * headDim, headDim);
          if (softcap !== undefined) logit = softcap * Math.tanh(logit / softcap);
          weights[t] = logit;
          if (logit > best) best = logit;
        }
        let total = 0;
        sum.fill(0);
        for (let t = begin; t < end; t++) {
          const w = Math.exp((weights[t] as number) - best);
          total += w;
          const o = t * headDim;
          for (let j = 0; j < headDim; j++) sum[j] = (sum[j] as number) + w * (values[o + j] as number);
        }
        for (let j = 0; j < headDim; j++) to[at + j] = (sum[j] as number) / total;
        if (sums !== undefined) sums[at / headDim] = best + Math.log(total);
        notes?.note(i, h * group + g, weights, begin, end, first, best + Math.log(total));
      }
    }
  }
}

/** Rows `first …` of one head, of all segments, widened: [length − first, headDim]. */
export function gather(
  live: Resolve,
  to: Float32Array,
  kv: KvLayer,
  first: number,
  head: number,
  headDim: number,
  which: "keys" | "values",
): void {
  let start = 0;
  for (const segment of kv.segments) {
    const rows = segment[which];
    const capacity = rows.shape[1] as number;
    expect(rows, [kv.shape.kvHeads, capacity, headDim], `cache ${which}`);
    if (segment.count > capacity) {
      throw new RangeError(`Cannot attend: a segment of ${segment.count} rows has room for ${capacity}`);
    }
    const { data, dtype } = live(rows, `cache ${which}`);
    const factors = dtype === "i8"
      ? rowFactors(live, rows, which === "keys" ? segment.keyScales : segment.valueScales)
      : undefined;
    for (let row = Math.max(0, first - start); row < segment.count; row++) {
      const from = (head * capacity + row) * headDim;
      const at = (start + row - first) * headDim;
      if (dtype === "f16") {
        for (let j = 0; j < headDim; j++) to[at + j] = HALF[data[from + j] as number] as number;
      } else if (factors !== undefined) {
        const factor = factors[head * capacity + row] as number;
        for (let j = 0; j < headDim; j++) to[at + j] = factor * (data[from + j] as number);
      } else if (dtype === "f32") {
        for (let j = 0; j < headDim; j++) to[at + j] = data[from + j] as number;
      } else throw new RangeError(`Cannot use cache ${which}: type ${dtype}, expected f32, f16 or i8`);
    }
    start += segment.count;
  }
}
