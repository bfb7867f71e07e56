/**
 * The tensor contract: a typed, shaped piece of one backend's memory. Types only.
 *
 * Shapes are row-major and contiguous, outermost dimension first, and are written in brackets with one legend
 * of names in TypeScript, C++ and CUDA alike:
 *
 * | name | meaning |
 * |---|---|
 * | `n` | tokens (rows) of a step |
 * | `heads` | query heads |
 * | `kvHeads` | key/value heads |
 * | `group` | `heads / kvHeads` |
 * | `headDim` | dimensions of one head |
 * | `width` | the residual stream's dimensions (hidden size) |
 * | `mlpWidth` | the feed-forward layer's inner dimensions |
 * | `vocab` | rows of the embedding table |
 * | `capacity` | rows a key/value segment has room for |
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";

/** Plain number formats. */
export type PlainType = "f32" | "f16" | "bf16" | "i32" | "i8";

/** Block-quantized weight formats, named as in GGUF. */
export type BlockType =
  | "q4_0"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q8_0"
  | "q3_k"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_nl";

/** Every element format a tensor may have. */
export type DType = PlainType | BlockType;

/** Dimensions, outermost first. */
export type Shape = readonly number[];

/** A typed, shaped piece of one backend's memory; only that backend can look inside. */
export interface Tensor {
  /** Owner of the memory. Using a tensor on another backend is an error. */
  readonly backend: Backend;
  /** Element format. */
  readonly dtype: DType;
  /** Dimensions. */
  readonly shape: Shape;
}
