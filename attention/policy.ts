/**
 * The policy contract: decides what a query looks at, as values; the attention kernels look. Types only.
 *
 * A policy is an immutable value; its state is opened per sequence and layer. Order of a decode step:
 * `spans` → attendWindow (o, lse) → `hits(…, lse)` → attendTopk → merge. Spans and hits are disjoint.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, LayerShape } from "../core/kv.ts";
import type { KvIndex, Params, SearchHits } from "../index/index.ts";

/** Disjoint, ascending ranges `[start, end)` of token positions: [start0, end0, start1, end1, …]. */
export type Spans = Int32Array<ArrayBuffer>;

/** Takes, during prefill, exact top keys of every `every`-th query, or column sums of the attention weights. */
export interface PromptSink {
  /** Of the queries, every so many-th is looked at. */
  readonly every: number;
  /** Keys kept of each. */
  readonly topk: number;
  /** i32 [queries, heads, topk] */
  readonly tokens?: Tensor;
  /** f32 [queries, heads, topk] */
  readonly scores?: Tensor;
  /** f32 [heads, tokens] */
  readonly columnSums?: Tensor;
}

/** A policy's state for one layer of one sequence. */
export interface LayerPolicy extends Disposable {
  sink?(start: number, count: number): PromptSink;
  observe(chunk: KvChunk): void;
  /** Called at the end of each prompt, again at each turn. */
  endPrompt(): void;
  spans(length: number): Spans;
  /** False when no hits are needed. */
  hits(out: SearchHits, q: Tensor, length: number, exact: Tensor): boolean;
  fork(kv: KvLayer): LayerPolicy;
}

/** One entry of the policy registry. */
export interface AttentionPolicy<P extends Params = Params> {
  readonly defaults: P;
  open(shape: LayerShape, layer: number, params: P, newIndex: (spec?: string) => KvIndex): LayerPolicy;
}
