/**
 * What a key/value cache looks like to kernels, indexes and policies. Types only.
 *
 * A layer's cache is a list of segments. A sealed segment never changes again, so that forks can share it and files can
 * map it; the last, open one is being filled. Key and value rows are stored row by row (not interleaved): a gather of
 * retrieved rows reads whole rows, and the exact scan is bound by memory either way.
 *
 * @module
 */
import type { Tensor } from "./tensor.ts";

/** Rotary position embedding of one layer (RoFormer, section 3.4.2, and the scalings built on it). */
export interface Rope {
  /** Radians per position of each rotated pair: [dims / 2]. */
  readonly frequencies: Float64Array;
  /** Leading dimensions of a head that are rotated, even, at most `headDim`. */
  readonly dims: number;
  /** Which two dimensions form pair `i`: `(i, i + dims/2)` for halves, `(2i, 2i + 1)` for neighbours. */
  readonly pairing: "halves" | "neighbours";
  /** Factor on cosine and sine (YaRN's attention factor); 1 otherwise. */
  readonly magnitude: number;
}

/** Attention geometry of one layer. */
export interface LayerShape {
  /** Query heads. */
  readonly heads: number;
  /** Key/value heads; each serves `heads / kvHeads` query heads. */
  readonly kvHeads: number;
  /** Dimensions of one head. */
  readonly headDim: number;
  /** Factor on `q·k` before the softmax. */
  readonly scale: number;
  /** Logits become `softcap · tanh(logit / softcap)`. */
  readonly softcap?: number;
  /** A query at position `p` sees keys in `(p - slidingWindow, p]` only. */
  readonly slidingWindow?: number;
  /** Absent: positions are not rotated. */
  readonly rope?: Rope;
}

/** Rows `[start, start + count)` of one layer's cache. */
export interface KvSegment {
  /** Absolute position of the first row. */
  readonly start: number;
  /** Filled rows. */
  count: number;
  /** A sealed segment is immutable. */
  sealed: boolean;
  /** f16, f32 or i8 [kvHeads, capacity, headDim]. */
  readonly keys: Tensor;
  /** As keys. */
  readonly values: Tensor;
  /** f32 [kvHeads, capacity]: one factor a row; present exactly when keys and values are i8. */
  readonly keyScales?: Tensor;
  /** As keyScales. */
  readonly valueScales?: Tensor;
}

/** One layer's cache of one sequence: segments in order of `start`, without gaps. */
export interface KvLayer {
  /** Geometry. */
  readonly shape: LayerShape;
  /** Tokens held: the sum of the segments' counts. */
  length: number;
  /** See the interface. */
  readonly segments: readonly KvSegment[];
}

/** Newly appended tokens: their keys and values are rows of the cache already. */
export interface KvChunk {
  /** Absolute position of the first one. */
  readonly start: number;
  /** How many. */
  readonly count: number;
}

/** What new tokens asked, for indexes that learn from it. */
export interface KvQueries extends KvChunk {
  /** f32 [count, heads, headDim], rotated. */
  readonly q: Tensor;
}
