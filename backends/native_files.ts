/**
 * Files of tensors of a native context: ids and names in, a status out.
 *
 * @module
 */
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import type { TensorFile, TensorFiles, TensorFileWriter } from "./backend.ts";
import { type Context, cString, errorOf, fromCString, type Library } from "./ffi.ts";
import { checkShape } from "./shape.ts";

/** Longest path that systems know, and then some. */
const MAX_PATH = 8192;

/** What the backend lends. */
export interface FilesOwner {
  /** The context, or throws once it is gone. */
  open(): Context;
  /** Of a tensor of this backend. */
  id(tensor: Tensor, what: string): number;
  /** A tensor object for an id that the library made. */
  adopt(dtype: DType, shape: Shape, id: number): Tensor;
  /** The library's number of an element type. */
  code(dtype: DType): number;
}

/** See {@link TensorFiles}. */
export function nativeFiles(library: Library, owner: FilesOwner): TensorFiles {
  const make = (call: (context: Context, out: Uint32Array<ArrayBuffer>) => number) => {
    const out = new Uint32Array(1);
    const status = call(owner.open(), out);
    if (status !== 0) throw errorOf(library, status);
    return out[0] as number;
  };
  const { symbols } = library;
  return {
    create: (path) => new Writer(library, owner, make((c, out) => symbols.kvasir_file_create(c, out, cString(path)))),
    open: (path) => new Opened(library, owner, make((c, out) => symbols.kvasir_file_open(c, out, cString(path)))),
  };
}

/** What both kinds of file are: an id that ends. */
class NativeFile implements Disposable {
  protected readonly library: Library;
  protected readonly owner: FilesOwner;
  #id: number;

  constructor(library: Library, owner: FilesOwner, id: number) {
    this.library = library;
    this.owner = owner;
    this.#id = id;
  }

  protected run(call: (context: Context, id: number) => number): void {
    const status = call(this.owner.open(), this.#id);
    if (status !== 0) throw errorOf(this.library, status);
  }

  [Symbol.dispose](): void {
    if (this.#id === 0) return;
    const id = this.#id;
    this.#id = 0;
    const status = this.library.symbols.kvasir_file_close(this.owner.open(), id);
    if (status !== 0) throw errorOf(this.library, status);
  }
}

class Writer extends NativeFile implements TensorFileWriter {
  add(name: string, data: Uint8Array<ArrayBuffer>): void {
    const { symbols } = this.library;
    this.run((c, id) => symbols.kvasir_file_add(c, id, cString(name), data, data.length));
  }

  addRows(name: string, tensors: readonly Tensor[], counts: readonly number[]): void {
    const { symbols } = this.library;
    const ids = Uint32Array.from(tensors, (t) => this.owner.id(t, "tensor to save"));
    this.run((c, id) => symbols.kvasir_file_add_rows(c, id, cString(name), ids, Int32Array.from(counts), ids.length));
  }

  addForeign(name: string, write: (path: string, offset: number) => number): void {
    const { symbols } = this.library;
    const offset = new Float64Array(1);
    const path = new Uint8Array(MAX_PATH);
    this.run((c, id) => symbols.kvasir_file_begin(c, id, offset, path, path.length, cString(name)));
    const bytes = write(fromCString(path), offset[0] as number);
    this.run((c, id) => symbols.kvasir_file_end(c, id, bytes));
  }

  commit(): void {
    this.run((c, id) => this.library.symbols.kvasir_file_commit(c, id));
  }
}

class Opened extends NativeFile implements TensorFile {
  verify(): void {
    this.run((c, id) => this.library.symbols.kvasir_file_verify(c, id));
  }

  find(name: string): { readonly offset: number; readonly bytes: number } {
    const place = new Float64Array(2);
    this.run((c, id) => this.library.symbols.kvasir_file_find(c, id, place, cString(name)));
    return { offset: place[0] as number, bytes: place[1] as number };
  }

  read(name: string): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.find(name).bytes);
    this.run((c, id) => this.library.symbols.kvasir_file_read(c, id, out, out.length, cString(name)));
    return out;
  }

  map(name: string, shape: Shape, dtype: DType): Tensor {
    checkShape("map tensor", shape, dtype);
    const out = new Uint32Array(1);
    const { symbols } = this.library;
    this.run((c, id) =>
      symbols.kvasir_tensor_map(c, out, id, cString(name), this.owner.code(dtype), shape.length, Int32Array.from(shape))
    );
    return this.owner.adopt(dtype, shape, out[0] as number);
  }
}
