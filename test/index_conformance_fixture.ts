/**
 * Caches that indexes are tried on, and what exact search and attention over them would give, in float64.
 *
 * @module
 */
import type { KvLayer, KvSegment, LayerShape } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Backend } from "../backends/backend.ts";
import type { KvIndex } from "../index/index.ts";
import { Random } from "./backend_conformance_twin.ts";

/** How a cache stores its rows. */
export type KvType = "f32" | "f16" | "i8";

/** What a cache is made of. */
export interface CacheOptions {
  readonly length: number;
  readonly kvHeads?: number;
  readonly group?: number;
  readonly headDim?: number;
  readonly type?: KvType;
  readonly seed?: number;
  /** Position of the first row. */
  readonly start?: number;
  /** Rows of each segment but the last. */
  readonly segmentRows?: number;
  readonly softcap?: number;
  /** Changes the keys before they are stored: [kvHeads, length, headDim]. */
  readonly edit?: (keys: Float32Array<ArrayBuffer>, headDim: number) => void;
}

/** A cache whose segments grow in number. */
export interface GrowingLayer extends KvLayer {
  length: number;
  readonly segments: KvSegment[];
}

const TOPICS = 12;

/**
 * One layer's cache whose tokens belong to topics, as attention's keys do: a query asks for some topic, so that few keys
 * hold most of its mass. All rows are stored from the beginning; `filled` says how many an index may be told of.
 */
export class TestLayer implements Disposable {
  readonly shape: LayerShape;
  readonly length: number;
  readonly start: number;
  /** As the cache holds them, widened: [kvHeads, length, headDim]. */
  readonly keys: Float32Array;
  readonly values: Float32Array;
  readonly #segments: KvSegment[] = [];
  readonly #topics: Float32Array;
  readonly #random: Random;
  #tokenQueries: Float32Array<ArrayBuffer> | undefined;
  readonly #lent: Tensor[] = [];

  constructor(readonly backend: Backend, options: CacheOptions) {
    const { length, kvHeads = 2, group = 2, headDim = 64, type = "f16", seed = 1, start = 0, softcap } = options;
    this.shape = {
      heads: kvHeads * group,
      kvHeads,
      headDim,
      scale: 1 / Math.sqrt(headDim),
      ...(softcap === undefined ? {} : { softcap }),
    };
    this.length = length;
    this.start = start;
    this.#random = new Random(seed);
    this.#topics = this.#random.floats(kvHeads * TOPICS * headDim);
    const keys = this.#topicRows(kvHeads, length, headDim);
    options.edit?.(keys, headDim);
    const values = this.#random.floats(kvHeads * length * headDim);
    const rows = options.segmentRows ?? 1000;
    const [storedKeys, storedValues] = [store(keys, headDim, type), store(values, headDim, type)];
    this.keys = storedKeys.widened;
    this.values = storedValues.widened;
    for (let from = 0; from < length; from += rows) {
      const to = Math.min(length, from + rows);
      this.#segments.push(this.#segment(type, storedKeys, storedValues, from, to));
    }
  }

  /** A cache of the first `count` tokens, which {@link grow} makes longer. */
  filled(count: number = this.length): GrowingLayer {
    const kv: GrowingLayer = { shape: this.shape, length: 0, segments: [] };
    this.grow(kv, count);
    return kv;
  }

  /** Now the cache holds `count` tokens. Segments are objects of their own, as a fork's are. */
  grow(kv: GrowingLayer, count: number): void {
    kv.length = count;
    for (const [i, segment] of this.#segments.entries()) {
      const rows = Math.min(segment.count, count - (segment.start - this.start));
      if (rows <= 0) break;
      const known = kv.segments[i];
      const sealed = rows === segment.count;
      if (known === undefined) kv.segments.push({ ...segment, count: rows, sealed });
      else Object.assign(known, { count: rows, sealed });
    }
  }

