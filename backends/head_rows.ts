/**
 * Rows of a cache from one backend's memory to another's.
 *
 * @module
 */
import type { Backend, Lifetime } from "./backend.ts";
import type { Tensor } from "../core/tensor.ts";
import { byteLength } from "../core/dtype.ts";
import { Unsupported } from "../core/errors.ts";

/** Which rows of each head: `[at, at + count)`. */
export interface HeadRows {
  readonly at: number;
  readonly count: number;
}

/**
 * A copy on `to` of such rows of [heads, capacity, dim], or of scales [heads, capacity]. Each head passes through `buffer`, as long as
 * its rows at least.
 */
export function copyHeadRows(
  from: Backend,
  to: Backend,
  rows: Tensor,
  { at, count }: HeadRows,
  life: Lifetime,
  buffer: Uint8Array<ArrayBuffer>,
): Tensor {
  const [heads, capacity, dim] = rows.shape as readonly [number, number, number | undefined];
  const shape = dim === undefined ? [heads, count] : [heads, count, dim];
  const out = to.alloc(shape, rows.dtype, life);
  const mark = from.mark();
  try {
    // Scales are rows of one head's numbers; the rest are rows of one head's tokens.
    const tokens = dim === undefined ? from.view(rows, [heads * capacity, 1]) : rows;
    const bytes = buffer.subarray(0, headBytes(rows, count));
    for (let head = 0; head < heads && count > 0; head++) {
      readRows(from, tokens, head * capacity + at, bytes);
      to.write(out, bytes, dim === undefined ? head : head * count);
    }
    return out;
  } catch (error) {
    if (life !== "step") to.free(out);
    throw error;
  } finally {
    from.release(mark);
  }
}

/** Of `count` rows of one head. */
export function headBytes({ shape, dtype }: Tensor, count: number): number {
  return byteLength([count, ...shape.slice(2)], dtype);
}

/** From row `row` on, as many as `out` holds. Throws `Unsupported` where the backend has no way to. */
export function readRows(from: Backend, tensor: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void {
  if (from.readRows === undefined) {
    throw new Unsupported(`Cannot copy rows: backend "${from.spec}" does not lend its memory`);
  }
  from.readRows(tensor, row, out);
}
