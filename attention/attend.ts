/**
 * Attention of one step's rows, sequence by sequence: keys and values join the sequence's cache, then the queries look
 * at them.
 *
 * Prompts attend exactly. A single new token attends as its layer's policy says: spans → hits → merge.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer } from "../core/kv.ts";
import type { AttentionPart, Kernels } from "../backends/backend.ts";
import type { Ops } from "../backends/ops.ts";
import type { SearchHits } from "../index/index.ts";
import type { LayerPolicy } from "./policy.ts";
import type { SequenceState } from "./state.ts";
import { Unsupported } from "../core/errors.ts";
import { valueSpread } from "./value_spread.ts";

/** Rows `[row, row + numTokens)` of a step belong to one sequence. */
export interface AttendRows {
  /** The sequence's. */
  readonly state: SequenceState;
  /** The first row in the step. */
  readonly row: number;
  /** How many rows. */
  readonly numTokens: number;
  /** How many of the last of them ask; the output of the others stays undefined. */
  readonly numQueries: number;
  /** They attend to everything: a prompt's. Several rows always do. */
  readonly isExact: boolean;
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
  for (const { state, row, numTokens, numQueries, isExact } of parts) {
    const kv = state.cache.layers[layer];
    if (kv === undefined) throw new RangeError(`Cannot attend: layer ${layer} of ${state.cache.layers.length}`);
    // One sequence alone, above all while it decodes, needs no views: `rows` gives the tensor itself.
    const start = kv.length;
    state.cache.append(layer, ops.rows(k, row, numTokens), ops.rows(v, row, numTokens));
    const policy = state.policies[layer];
    policy?.observe?.({ start, count: numTokens, q: ops.rows(q, row, numTokens) }, isExact);
    // A sink sees what all of a prompt's tokens look at, also where nobody asks for their outputs.
    const sink = isExact ? policy?.sink?.(start, numTokens) : undefined;
    const asking = sink === undefined ? numQueries : numTokens;
    if (asking === 0) continue;
    const from = row + numTokens - asking;
    const [to, queries] = n === asking ? [out, q] : [ops.rows(out, from, asking), ops.rows(q, from, asking)];
    if (policy === undefined || isExact) backend.kernels.attendCausal(to, queries, kv, sink);
    else attendSparsely(ops, state.hits, policy, kv, to, queries);
    if (numTokens === 1) state.look?.note(backend, layer, kv, queries, to);
  }
  return out;
}

/** One query q [1, heads, headDim]. */
function attendSparsely(ops: Ops, hits: SearchHits, policy: LayerPolicy, kv: KvLayer, out: Tensor, q: Tensor): void {
  const { attendWindow, attendTopk, merge } = sparseKernels(ops);
  const spans = policy.spans(kv.length);
  // A short cache is attended to whole: one call in place of two, as if there were no policy.
  if (spans.length === 2 && spans[0] === 0 && spans[1] === kv.length) {
    return ops.backend.kernels.attendCausal(out, q, kv);
  }
  const near = part(ops, q);
  attendWindow(near, q, kv, spans);
  if (!policy.hits(hits, q, kv.length, near.lse)) return merge(out, [near]);
  const far = part(ops, q);
  attendTopk(far, q, kv, hits);
  merge(out, hits.rest === undefined ? [near, far] : [near, far, stepPart(ops, q, hits.rest)]);
  policy.attended?.(() => valueSpread(ops, attendTopk, kv, hits, q, out));
}

function part(ops: Ops, q: Tensor): AttentionPart {
  const [n, heads] = q.shape as readonly [number, number];
  return { o: ops.backend.alloc(q.shape, "f32", "step"), lse: ops.backend.alloc([n, heads], "f32", "step") };
}

/** A copy in step memory: the original is where indexes write, which a hybrid's device cannot read. */
function stepPart(ops: Ops, q: Tensor, { o, lse }: AttentionPart): AttentionPart {
  const copy = part(ops, q);
  ops.backend.write(copy.o, o.backend.read(o));
  ops.backend.write(copy.lse, lse.backend.read(lse));
  return copy;
}

function sparseKernels({ backend }: Ops): Required<Pick<Kernels, "attendWindow" | "attendTopk" | "merge">> {
  const { attendWindow, attendTopk, merge } = backend.kernels;
  if (attendWindow !== undefined && attendTopk !== undefined && merge !== undefined) {
    return { attendWindow, attendTopk, merge };
  }
  throw new Unsupported(`Cannot attend sparsely: backend "${backend.spec}" lacks the kernels, use --preset full`);
}