  /** Queries of tokens [from, from + count), f32 [count, heads, headDim]: the same each time. */
  queries(from: number, count: number): Tensor {
    const { heads, headDim } = this.shape;
    this.#tokenQueries ??= this.query(this.length, 1.5, new Random(this.length));
    const width = heads * headDim;
    return this.lend([count, heads, headDim], this.#tokenQueries.slice(from * width, (from + count) * width));
  }

  /** The same as numbers; `sharp` 0 asks for nothing in particular, 3 for little more than the topic. */
  query(count = 1, sharp = 1.5, random = this.#random): Float32Array<ArrayBuffer> {
    const { heads, kvHeads, headDim } = this.shape;
    const out = new Float32Array(count * heads * headDim);
    for (let r = 0; r < count * heads; r++) {
      const kvHead = Math.floor((r % heads) / (heads / kvHeads));
      const topic = (kvHead * TOPICS + random.int(TOPICS)) * headDim;
      for (let j = 0; j < headDim; j++) {
        out[r * headDim + j] = sharp * (this.#topics[topic + j] as number) + 0.7 * random.bell();
      }
    }
    return out;
  }

  /** A tensor that lives as long as the layer. */
  lend(shape: readonly number[], data: Float32Array<ArrayBuffer>): Tensor {
    const tensor = this.backend.alloc(shape, "f32", "sequence");
    this.backend.write(tensor, data);
    this.#lent.push(tensor);
    return tensor;
  }

  /** Frees what `lend` gave since. */
  takeBack(): void {
    for (const tensor of this.#lent.splice(0)) this.backend.free(tensor);
  }

  /** Adds tokens [from, to) of the layer in chunks, with queries. */
  add(index: KvIndex, from: number, to: number, chunk = to - from): void {
    for (let at = from; at < to; at += chunk) {
      const count = Math.min(chunk, to - at);
      if (index.observes === true) index.observe?.({ start: this.start + at, count, q: this.queries(at, count) });
      index.add({ start: this.start + at, count });
      this.takeBack();
    }
  }

  /** Logits of tokens [from, to) for one query head, float64. */
  logits(q: Float32Array, head: number, from: number, to: number): Float64Array {
    const { heads, kvHeads, headDim, scale, softcap } = this.shape;
    const rows = Math.floor(head / (heads / kvHeads)) * this.length;
    const out = new Float64Array(to - from);
    for (let i = from; i < to; i++) {
      let sum = 0;
      const at = (rows + i) * headDim;
      for (let j = 0; j < headDim; j++) sum += (q[head * headDim + j] as number) * (this.keys[at + j] as number);
      out[i - from] = softcap === undefined ? scale * sum : softcap * Math.tanh(scale * sum / softcap);
    }
    return out;
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.takeBack();
    for (const { keys, values, keyScales, valueScales } of this.#segments.splice(0)) {
      for (const tensor of [keys, values, keyScales, valueScales]) if (tensor !== undefined) this.backend.free(tensor);
    }
  }

  #topicRows(kvHeads: number, length: number, headDim: number): Float32Array<ArrayBuffer> {
    const random = this.#random;
    const out = new Float32Array(kvHeads * length * headDim);
    for (let r = 0; r < kvHeads * length; r++) {
      const topic = (Math.floor(r / length) * TOPICS + random.int(TOPICS)) * headDim;
      for (let j = 0; j < headDim; j++) {
        // A mean that is not zero, as real keys have.
        out[r * headDim + j] = 0.5 + (this.#topics[topic + j] as number) + 0.6 * random.bell();
      }
    }
    return out;
  }

  #segment(type: KvType, keys: Stored, values: Stored, from: number, to: number): KvSegment {
    const { kvHeads, headDim } = this.shape;
    // Only the last segment has room left.
    const capacity = to - from + (to === this.length ? 5 : 0);
    const cut = ({ data, scales }: Stored) => {
      const rows = this.backend.alloc([kvHeads, capacity, headDim], type, "sequence");
      const factors = new Float32Array(kvHeads * capacity);
      for (let h = 0; h < kvHeads; h++) {
        const first = h * this.length;
        this.backend.write(rows, data.slice((first + from) * headDim, (first + to) * headDim), h * capacity);
        factors.set(scales.subarray(first + from, first + to), h * capacity);
      }
      if (type !== "i8") return { rows, scales: undefined };
      const tensor = this.backend.alloc([kvHeads, capacity], "f32", "sequence");
      this.backend.write(tensor, factors);
      return { rows, scales: tensor };
    };
    const [k, v] = [cut(keys), cut(values)];
    const segment = { start: this.start + from, count: to - from, sealed: true, keys: k.rows, values: v.rows };
    if (k.scales === undefined || v.scales === undefined) return segment;
    return { ...segment, keyScales: k.scales, valueScales: v.scales };
  }
}

/** Rows in a cache's type, and the numbers they stand for. */
interface Stored {
  readonly data: Float32Array<ArrayBuffer> | Float16Array<ArrayBuffer> | Int8Array<ArrayBuffer>;
  readonly scales: Float32Array;
  readonly widened: Float32Array;
}

function store(x: Float32Array<ArrayBuffer>, headDim: number, type: KvType): Stored {
  const scales = new Float32Array(x.length / headDim);
  if (type === "f32") return { data: x, scales, widened: x };
  if (type === "f16") {
    const data = new Float16Array(x);
    return { data, scales, widened: new Float32Array(data) };
  }
  const data = new Int8Array(x.length);
  for (let r = 0; r < scales.length; r++) {
    let most = 0;
    for (let j = 0; j < headDim; j++) most = Math.max(most, Math.abs(x[r * headDim + j] as number));
    const scale = scales[r] = Math.fround(most / 127);
    for (let j = 0; j < headDim; j++) {
      data[r * headDim + j] = scale === 0 ? 0 : Math.round((x[r * headDim + j] as number) / scale);
    }
  }
  return { data, scales, widened: Float32Array.from(data, (c, i) => c * (scales[Math.floor(i / headDim)] as number)) };
}
