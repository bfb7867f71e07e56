/**
 * What a device sees of a cache that the host keeps: its newest rows and its first ones, which stay beside the weights, and
 * any others for as long as it looks at them.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Backend } from "./backend.ts";
import { copyHeadRows, headBytes } from "./head_rows.ts";

/** Rows that stay or go together. */
const BLOCK = 64;

/** Rows that are brought to the device at once. */
export const STAGE = 1024;

/** Rows `[0, count)` of a block, on the device; `at` is the first one's in its segment. */
interface Block {
  readonly at: number;
  readonly rows: KvSegment;
}

/** Blocks of one segment, by number; absent: the host alone has it. */
type Blocks = (Block | undefined)[];

/** A segment as the host knows it. */
export type HostSegment = KvSegment;

/** Rows of a cache on the device: `[start, start + count)` in order, in one piece. */
interface Part {
  readonly segment: HostSegment;
  readonly at: number;
  readonly count: number;
  readonly block: Block | undefined;
}

/** See the module's head; tensors are the sides' own. */
export class DeviceRows {
  readonly #device: Backend;
  readonly #host: Backend;
  readonly #keep: number;
  readonly #ready: () => void;
  /** By the segment's keys. */
  readonly #segments = new Map<Tensor, Blocks>();
  #buffer = new Uint8Array(0);

  /**
   * The newest `keep` rows of each layer stay on the device, in whole blocks, and its first block. `ready` is called before rows of the
   * host are read.
   */
  constructor(device: Backend, host: Backend, keep: number, ready: () => void) {
    this.#device = device;
    this.#host = host;
    this.#keep = keep;
    this.#ready = ready;
  }

  /** k, v [n, kvHeads, headDim] on the device become rows `row …` of the segment here, too. */
  append(segment: HostSegment, row: number, k: Tensor, v: Tensor): void {
    const n = k.shape[0] as number;
    const blocks = this.#segments.get(segment.keys) ?? [];
    this.#segments.set(segment.keys, blocks);
    // What is not among the newest any more goes before what is new comes, or a prompt's chunk would stand beside the window
    // in every layer.
    const old = (number: number) => (number > 0 || segment.start > 0) && (number + 1) * BLOCK <= row + n - this.#keep;
    for (let i = 0; i < blocks.length; i++) if (old(i)) this.#drop(blocks, i);
    for (let done = 0; done < n;) {
      const [number, from] = [Math.floor((row + done) / BLOCK), (row + done) % BLOCK];
      const count = Math.min(BLOCK - from, n - done);
      if (old(number)) {
        done += count;
        continue;
      }
      let block = blocks[number];
      // Without the rows before these it is of no use; the host has all.
      if (block === undefined ? from > 0 : from > block.rows.count) this.#drop(blocks, number);
      else {
        block ??= blocks[number] = { at: number * BLOCK, rows: this.#make(segment) };
        const part = (x: Tensor) =>
          this.#device.view(x, [count, ...x.shape.slice(1)], done * (x.shape[1] as number) * (x.shape[2] as number));
        const [keys, values] = count === n ? [k, v] : [part(k), part(v)];
        this.#device.kernels.append(block.rows, from, keys, values);
        block.rows.count = from + count;
      }
      done += count;
    }
  }

  /** Forgets what lies here of a segment: it was written, or freed. */
  forget(keys: Tensor): void {
    const blocks = this.#segments.get(keys);
    if (blocks === undefined) return;
    for (let i = 0; i < blocks.length; i++) this.#drop(blocks, i);
    this.#segments.delete(keys);
  }

  /** Lets go of blocks that are neither new nor first. */
  trim(kv: KvLayer): void {
    const begin = kv.segments[0]?.start ?? 0;
    const from = begin + kv.length - this.#keep;
    for (const segment of kv.segments) {
      const blocks = this.#segments.get(segment.keys);
      if (blocks === undefined || segment.start >= from) continue;
      for (let i = 0; i < blocks.length; i++) {
        const start = segment.start + i * BLOCK;
        if (blocks[i] !== undefined && start + BLOCK <= from && start > begin) this.#drop(blocks, i);
      }
    }
  }

  /** Where a piece of the cache may begin, at or before `position`. */
  boundary(kv: KvLayer, position: number): number {
    for (const { start, count } of kv.segments) {
      if (position < start + count) return start + Math.floor((position - start) / BLOCK) * BLOCK;
    }
    return position;
  }

  /**
   * Rows from boundary `from` to `to` as a layer of their own on the device, in step memory where it has them not; the
   * caller recycles it.
   */
  layer(kv: KvLayer, from: number, to: number): KvLayer {
    const segments: KvSegment[] = [];
    let length = 0;
    for (const part of this.#parts(kv, from, to)) {
      const { segment, at, count, block } = part;
      const rows = block === undefined ? this.#stage(segment, at, count) : { ...block.rows, count };
      segments.push({ ...rows, start: segment.start + at });
      length += count;
    }
    return { shape: kv.shape, length, segments };
  }

  /** Blocks from `from` to `to`; those that the device lacks in as few parts as there can be. */
  #parts(kv: KvLayer, from: number, to: number): Part[] {
    const parts: Part[] = [];
    for (const segment of kv.segments) {
      const last = Math.min(segment.start + segment.count, to) - segment.start;
      const blocks = this.#segments.get(segment.keys);
      for (let at = Math.max(0, from - segment.start); at < last;) {
        const number = Math.floor(at / BLOCK);
        const count = Math.min((number + 1) * BLOCK, last) - at;
        const found = blocks?.[number];
        const block = found !== undefined && at === found.at && found.rows.count >= count ? found : undefined;
        const before = parts.at(-1);
        if (block === undefined && before?.block === undefined && before?.segment === segment) {
          parts[parts.length - 1] = { ...before, count: before.count + count };
        } else parts.push({ segment, at, count, block });
        at += count;
      }
    }
    return parts;
  }

  /** A copy of the host's rows in step memory. */
  #stage(segment: HostSegment, at: number, count: number): KvSegment {
    this.#ready();
    const copy = (rows: Tensor) => {
      const perHead = headBytes(rows, count);
      if (this.#buffer.length < perHead) this.#buffer = new Uint8Array(perHead);
      return copyHeadRows(this.#host, this.#device, rows, { at, count }, "step", this.#buffer);
    };
    const { keys, values, keyScales, valueScales, start } = segment;
    const rows = { start, count, sealed: true, keys: copy(keys), values: copy(values) };
    if (keyScales === undefined || valueScales === undefined) return rows;
    return { ...rows, keyScales: copy(keyScales), valueScales: copy(valueScales) };
  }

  #make({ keys, values, keyScales, start }: HostSegment): KvSegment {
    const [heads, , dim] = keys.shape as readonly [number, number, number];
    const make = (shape: readonly number[], { dtype }: { readonly dtype: Tensor["dtype"] }) =>
      this.#device.alloc(shape, dtype, "sequence");
    const rows = {
      start,
      count: 0,
      sealed: false,
      keys: make([heads, BLOCK, dim], keys),
      values: make([heads, BLOCK, dim], values),
    };
    if (keyScales === undefined) return rows;
    return { ...rows, keyScales: make([heads, BLOCK], keyScales), valueScales: make([heads, BLOCK], keyScales) };
  }

  #drop(blocks: Blocks, number: number): void {
    const block = blocks[number];
    if (block === undefined) return;
    blocks[number] = undefined;
    const { keys, values, keyScales, valueScales } = block.rows;
    for (const tensor of [keys, values, keyScales, valueScales]) if (tensor !== undefined) this.#device.free(tensor);
  }
}
