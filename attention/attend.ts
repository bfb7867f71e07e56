/**
 * Attention of one step's rows, sequence by sequence: keys and values join the sequence's cache, then the queries look
 * at them.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Ops } from "../backends/ops.ts";
import type { KvCache } from "./kv_cache.ts";

/** Rows `[row, row + numTokens)` of a step belong to one sequence. */
export interface AttendRows {
  /** The sequence's. */
  readonly cache: KvCache;
  /** The first row in the step. */
  readonly row: number;
  /** How many rows. */
  readonly numTokens: number;
  /** How many of the last of them ask; the output of the others stays undefined. */
  readonly numQueries: number;
}

/**
 * q [n, heads, headDim], k, v [n, kvHeads, headDim], rotated → [n, heads, headDim] in step memory. Caches must have
 * room for the new rows.
 */
export function attend(
  ops: Ops,
  parts: readonly AttendRows[],
  layer: number,
  q: Tensor,
  k: Tensor,
  v: Tensor,
): Tensor {
  const { backend } = ops;
  const out = backend.alloc(q.shape, "f32", "step");
  const n = q.shape[0] as number;
  for (const { cache, row, numTokens, numQueries } of parts) {
    const kv = cache.layers[layer];
    if (kv === undefined) throw new RangeError(`Cannot attend: layer ${layer} of ${cache.layers.length}`);
    if (numQueries === n) {
      // One sequence alone, above all while it decodes: no views are needed.
      cache.append(layer, k, v);
      backend.kernels.attendCausal(out, q, kv);
      continue;
    }
    cache.append(layer, ops.rows(k, row, numTokens), ops.rows(v, row, numTokens));
    if (numQueries === 0) continue;
    const from = row + numTokens - numQueries;
    backend.kernels.attendCausal(ops.rows(out, from, numQueries), ops.rows(q, from, numQueries), kv);
  }
  return out;
}
