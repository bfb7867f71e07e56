/**
 * What every index checks of what it is given, so that errors read alike.
 *
 * @module
 */
import type { Shape, Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, KvQueries, LayerShape } from "../core/kv.ts";
import type { Goal } from "./index.ts";
import { sameShape } from "../backends/shape.ts";

/** Throws `RangeError` unless the chunk's rows are in the cache. */
export function checkChunk({ start, count }: KvChunk, kv: KvLayer): void {
  const begin = kv.segments[0]?.start ?? 0;
  const end = kv.segments.reduce((most, s) => Math.max(most, s.start + s.count), begin);
  if (!Number.isInteger(start) || !Number.isInteger(count) || count < 0 || start < begin || start + count > end) {
    throw new RangeError(`Cannot add tokens: ${count} from position ${start}, the cache holds ${begin} to ${end}`);
  }
}

/** Throws `RangeError` unless the queries are of so many tokens. */
export function checkQueries({ start, count, q }: KvQueries, { heads, headDim }: LayerShape): void {
  if (!Number.isInteger(start) || start < 0) throw new RangeError(`Cannot observe queries: they start at ${start}`);
  expectFloats(q, [[count, heads, headDim]], "observe queries: their tensor");
}

/** Throws `RangeError` unless a search's query and log-sum-exp have their shapes. */
export function checkQuery(q: Tensor, exact: Tensor, { heads, headDim }: LayerShape): void {
  expectFloats(q, [[heads, headDim], [1, heads, headDim]], "search: the query tensor");
  expectFloats(exact, [[heads], [1, heads]], "search: the log-sum-exp tensor");
}

function expectFloats(tensor: Tensor, shapes: readonly Shape[], what: string): void {
  if (tensor.dtype === "f32" && shapes.some((shape) => sameShape(tensor.shape, shape))) return;
  throw new RangeError(
    `Cannot ${what} is ${tensor.dtype} [${tensor.shape.join(", ")}], expected f32 [${shapes[0]?.join(", ")}]`,
  );
}

/** Throws `RangeError` for goals out of range. */
export function checkGoal(goal: Goal): void {
  if ("error" in goal) {
    if (!(goal.error >= 0 && goal.error <= 1)) {
      throw new RangeError(`Cannot search: error is ${goal.error}, expected 0 to 1`);
    }
  } else {
    if (!Number.isInteger(goal.topk) || goal.topk < 1 || goal.topk > 4096) {
      throw new RangeError(`Cannot search: topk is ${goal.topk}, expected a whole number from 1 to 4096`);
    }
  }
  if (goal.draw !== goal.draw >>> 0) throw new RangeError(`Cannot search: draw is ${goal.draw}, expected 32 bits`);
}

/** Throws `RangeError` when a number is NaN or infinite. */
export function checkFinite(values: Float32Array, what: string): void {
  if (!values.every(Number.isFinite)) throw new RangeError(`Cannot ${what} is not finite`);
}

/** Contents of an f32 tensor. */
export function readFloats(tensor: Tensor): Float32Array {
  return tensor.backend.read(tensor) as Float32Array;
}
