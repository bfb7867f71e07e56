/**
 * One sequence's keys and values, all layers.
 *
 * Each layer is a list of segments that share their boundaries across layers. A segment is made when the tokens that
 * need it come, so that a short context stays small, and sealed when it is full, so that what was cached can be shared or
 * saved without copying.
 *
 * A fork shares the memory of all rows it starts with, the open segment's too: it sees as many of its rows as there were, and
 * goes on in a segment of its own, to which it copies the rows of the last tile that is not full. Only one cache may write behind an open segment's last row; who no longer grows hands that
 * right to a fork, so that a conversation does not leave a half-empty segment behind at every turn.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment, LayerShape } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";
import type { Ops } from "../backends/ops.ts";

/** How keys and values are stored: half precision, single precision, or 8 bits with one factor a row and head. */
export type KvType = "f16" | "f32" | "i8";

/**
 * Rows of a segment are multiples of this, which keeps kernels' key blocks whole. Segments are few: every one costs each
 * attention call some cold cache lines, and a cache grown 256 rows at a time spent 1 % of a decode step on them.
 */
const ROWS_UNIT = 256;
const MOST_ROWS = 4096;
/**
 * A cache of no more than eight times as much grows by this many bytes in all layers. Whoever first writes to them waits until the system
 * has found and cleared their pages, 4 ms a MB on a virtual machine, and other streams wait with it. So what follows is made layer by
 * layer while a segment fills. (24 MB in one step: 110 ms of processor time more than its neighbours took, the longest pause of all.)
 */
const MOST_GROWTH_BYTES = 8 * 2 ** 20;
/** How much faster than its tokens come. */
const AHEAD = 2;
/** Kernels cut positions into tiles of so many keys; segments begin at tiles, so that forks get the bits of the whole. */
const TILE_ROWS = 64;

/** A layer whose segments can still grow in number. */
interface GrowingLayer extends KvLayer {
  readonly segments: KvSegment[];
}

/** A segment that tokens are expected for: of its first layers. */
interface ComingSegment {
  readonly rows: number;
  readonly made: KvSegment[];
}

/** See the module's head. Dispose frees everything (idempotent). */
export class KvCache implements Disposable {
  /** What kernels see, one a layer. */
  readonly layers: readonly KvLayer[];
  readonly #layers: GrowingLayer[];
  readonly #backend: Backend;
  /** How keys and values are stored. */
  readonly type: KvType;
  readonly #maxTokens: number;
  /** How many other caches show the rows behind these keys, where any do; shared by all forks. */
  #uses = new Map<Tensor, number>();
  #rows = 0;
  /** Begins behind the last row that there is room for. */
  #coming: ComingSegment | undefined;

  /** Holds at most `maxTokens` tokens; allocates nothing yet. */
  constructor(backend: Backend, shapes: readonly LayerShape[], type: KvType, maxTokens: number) {
    this.#backend = backend;
    this.type = type;
    this.#maxTokens = maxTokens;
    this.#layers = shapes.map((shape) => ({ shape, length: 0, segments: [] }));
    this.layers = this.#layers;
  }

