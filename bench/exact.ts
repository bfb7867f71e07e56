/**
 * Exact scores and attention of recorded queries, in float64: what indexes are measured against.
 *
 * @module
 */
import { HALF } from "../backends/half.ts";
import type { RecordedLayer } from "./recorded.ts";

/** Halves as floats. */
export function widen(halves: Float16Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const bits = new Uint16Array(halves.buffer, halves.byteOffset, halves.length);
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = HALF[bits[i] as number] as number;
  return out;
}

/** Scaled (and soft-capped) scores of the first `seen` keys for row `query` of `queries` [rows, heads, headDim]: [seen]. */
export function scoreAll(
  layer: RecordedLayer,
  tokens: number,
  seen: number,
  head: number,
  queries: Float16Array<ArrayBuffer>,
  query: number,
): Float64Array {
  const { heads, kvHeads, headDim: d, scale, softcap } = layer.shape;
  const q = Float64Array.from(queries.subarray((query * heads + head) * d, (query * heads + head + 1) * d));
  const at = Math.floor(head / (heads / kvHeads)) * tokens * d;
  const keys = new Uint16Array(layer.keys.buffer, layer.keys.byteOffset + 2 * at, seen * d);
  const scores = new Float64Array(seen);
  for (let i = 0; i < seen; i++) {
    let dot = 0;
    for (let j = 0; j < d; j++) dot += (q[j] as number) * (HALF[keys[i * d + j] as number] as number);
    scores[i] = softcap === undefined ? dot * scale : softcap * Math.tanh(dot * scale / softcap);
  }
  return scores;
}
