/**
 * The policy contract: decides what a query looks at, as values; the attention kernels look. Types only.
 *
 * A policy is an immutable value; its state is opened per sequence and layer. Order of a decode step:
 * `spans` → attendWindow (o, lse) → `hits(…, lse)` → attendTopk → merge. Spans and hits are disjoint.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvQueries } from "../core/kv.ts";
import type { AttentionPart } from "../backends/backend.ts";
import type { KvIndex, Params, SearchHits } from "../index/index.ts";

/** Disjoint, ascending ranges `[start, end)` of token positions: [start0, end0, start1, end1, …]. */
export type Spans = Int32Array<ArrayBuffer>;

/** Takes, while a prompt attends, what its queries at positions divisible by `every` look at. Whoever asks owns the tensors. */
export interface PromptSink {
  /** At least 1. */
  readonly every: number;
  /** i32 [queries, heads, k], written: each query's best keys, best first, of equals the earlier; −1 behind those it sees. */
  readonly tokens?: Tensor;
  /** f32 of the shape of `tokens`, written: their logits, −∞ behind. */
  readonly scores?: Tensor;
  /** f32 [heads, capacity]: each position's attention weights are added to it (H2O's accumulated scores, Zhang et al. 2023). */
  readonly columnSums?: Tensor;
}

/** What decode queries of one layer looked at, summed over queries. */
export interface PolicyStats {
  /** Decode queries. */
  readonly queries: number;
  /** Of those, the ones that attended to everything. */
  readonly dense: number;
  /** Of those, the ones for which the policy keeps an index, or would, but finds the context too short yet. */
  readonly short: number;
  /** Keys there were to look at, per KV head. */
  readonly tokens: number;
  /** Keys attended in spans, per KV head. */
  readonly spanned: number;
  /** Keys attended because the index found them: rows read, the mean over KV heads (over query heads for top-k goals). */
  readonly retrieved: number;
  /** Keys the index scored, the mean over KV heads. */
  readonly scored: number;
  /** Bytes the index read. */
  readonly indexBytes: number;
  /** Bytes of the index's own, beside the cache's rows, now. */
  readonly indexMemory: number;
  /** Relative L2 error of the output, estimated from weights and values of sampled keys, summed over queries that it answered; the mean over heads. */
  readonly estimatedError: number;
  /** Seconds that indexes spent on their structure, by all threads, since the policy was opened. */
  readonly buildSeconds: number;
}

/** A policy's state for one layer of one sequence. */
export interface LayerPolicy extends Disposable {
  /** What the attention of a prompt's tokens `[start, start + count)` should note on its way; again for the same tokens after an interrupted step. */
  sink?(start: number, count: number): PromptSink | undefined;
  /**
   * Queries of new tokens, a prompt's or not, for indexes that learn from them; again for the same tokens after an interrupted
   * step. Their keys and values are in the cache.
   */
  observe?(chunk: KvQueries, isPrompt: boolean): void;
  /**
   * Whether the query of the token that makes the cache `length` long would only attend to everything: `observe` has nothing to learn
   * from it, `spans` says all, and neither changes but by what it counts. Optional: no.
   */
  isIdle?(length: number): boolean;
  /** The step is over: the first `length` tokens of the cache are there for good. */
  advance(length: number): void;
  /** Called at the end of each prompt, again at each turn. */
  endPrompt(): void;
  /**
   * Builds what would be built behind the queries to come, and waits for it: measurements of a method begin where it does what it
   * will do from then on. A part of the sequence's history.
   */
  settle?(): void;
  /** Ranges that are attended exactly; valid until the next call. */
  spans(length: number): Spans;
  /** Searches for one query q [heads, headDim]; exact [heads] is the spans' log-sum-exp. False when no hits are needed. */
  hits(out: SearchHits, q: Tensor, length: number, exact: Tensor): boolean;
  /**
   * Searches as {@link hits} and attends to what it finds in one call, where the index can: whether there was any; undefined: not this
   * time, and nothing has happened.
   */
  attend?(out: AttentionPart, q: Tensor, length: number, exact: Tensor): boolean | undefined;
  /** Hits were attended: `spread` measures, where it is asked, how far sampled values lie from the output (value_spread.ts). */
  attended?(spread: () => number | undefined): void;
  /** What happened so far. */
  stats(): PolicyStats;
  /** The same policy over a fork of the cache, at `place.kv`, which holds as many of the tokens or fewer; statistics begin anew. */
  fork(place: PolicyPlace): LayerPolicy;
  /** What a saved context must hold of it; undefined: nothing. */
  readonly index?: KvIndex | undefined;
}

/** Where a policy's state is opened. */
export interface PolicyPlace {
  /** The layer's cache. */
  readonly kv: KvLayer;
  /** Its number. */
  readonly layer: number;
  /** How many there are. */
  readonly layers: number;
  /** Makes the layer's index, of the kind that was asked for. */
  readonly newIndex: () => KvIndex;
  /** The index that {@link LayerPolicy.index} was when the layer's cache was saved; the policy's from now on. */
  readonly saved?: KvIndex | undefined;
}

/** One entry of the policy registry. */
export interface AttentionPolicy<P extends Params = Params> {
  /** One sentence for `--help` and error messages. */
  readonly summary: string;
  /** Parameters and their defaults. */
  readonly defaults: P;
  /** Everything is attended to, always. */
  readonly isDense: boolean;
  /** Whether `open` may make an index. */
  readonly usesIndex: boolean;
  /** Throws `RangeError` for values that make no sense; `params` have the types of the defaults. */
  check(params: P): void;
  /** Undefined: the layer attends to everything, always. */
  open(place: PolicyPlace, params: P): LayerPolicy | undefined;
}