  /** A cache whose rows are there already, one full segment a layer, which it frees at its end. */
  static over(backend: Backend, shapes: readonly LayerShape[], type: KvType, segments: readonly KvSegment[]): KvCache {
    const numTokens = segments[0]?.count ?? 0;
    const cache = new KvCache(backend, shapes, type, numTokens);
    cache.#layers.forEach((layer, i) => {
      layer.segments.push(segments[i] as KvSegment);
      layer.length = numTokens;
    });
    cache.#rows = numTokens;
    return cache;
  }

  /** Tokens there is room for without allocating. */
  get capacity(): number {
    return this.#rows;
  }

  /** Tokens held: the same in every layer, but in the middle of a step. */
  get length(): number {
    return this.layers[0]?.length ?? 0;
  }

  /**
   * A cache of at most `maxTokens` tokens that begins with the first `numTokens` of this one's, whose memory it shares.
   * `takesOver`: this cache will not grow any more, and the fork may go on in its open segment. Throws `RangeError` for
   * more tokens than there are.
   */
  fork(numTokens: number, maxTokens: number, takesOver = false): KvCache {
    if (!Number.isInteger(numTokens) || numTokens < 0 || numTokens > this.length) {
      throw new RangeError(`Cannot fork cache: at token ${numTokens}, it holds ${this.length}`);
    }
    const fork = new KvCache(this.#backend, this.layers.map(({ shape }) => shape), this.type, maxTokens);
    fork.#uses = this.#uses;
    this.#layers.forEach((layer, i) => {
      const to = fork.#layers[i] as GrowingLayer;
      for (const segment of layer.segments) {
        if (segment.start >= numTokens) break;
        // A fork that left a shared segment's first tile keeps an empty one before its own.
        if (segment.count === 0) continue;
        const count = Math.min(segment.count, numTokens - segment.start);
        const goesOn = takesOver && !segment.sealed && count === segment.count;
        if (goesOn) segment.sealed = true;
        to.segments.push({ ...segment, count, sealed: !goesOn });
        this.#uses.set(segment.keys, (this.#uses.get(segment.keys) ?? 0) + 1);
        if (i === 0) fork.#rows = segment.start + (goesOn ? segment.keys.shape[1] as number : count);
      }
      to.length = numTokens;
    });
    if (takesOver) {
      this.#rows = this.length;
      this.#forgetComing();
    }
    return fork;
  }

  /** Frees room that no token has taken: the cache will not grow any more. */
  trim(): void {
    this.#forgetComing();
    for (const layer of this.#layers) {
      while (layer.segments.at(-1)?.count === 0) this.#release(layer.segments.pop() as KvSegment);
    }
    const last = this.#layers[0]?.segments.at(-1);
    this.#rows = last === undefined ? 0 : last.start + (last.sealed ? last.count : last.keys.shape[1] as number);
  }

  /** Tensors of all segments, those that forks share too. */
  *tensors(): Iterable<Tensor> {
    for (const { segments } of this.#layers) {
      for (const { keys, values, keyScales, valueScales } of segments) {
        yield keys;
        yield values;
        if (keyScales !== undefined) yield keyScales;
        if (valueScales !== undefined) yield valueScales;
      }
    }
  }

  /**
   * Makes room for `numTokens` tokens in total, in every layer. Where `numExpected` are to come it goes on with the segment that follows:
   * with as many layers as hold `AHEAD` times what comes now. A segment is as long as is expected, but no longer than the one before or
   * half the cache, whichever is more, nor than `MOST_GROWTH_BYTES` or an eighth of the cache; beyond what is expected a cache grows by an
   * eighth. Throws `RangeError` beyond the cache's maximum and `NativeError` when memory is out; whole segments that were made before stay.
   */
  reserve(numTokens: number, numExpected: number = numTokens): void {
    if (numTokens > this.#maxTokens) {
      throw new RangeError(`Cannot grow cache: ${numTokens} tokens, its maximum is ${this.#maxTokens}`);
    }
    if (this.#rows < numTokens) this.#leaveShared();
    let isGrown = false;
    for (; this.#rows < numTokens; isGrown = true) {
      this.#addSegment(this.#coming?.rows ?? this.#nextRows(numTokens, numExpected));
    }
    // What follows a new segment can wait for the next step.
    if (isGrown || Math.min(numExpected, this.#maxTokens) <= this.#rows) return;
    const { rows, made } = this.#coming ??= { rows: this.#nextRows(numTokens, numExpected), made: [] };
    const share = AHEAD * (numTokens - this.length) / rows;
    this.#makeLayers(rows, Math.min(this.layers.length, made.length + Math.ceil(share * this.layers.length)));
  }

  /** Of the segment that follows. */
  #nextRows(numTokens: number, numExpected: number): number {
    const eighth = this.#rows / 8;
    const missing = numTokens - this.#rows;
    const wanted = Math.max(missing, numExpected - this.#rows, eighth);
    const last = this.#rows - (this.#layers[0]?.segments.at(-1)?.start ?? 0);
    const most = Math.max(MOST_GROWTH_BYTES / rowBytes(this.layers.map(({ shape }) => shape), this.type), eighth);
    const rows = wholeUnits(Math.min(wanted, most, Math.max(missing, last, this.#rows / 2)));
    return Math.min(rows, MOST_ROWS, wholeTiles(this.#maxTokens - this.#rows));
  }

  /** Row `i` of k, v [n, kvHeads, headDim] goes behind the last row of layer `layer` of `caches[i]`; room must have been reserved. */
  static appendEach(ops: Ops, caches: readonly KvCache[], layer: number, k: Tensor, v: Tensor): void {
    const n = caches.length;
    const segments: KvSegment[] = [];
    const rows = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      const segment = (caches[i] as KvCache).#open(layer);
      segments.push(segment);
      rows[i] = segment.count;
    }
    ops.appendEach(segments, rows, k, v);
    for (let i = 0; i < n; i++) (caches[i] as KvCache).#grow(layer, segments[i] as KvSegment, 1);
  }

  /** Stores k, v [n, kvHeads, headDim] behind layer `layer`'s last row; room must have been reserved. */
  append(layer: number, k: Tensor, v: Tensor): void {
    const n = k.shape[0] as number;
    for (let done = 0; done < n;) {
      const segment = this.#open(layer);
      const room = (segment.keys.shape[1] as number) - segment.count;
      const count = Math.min(room, n - done);
      if (count === n) this.#backend.kernels.append(segment, segment.count, k, v);
      else {
        const [keys, values] = [this.#rowsOf(k, done, count), this.#rowsOf(v, done, count)];
        this.#backend.kernels.append(segment, segment.count, keys, values);
      }
      this.#grow(layer, segment, count);
      done += count;
    }
  }

  /** The segment of the first layer that the next token's row goes to, where there is room. */
  get openSegment(): KvSegment | undefined {
    const last = this.#layers[0]?.segments.findLast((segment) => segment.count > 0);
    return last === undefined || last.sealed ? undefined : last;
  }

  /** A token's rows were stored by somebody else, behind the last ones of every layer's open segment. */
  grow(): void {
    // Layers share their boundaries.
    const at = this.#openAt(0);
    for (let layer = 0; layer < this.#layers.length; layer++) {
      this.#grow(layer, (this.#layers[layer] as GrowingLayer).segments[at] as KvSegment, 1);
    }
  }

  /** The segment that the next token's row goes to. */
  #open(layer: number): KvSegment {
    return (this.#layers[layer] as GrowingLayer).segments[this.#openAt(layer)] as KvSegment;
  }

  /** Its place. */
  #openAt(layer: number): number {
    const { segments } = this.#layers[layer] as GrowingLayer;
    let at = segments.length;
    while (at > 0 && !(segments[at - 1] as KvSegment).sealed) at--;
    if (at === segments.length) throw new RangeError("Cannot cache tokens: they have no room, reserve it first");
    return at;
  }

  /** Rows were stored behind the last one of an open segment. */
  #grow(layer: number, segment: KvSegment, count: number): void {
    segment.count += count;
    if (segment.count === segment.keys.shape[1]) segment.sealed = true;
    (this.#layers[layer] as GrowingLayer).length += count;
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

  /** Frees all segments but those that forks still show. */
  [Symbol.dispose](): void {
    this.#forgetComing();
    for (const layer of this.#layers) {
      for (const segment of layer.segments) this.#release(segment);
      layer.segments.length = 0;
      layer.length = 0;
    }
    this.#rows = 0;
  }

  /** Rows behind the last full tile of a segment that is shared go on in one of the cache's own: it is about to grow. */
  #leaveShared(): void {
    const last = this.#layers[0]?.segments.at(-1);
    const loose = last === undefined || !last.sealed ? 0 : last.count % TILE_ROWS;
    if (last === undefined || loose === 0) return;
    const kept = last.count - loose;
    this.#forgetComing();
    this.#rows = last.start + kept;
    try {
      this.#addSegment(Math.min(ROWS_UNIT, wholeTiles(this.#maxTokens - this.#rows)));
    } catch (error) {
      this.#rows = last.start + last.count;
      throw error;
    }
    for (const { segments } of this.#layers) {
      const [from, to] = segments.slice(-2) as [KvSegment, KvSegment];
      copyRows(this.#backend, to, from, kept, loose);
      from.count = kept;
      to.count = loose;
    }
  }

  #release(segment: KvSegment): void {
    const others = this.#uses.get(segment.keys) ?? 0;
    if (others > 1) this.#uses.set(segment.keys, others - 1);
    else this.#uses.delete(segment.keys);
    if (others === 0) freeSegment(this.#backend, segment);
  }

  /** Makes the layers that a segment of so many rows lacks; room for it is there from now on. */
  #addSegment(rows: number): void {
    this.#makeLayers(rows, this.#layers.length);
    const { made } = this.#coming as ComingSegment;
    this.#layers.forEach((layer, i) => layer.segments.push(made[i] as KvSegment));
    this.#rows += rows;
    this.#coming = undefined;
  }

  /** The segment that follows has at least so many layers from now on, none where memory is out. */
  #makeLayers(rows: number, count: number): void {
    const { made } = this.#coming ??= { rows, made: [] };
    try {
      while (made.length < count) made.push(this.#segment((this.#layers[made.length] as GrowingLayer).shape, rows));
    } catch (error) {
      this.#forgetComing();
      throw error;
    }
  }

  #forgetComing(): void {
    for (const segment of this.#coming?.made ?? []) freeSegment(this.#backend, segment);
    this.#coming = undefined;
  }

  #segment({ kvHeads, headDim }: LayerShape, rows: number): KvSegment {
    const made: Tensor[] = [];
    const make = (shape: number[], dtype: KvType) => {
      const tensor = this.#backend.alloc(shape, dtype, "sequence");
      made.push(tensor);
      return tensor;
    };
    try {
      const keys = make([kvHeads, rows, headDim], this.type);
      const values = make([kvHeads, rows, headDim], this.type);
      const segment = { start: this.#rows, count: 0, sealed: false, keys, values };
      if (this.type !== "i8") return segment;
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

/** Of one token's keys and values, all layers. */
export function rowBytes(layers: readonly LayerShape[], type: KvType): number {
  const [size, scale] = type === "i8" ? [1, 4] : type === "f16" ? [2, 0] : [4, 0];
  return layers.reduce((sum, { kvHeads, headDim }) => sum + 2 * kvHeads * (headDim * size + scale), 0);
}

/** At least one. */
function wholeUnits(rows: number): number {
  return Math.ceil(Math.max(rows, 1) / ROWS_UNIT) * ROWS_UNIT;
}

function wholeTiles(rows: number): number {
  return Math.ceil(rows / TILE_ROWS) * TILE_ROWS;
}

/** Rows `[row, row + count)` of every head become the first of `to`, bit by bit. */
function copyRows({ kernels }: Backend, to: KvSegment, from: KvSegment, row: number, count: number): void {
  for (const name of ["keys", "values", "keyScales", "valueScales"] as const) {
    const [target, source] = [to[name], from[name]];
    if (target === undefined || source === undefined) continue;
    const [heads = 0, toRows = 0, width = 1] = target.shape;
    const fromRows = source.shape[1] as number;
    for (let h = 0; h < heads; h++) {
      kernels.copy(target, h * toRows * width, source, (h * fromRows + row) * width, count * width);
    }
  }
}
