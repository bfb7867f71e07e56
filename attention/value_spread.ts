/**
 * How far the values of sampled keys lie from an output, in units of its length.
 *
 * A search estimates the error of its sample from the weights of what it kept, as if values differed from the output by its
 * own length: it sees neither. By how much they do is a matter of the layer and text; it is measured now and then from a
 * few of the kept keys, Σ (1 − p) ‖v − o‖² / ‖o‖² beside Σ (1 − p): a sample's weights are all alike where p < 1.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer } from "../core/kv.ts";
import type { Kernels } from "../backends/backend.ts";
import type { Ops } from "../backends/ops.ts";
import type { Hits } from "../index/index.ts";

/** Keys of each row of hits that are looked at. */
const KEYS = 4;

/** Root mean square over heads, of the output [1, heads, headDim] to the query q; undefined when nothing was sampled. */
export function valueSpread(
  { backend }: Ops,
  attendTopk: NonNullable<Kernels["attendTopk"]>,
  kv: KvLayer,
  hits: Hits,
  q: Tensor,
  output: Tensor,
): number | undefined {
  if (hits.bias === undefined) return undefined;
  const [rows, capacity] = hits.tokens.shape as readonly [number, number];
  const [found, counts, biases] = [hits.tokens, hits.counts, hits.bias].map((t) => backend.read(t)) as [
    Int32Array,
    Int32Array,
    Float32Array,
  ];
  const picked = Array.from({ length: rows }, (_, row) => {
    const sampled: number[] = [];
    for (let at = row * capacity; at < row * capacity + (counts[row] as number); at++) {
      if ((biases[at] as number) > 0) sampled.push(at);
    }
    const some = Math.min(KEYS, sampled.length);
    return Array.from({ length: some }, (_, i) => sampled[Math.floor((i + 0.5) * sampled.length / some)] as number);
  });
  const { heads, headDim } = kv.shape;
  const o = backend.read(output) as Float32Array;
  const part = {
    o: backend.alloc(q.shape, "f32", "step"),
    lse: backend.alloc([1, heads], "f32", "step"),
  };
  const one = { tokens: backend.alloc([rows, 1], "i32", "step"), counts: backend.alloc([rows], "i32", "step") };
  const [squares, weights] = [new Float64Array(heads), new Float64Array(heads)];
  for (let i = 0; i < KEYS; i++) {
    // Attention to one key alone is its value, whatever type the cache has and wherever it lies.
    backend.write(one.tokens, Int32Array.from(picked, (list) => found[list[i] ?? 0] as number));
    backend.write(one.counts, Int32Array.from(picked, (list) => i < list.length ? 1 : 0));
    attendTopk(part, q, kv, one);
    const values = backend.read(part.o) as Float32Array;
    for (let head = 0; head < heads; head++) {
      const at = picked[Math.floor(head / (heads / rows))]?.[i];
      if (at === undefined) continue;
      const weight = -Math.expm1(-(biases[at] as number));
      let square = 0;
      for (let j = head * headDim; j < (head + 1) * headDim; j++) {
        square += ((values[j] as number) - (o[j] as number)) ** 2;
      }
      squares[head] = (squares[head] as number) + weight * square;
      weights[head] = (weights[head] as number) + weight;
    }
  }
  let [sum, count] = [0, 0];
  for (let head = 0; head < heads; head++) {
    let length = 0;
    for (let j = head * headDim; j < (head + 1) * headDim; j++) length += (o[j] as number) ** 2;
    if (weights[head] === 0 || length === 0) continue;
    sum += (squares[head] as number) / (weights[head] as number) / length;
    count++;
  }
  return count === 0 ? undefined : Math.sqrt(sum / count);
}
