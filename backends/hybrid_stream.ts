/**
 * New rows on their way from a device to the host's cache, which takes them up while the device computes what comes next.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvSegment } from "../core/kv.ts";
import type { Backend, Fetched } from "./backend.ts";

/** Rows `row …` of the host's segment that it has not taken up yet. */
interface Rows {
  readonly segment: KvSegment;
  readonly row: number;
  readonly shape: readonly number[];
  readonly keys: Fetched;
  readonly values: Fetched;
}

/** See the module's head; tensors are the sides' own. */
export class RowStream {
  readonly #device: Pick<Backend, "read" | "fetch">;
  readonly #host: Backend;
  /** In the order of their appending. */
  readonly #rows: Rows[] = [];

  /** From the one to the other. */
  constructor(device: Pick<Backend, "read" | "fetch">, host: Backend) {
    this.#device = device;
    this.#host = host;
  }

  /** k, v [n, kvHeads, headDim] on the device become rows of the host's segment: at once, where it cannot fetch, or by {@link settle}. */
  append(segment: KvSegment, row: number, k: Tensor, v: Tensor): void {
    checkRows(segment, row, k, v);
    const keys = this.#device.fetch?.(k);
    if (keys === undefined) {
      this.#write(segment, row, k.shape, [this.#device.read(k), this.#device.read(v)]);
      return;
    }
    try {
      const values = (this.#device.fetch as NonNullable<Backend["fetch"]>)(v);
      this.#rows.push({ segment, row, shape: k.shape, keys, values });
    } catch (error) {
      keys[Symbol.dispose]();
      throw error;
    }
  }

  /** The host's cache has what was appended, but for the last `left` times. */
  settle(left = 0): void {
    while (this.#rows.length > left) {
      const { segment, row, shape, keys, values } = this.#rows.shift() as Rows;
      using taken = new DisposableStack();
      taken.use(keys);
      taken.use(values);
      this.#write(segment, row, shape, [keys.take(), values.take()]);
    }
  }

  /** Drops what is on its way to a segment, by its keys or values: its memory ends. */
  forget(tensor: Tensor): void {
    for (let i = this.#rows.length - 1; i >= 0; i--) {
      const { segment, keys, values } = this.#rows[i] as Rows;
      if (segment.keys !== tensor && segment.values !== tensor) continue;
      this.#rows.splice(i, 1);
      keys[Symbol.dispose]();
      values[Symbol.dispose]();
    }
  }

  #write(
    segment: KvSegment,
    row: number,
    shape: readonly number[],
    rows: readonly ReturnType<Backend["read"]>[],
  ): void {
    const mark = this.#host.mark();
    try {
      const [keys, values] = rows.map((data) => {
        const copy = this.#host.alloc(shape, "f32", "step");
        this.#host.write(copy, data);
        return copy;
      }) as [Tensor, Tensor];
      this.#host.kernels.append(segment, row, keys, values);
    } finally {
      this.#host.release(mark);
    }
  }
}

/** As every backend checks them, and now: what is on its way must fit where it goes. */
function checkRows(segment: KvSegment, row: number, k: Tensor, v: Tensor): void {
  if (segment.sealed) throw new RangeError("Cannot append to cache: the segment is sealed");
  const [kvHeads, capacity, headDim] = segment.keys.shape as readonly [number, number, number];
  const n = k.shape[0] as number;
  for (const { shape, dtype } of [k, v]) {
    if (dtype !== "f32" || shape.length !== 3 || shape[0] !== n || shape[1] !== kvHeads || shape[2] !== headDim) {
      throw new RangeError(`Cannot append to cache: ${dtype} [${shape}], expected f32 [${n},${kvHeads},${headDim}]`);
    }
  }
  if (!Number.isInteger(row) || row < 0 || row + n > capacity) {
    throw new RangeError(`Cannot append to cache: rows ${row} to ${row + n}, the segment has room for ${capacity}`);
  }
}
