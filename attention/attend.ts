/**
 * Attention of one step's rows: keys and values join their sequences' caches, then the queries look at them.
 *
 * Prompts attend exactly. A single new token attends as its layer's policy says: spans → hits → merge.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvQueries } from "../core/kv.ts";
import type { AttentionPart, Kernels } from "../backends/backend.ts";
import type { Ops } from "../backends/ops.ts";
import type { LayerPolicy, Spans } from "./policy.ts";
import type { SequenceState } from "./state.ts";
import type { StepClock } from "./step_clock.ts";
import { Unsupported } from "../core/errors.ts";
import type { Seen } from "./look.ts";
import { KvCache } from "./kv_cache.ts";
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

/** A step's queries and their answers [n, heads, headDim]. */
interface Rows {
  readonly ops: Ops;
  readonly layer: number;
  readonly q: Tensor;
  readonly out: Tensor;
  readonly clock: StepClock | undefined;
}

/**
 * q [n, heads, headDim], k, v [n, kvHeads, headDim], rotated → [n, heads, headDim] in step memory. Caches must have
 * room for the new rows. Decoding sequences side by side share calls; what each gets does not depend on its neighbours. Searches
 * are clocked where there is a clock.
 */
export function attend(
  ops: Ops,
  parts: readonly AttendRows[],
  layer: number,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  clock?: StepClock,
): Tensor {
  const out = ops.backend.alloc(q.shape, "f32", "step");
  const rows = { ops, layer, q, out, clock };
  for (let i = 0; i < parts.length;) {
    let end = i;
    while (end < parts.length && decodes(parts[end] as AttendRows)) end++;
    // Whoever can be recorded decodes as several do, also alone.
    if (end - i > (ops.backend.record === undefined ? 1 : 0)) {
      attendDecoding(rows, parts.slice(i, end), k, v);
      i = end;
    } else {
      attendOne(rows, parts[i++] as AttendRows, k, v);
    }
  }
  return out;
}

function decodes({ numTokens, numQueries, isExact }: AttendRows): boolean {
  return numTokens === 1 && numQueries === 1 && !isExact;
}

/** A prompt's chunk, or the one sequence that decodes. */
function attendOne({ ops, layer, q, out, clock }: Rows, part: AttendRows, k: Tensor, v: Tensor): void {
  const { state, row, numTokens, numQueries, isExact } = part;
  const kv = layerOf(state, layer);
  const start = kv.length;
  state.cache.append(layer, ops.rows(k, row, numTokens), ops.rows(v, row, numTokens));
  const policy = state.policies[layer];
  policy?.observe?.(new StepQueries(ops, q, row, numTokens, start), isExact);
  // A sink sees what all of a prompt's tokens look at, also where nobody asks for their outputs.
  const sink = isExact ? policy?.sink?.(start, numTokens) : undefined;
  const asking = sink === undefined ? numQueries : numTokens;
  if (asking === 0) return;
  const from = row + numTokens - asking;
  const [to, queries] = [ops.rows(out, from, asking), ops.rows(q, from, asking)];
  const spans = isExact ? undefined : policy?.spans(kv.length);
  let seen: Seen | undefined;
  if (policy === undefined || spans === undefined || isWhole(spans, kv)) {
    ops.backend.kernels.attendCausal(to, queries, kv, sink);
  } else {
    seen = attendSparsely(ops, state, policy, spans, kv, to, queries, clock);
  }
  if (numTokens === 1) state.look?.note(ops.backend, layer, kv, queries, to, seen);
}

/** Sequences that decode, one token each in neighbouring rows: whoever attends to everything does so in one call with the others. */
function attendDecoding(rows: Rows, parts: readonly AttendRows[], k: Tensor, v: Tensor): void {
  const { ops, layer, q, out, clock } = rows;
  const first = (parts[0] as AttendRows).row;
  const n = parts.length;
  KvCache.appendEach(ops, parts.map(({ state }) => state.cache), layer, ops.rows(k, first, n), ops.rows(v, first, n));
  const dense: KvLayer[] = [];
  const seen: (Seen | undefined)[] = [];
  const attendDense = (end: number) => {
    const start = end - dense.length;
    if (dense.length > 0) ops.attendEach(ops.rows(out, start, dense.length), ops.rows(q, start, dense.length), dense);
    dense.length = 0;
  };
  let isWatched = false;
  for (const { state, row } of parts) {
    const kv = layerOf(state, layer);
    const policy = state.policies[layer];
    policy?.observe?.(new StepQueries(ops, q, row, 1, kv.length - 1), false);
    const spans = policy?.spans(kv.length);
    if (policy === undefined || spans === undefined || isWhole(spans, kv)) {
      dense.push(kv);
      seen.push(undefined);
    } else {
      attendDense(row);
      seen.push(attendSparsely(ops, state, policy, spans, kv, ops.rows(out, row, 1), ops.rows(q, row, 1), clock));
    }
    isWatched ||= state.look !== undefined;
  }
  attendDense(first + n);
  if (!isWatched) return;
  for (const [i, { state, row }] of parts.entries()) {
    state.look?.note(ops.backend, layer, layerOf(state, layer), ops.rows(q, row, 1), ops.rows(out, row, 1), seen[i]);
  }
}

/** Rows of a step's queries, as a view that is made only for those who look: few indexes learn from queries. */
class StepQueries implements KvQueries {
  readonly #ops: Ops;
  readonly #all: Tensor;
  readonly #row: number;

  constructor(ops: Ops, all: Tensor, row: number, readonly count: number, readonly start: number) {
    this.#ops = ops;
    this.#all = all;
    this.#row = row;
  }

  get q(): Tensor {
    return this.#ops.rows(this.#all, this.#row, this.count);
  }
}

function layerOf({ cache }: SequenceState, layer: number): KvLayer {
  const kv = cache.layers[layer];
  if (kv === undefined) throw new RangeError(`Cannot attend: layer ${layer} of ${cache.layers.length}`);
  return kv;
}

/** A short cache is attended to as if there were no policy: one call in place of two. */
function isWhole(spans: Spans, kv: KvLayer): boolean {
  return spans.length === 2 && spans[0] === 0 && spans[1] === kv.length;
}

/** One query q [1, heads, headDim]; what it looked at. */
function attendSparsely(
  ops: Ops,
  { hits, look }: SequenceState,
  policy: LayerPolicy,
  spans: Spans,
  kv: KvLayer,
  out: Tensor,
  q: Tensor,
  clock: StepClock | undefined,
): Seen {
  const { attendWindow, attendTopk, merge } = sparseKernels(ops);
  const near = part(ops, q);
  attendWindow(near, q, kv, spans);
  const far = part(ops, q);
  const clocked = <T>(search: () => T): T => clock === undefined ? search() : clock.search(search);
  // Nobody looks at hits: they need not be handed over.
  const isAny = look !== undefined || policy.attend === undefined
    ? undefined
    : clocked(() => policy.attend?.(far, q, kv.length, near.lse));
  if (isAny !== undefined) {
    merge(out, isAny ? [near, far] : [near]);
    return { spans };
  }
  if (!clocked(() => policy.hits(hits, q, kv.length, near.lse))) {
    merge(out, [near]);
    return { spans };
  }
  attendTopk(far, q, kv, hits);
  merge(out, hits.rest === undefined ? [near, far] : [near, far, stepPart(ops, q, hits.rest)]);
  policy.attended?.(() => valueSpread(ops, attendTopk, kv, hits, q, out));
  return { spans, hits };
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
