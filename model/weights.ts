/**
 * Weights of a model file on a backend: each tensor is streamed in pieces into its own memory, where the backend repacks
 * it, so that the file's bytes are never in memory twice.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import { byteLength, isBlockType } from "../core/dtype.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import type { Weights } from "./model.ts";
import { badFile, quoted, type TensorEntry } from "./open_source.ts";

/** Where a weight lies and how it is stored. */
export interface WeightEntry extends TensorEntry {
  /** The file stores `w` where kernels want `1 + w` (norms of Gemma in `transformers`' files). */
  readonly addOne?: boolean;
  /** The architecture may leave it unused: it says what another tensor says, or what the configuration took from it. */
  readonly optional?: boolean;
}

/** How weights are loaded. */
export interface WeightOptions {
  /** Shown in errors. */
  readonly path: string;
  /** Bytes of the file, loaded and in all. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Nothing is read: all numbers are 0. What they take, and cost to compute with, is the same. */
  readonly isBlank?: boolean;
  /** Looked at between pieces; an `AbortSignal`, or a getter over memory that another thread writes. */
  readonly signal?: { readonly aborted: boolean };
}

/** Measured: loading is 20 % slower with 1 MiB (threads meet more often), the same with 8 MiB. */
const PIECE_BYTES = 4 << 20;
/** Backends repack groups of rows: pieces hold whole groups. */
const GROUP_ROWS = 32;

/**
 * Loads tensors as they are asked for; disposing frees them all.
 *
 * Tensors of one dimension (norms, biases) become f32; matrices keep the file's type.
 */
export class FileWeights implements Weights, Disposable {
  readonly #loaded = new Map<string, Tensor>();
  readonly #total: number;
  #done = 0;
  #reported = 0;
  #buffer = new Uint8Array(0);

  /** `entries` by GGUF's canonical names; their sources stay open until loading is done. */
  constructor(
    readonly backend: Backend,
    readonly entries: ReadonlyMap<string, WeightEntry>,
    readonly options: WeightOptions,
  ) {
    let total = 0;
    for (const entry of entries.values()) if (entry.optional !== true) total += entry.bytes;
    this.#total = total;
  }

  /** Numbers in the tensors that were asked for. */
  get numParams(): number {
    let sum = 0;
    for (const { shape } of this.#loaded.values()) sum += shape.reduce((a, b) => a * b, 1);
    return sum;
  }

  /** Whether the file has tensor `name`. */
  has(name: string): boolean {
    return this.entries.has(name);
  }

  /**
   * Tensor `name` on the backend; a second call gives the same one.
   *
   * Throws `ModelFileError` when it is missing or has another shape, and the signal's reason (`AbortError`) when aborted.
   */
  get(name: string, shape: Shape): Tensor {
    const entry = this.entries.get(name);
    if (entry === undefined) throw badFile(this.options.path, `tensor ${quoted(name)} is missing`);
    if (entry.shape.length !== shape.length || entry.shape.some((d, i) => d !== shape[i])) {
      throw badFile(
        entry.source.path,
        `tensor ${quoted(name)} has shape [${entry.shape.join(", ")}], [${shape.join(", ")}] expected`,
      );
    }
    const known = this.#loaded.get(name);
    if (known !== undefined) return known;
    const tensor = this.backend.alloc(shape, loadedType(name, entry), "model");
    this.#loaded.set(name, tensor);
    if (shape.length === 1) this.backend.write(tensor, this.#vector(entry));
    else this.#matrix(tensor, entry);
    this.#report(entry);
    return tensor;
  }

  /**
   * To be called once the model is built: throws `ModelFileError` when the file has tensors that nobody asked for, since
   * then its architecture is not quite the one it is taken for.
   */
  finish(): void {
    this.#buffer = new Uint8Array(0);
    const unused = [...this.entries].filter(([name, e]) => e.optional !== true && !this.#loaded.has(name));
    if (unused.length === 0) return;
    const [first] = unused[0] as [string, WeightEntry];
    const more = unused.length === 1 ? "" : ` and ${unused.length - 1} more`;
    throw badFile(this.options.path, `tensor ${quoted(first)}${more} not known to this architecture`);
  }

  /** Frees all tensors. */
  [Symbol.dispose](): void {
    for (const tensor of this.#loaded.values()) this.backend.free(tensor);
    this.#loaded.clear();
    this.#buffer = new Uint8Array(0);
  }

  #matrix(tensor: Tensor, entry: WeightEntry): void {
    const rowBytes = byteLength([entry.shape.at(-1) as number], entry.dtype);
    const rows = entry.bytes / rowBytes;
    const step = Math.max(GROUP_ROWS, Math.floor(PIECE_BYTES / rowBytes / GROUP_ROWS) * GROUP_ROWS);
    for (let row = 0; row < rows; row += step) {
      this.#checkSignal();
      const piece = this.#read(entry, row * rowBytes, Math.min(step, rows - row) * rowBytes);
      this.backend.write(tensor, piece, row);
    }
  }

  #vector(entry: WeightEntry): Float32Array<ArrayBuffer> {
    this.#checkSignal();
    const raw = this.#read(entry, 0, entry.bytes);
    const out = widen(raw, entry.dtype);
    if (entry.addOne === true) { for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + 1; }
    return out;
  }

  #read(entry: WeightEntry, offset: number, bytes: number): Uint8Array<ArrayBuffer> {
    if (this.#buffer.length < bytes) this.#buffer = new Uint8Array(Math.max(bytes, Math.min(PIECE_BYTES, this.#total)));
    const into = this.#buffer.subarray(0, bytes);
    if (this.options.isBlank === true) into.fill(0);
    else entry.source.readAt(entry.offset + offset, into);
    return into;
  }

  #checkSignal(): void {
    const { signal } = this.options;
    if (signal?.aborted !== true) return;
    throw signal instanceof AbortSignal ? signal.reason : new DOMException("Loading was cancelled", "AbortError");
  }

  #report(entry: WeightEntry): void {
    if (entry.optional !== true) this.#done += entry.bytes;
    if (this.#done - this.#reported < this.#total / 200 && this.#done < this.#total) return;
    this.#reported = this.#done;
    this.options.onProgress?.(this.#done, this.#total);
  }
}

function loadedType(name: string, entry: WeightEntry): DType {
  if (entry.dtype === "i8" || entry.dtype === "i32" || (entry.shape.length === 1 && isBlockType(entry.dtype))) {
    throw badFile(
      entry.source.path,
      `tensor ${quoted(name)} has type ${entry.dtype.toUpperCase()}, which is no weight type`,
    );
  }
  return entry.shape.length === 1 ? "f32" : entry.dtype;
}

/** A plain vector as f32. `raw` begins at an offset of 0, so that views of it are aligned. */
function widen(raw: Uint8Array<ArrayBuffer>, dtype: DType): Float32Array<ArrayBuffer> {
  switch (dtype) {
    case "f32":
      return new Float32Array(raw.slice().buffer);
    case "f16":
      return Float32Array.from(new Float16Array(raw.buffer, raw.byteOffset, raw.length / 2));
    default: {
      const halves = new Uint16Array(raw.buffer, raw.byteOffset, raw.length / 2);
      const out = new Uint32Array(halves.length);
      for (let i = 0; i < halves.length; i++) out[i] = (halves[i] as number) << 16;
      return new Float32Array(out.buffer);
    }
  }
}
