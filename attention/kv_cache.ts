/**
 * One sequence's keys and values, all layers.
 *
 * Each layer is a list of segments that share their boundaries across layers. A segment is made when the tokens that
 * need it come, so that a short context stays small, and sealed when it is full, so that what was cached can later be
 * shared or saved without copying.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment, LayerShape } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";

/** How keys and values are stored: half precision, single precision, or 8 bits with one factor a row and head. */
export type KvType = "f16" | "f32" | "i8";

/**
 * Rows of a segment are multiples of this, which keeps kernels' key blocks whole. Segments are few: every one costs each
 * attention call some cold cache lines, and a cache grown 256 rows at a time spent 1 % of a decode step on them.
 */
const ROWS_UNIT = 256;
const MOST_ROWS = 4096;

/** A layer whose segments can still grow in number. */
interface GrowingLayer extends KvLayer {
  readonly segments: KvSegment[];
}

/** See the module's head. Dispose frees everything (idempotent). */
export class KvCache implements Disposable {
  /** What kernels see, one a layer. */
  readonly layers: readonly KvLayer[];
  readonly #layers: GrowingLayer[];
  readonly #backend: Backend;
  readonly #type: KvType;
  readonly #maxTokens: number;
  #rows = 0;

  /** Holds at most `maxTokens` tokens; allocates nothing yet. */
  constructor(backend: Backend, shapes: readonly LayerShape[], type: KvType, maxTokens: number) {
    this.#backend = backend;
    this.#type = type;
    this.#maxTokens = maxTokens;
    this.#layers = shapes.map((shape) => ({ shape, length: 0, segments: [] }));
    this.layers = this.#layers;
  }

  /** Tokens there is room for without allocating. */
  get capacity(): number {
    return this.#rows;
  }

  /**
   * Makes room for `numTokens` tokens in total, in every layer; at once for `numExpected`, as far as one segment goes.
   * Beyond what is expected the cache grows by an eighth. Throws `RangeError` beyond the cache's maximum and `NativeError`
   * when memory is out; what was allocated before stays.
   */
  reserve(numTokens: number, numExpected: number = numTokens): void {
    if (numTokens > this.#maxTokens) {
      throw new RangeError(`Cannot grow cache: ${numTokens} tokens, its maximum is ${this.#maxTokens}`);
    }
    while (this.#rows < numTokens) {
      const wanted = Math.max(numTokens, numExpected) - this.#rows;
      const rows = Math.ceil(Math.max(wanted, this.#rows / 8, 1) / ROWS_UNIT) * ROWS_UNIT;
      this.#addSegment(Math.min(rows, MOST_ROWS, this.#maxTokens - this.#rows));
    }
  }

  /** Stores k, v [n, kvHeads, headDim] behind layer `layer`'s last row; room must have been reserved. */
  append(layer: number, k: Tensor, v: Tensor): void {
    const kv = this.#layers[layer] as GrowingLayer;
    const { segments } = kv;
    const n = k.shape[0] as number;
    let at = segments.length - 1;
    while (at > 0 && !(segments[at - 1] as KvSegment).sealed) at--;
    for (let done = 0; done < n; at++) {
      const segment = segments[at];
      if (segment === undefined) {
        throw new RangeError(`Cannot cache tokens: ${n - done} of ${n} have no room, reserve it first`);
      }
      const room = (segment.keys.shape[1] as number) - segment.count;
      const count = Math.min(room, n - done);
      if (count === n) this.#backend.kernels.append(segment, segment.count, k, v);
      else if (count > 0) {
        const [keys, values] = [this.#rowsOf(k, done, count), this.#rowsOf(v, done, count)];
        this.#backend.kernels.append(segment, segment.count, keys, values);
      }
      segment.count += count;
      if (count === room) segment.sealed = true;
      kv.length += count;
      done += count;
    }
  }

  /** Forgets all tokens but the first `numTokens`: what a step that was interrupted has appended. Room stays. */
  truncate(numTokens: number): void {
    for (const layer of this.#layers) {
      if (layer.length <= numTokens) continue;
      layer.length = numTokens;
      for (const segment of layer.segments) {
        const count = Math.max(0, Math.min(segment.count, numTokens - segment.start));
        if (count < segment.count) segment.sealed = false;
        segment.count = count;
      }
    }
  }

  /** Frees all segments. */
  [Symbol.dispose](): void {
    for (const layer of this.#layers) {
      for (const segment of layer.segments) freeSegment(this.#backend, segment);
      layer.segments.length = 0;
      layer.length = 0;
    }
    this.#rows = 0;
  }

  #addSegment(rows: number): void {
    const made: KvSegment[] = [];
    try {
      for (const { shape } of this.#layers) made.push(this.#segment(shape, rows));
    } catch (error) {
      for (const segment of made) freeSegment(this.#backend, segment);
      throw error;
    }
    this.#layers.forEach((layer, i) => layer.segments.push(made[i] as KvSegment));
    this.#rows += rows;
  }

  #segment({ kvHeads, headDim }: LayerShape, rows: number): KvSegment {
    const made: Tensor[] = [];
    const make = (shape: number[], dtype: KvType) => {
      const tensor = this.#backend.alloc(shape, dtype, "sequence");
      made.push(tensor);
      return tensor;
    };
    try {
      const keys = make([kvHeads, rows, headDim], this.#type);
      const values = make([kvHeads, rows, headDim], this.#type);
      const segment = { start: this.#rows, count: 0, sealed: false, keys, values };
      if (this.#type !== "i8") return segment;
      return { ...segment, keyScales: make([kvHeads, rows], "f32"), valueScales: make([kvHeads, rows], "f32") };
    } catch (error) {
      for (const tensor of made) this.#backend.free(tensor);
      throw error;
    }
  }

  #rowsOf(x: Tensor, start: number, count: number): Tensor {
    const [, heads, dim] = x.shape as [number, number, number];
    return this.#backend.view(x, [count, heads, dim], start * heads * dim);
  }
}

function freeSegment(backend: Backend, { keys, values, keyScales, valueScales }: KvSegment): void {
  for (const tensor of [keys, values, keyScales, valueScales]) if (tensor !== undefined) backend.free(tensor);
}
