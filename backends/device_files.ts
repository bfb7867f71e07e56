/**
 * Files of tensors that lie on a device: rows are copied through the host, whose library writes and maps the file.
 *
 * @module
 */
import type { Backend, TensorFile, TensorFiles, TensorFileWriter } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { byteLength } from "../core/dtype.ts";
import { Unsupported } from "../core/errors.ts";

/** Bytes that are brought back to the device at once. */
const PIECE = 2 ** 23;

/** Files for `device`, which must read rows. `openHost` opens a backend with files, at the first use; it ends with the device. */
export function deviceFiles(device: Backend, openHost: () => Backend): TensorFiles {
  let opened: { readonly host: Backend; readonly files: TensorFiles } | undefined;
  const open = () => {
    if (opened !== undefined) return opened;
    const host = openHost();
    if (host.files === undefined) throw new Unsupported(`Cannot keep files: backend "${host.spec}" has none`);
    device.host?.attach(host);
    return opened = { host, files: host.files };
  };
  return {
    create(path) {
      const { host, files } = open();
      return new Writer(device, host, files.create(path));
    },
    open(path) {
      const { host, files } = open();
      return new Opened(device, host, files.open(path));
    },
  };
}

class Writer implements TensorFileWriter {
  readonly #device: Backend;
  readonly #host: Backend;
  readonly #file: TensorFileWriter;

  constructor(device: Backend, host: Backend, file: TensorFileWriter) {
    this.#device = device;
    this.#host = host;
    this.#file = file;
  }

  add(name: string, data: Uint8Array<ArrayBuffer>): void {
    this.#file.add(name, data);
  }

  addRows(name: string, tensors: readonly Tensor[], counts: readonly number[]): void {
    const copies: Tensor[] = [];
    try {
      for (const [i, tensor] of tensors.entries()) copies.push(this.#bring(tensor, counts[i] as number));
      this.#file.addRows(name, copies, counts);
    } finally {
      for (const copy of copies) this.#host.free(copy);
    }
  }

  addForeign(name: string, write: (path: string, offset: number) => number): void {
    this.#file.addForeign(name, write);
  }

  commit(): void {
    this.#file.commit();
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }

  /** The first `count` rows of each head, on the host. */
  #bring(tensor: Tensor, count: number): Tensor {
    const [heads = 0, capacity = 0, ...rest] = tensor.shape;
    const copy = this.#host.alloc([heads, count, ...rest], tensor.dtype, "sequence");
    try {
      // Scales have a number a row: what counts as one is then a head's.
      const isFlat = rest.length === 0;
      const all = new Uint8Array(byteLength([isFlat ? capacity : count, ...rest], tensor.dtype));
      const wanted = all.subarray(0, byteLength([count, ...rest], tensor.dtype));
      for (let head = 0; head < heads && count > 0; head++) {
        readRows(this.#device, tensor, isFlat ? head : head * capacity, all);
        this.#host.write(copy, wanted, isFlat ? head : head * count);
      }
      return copy;
    } catch (error) {
      this.#host.free(copy);
      throw error;
    }
  }
}

class Opened implements TensorFile {
  readonly #device: Backend;
  readonly #host: Backend;
  readonly #file: TensorFile;

  constructor(device: Backend, host: Backend, file: TensorFile) {
    this.#device = device;
    this.#host = host;
    this.#file = file;
  }

  verify(): void {
    this.#file.verify();
  }

  find(name: string): { readonly offset: number; readonly bytes: number } {
    return this.#file.find(name);
  }

  read(name: string): Uint8Array<ArrayBuffer> {
    return this.#file.read(name);
  }

  /** A copy on the device. */
  map(name: string, shape: Shape, dtype: DType): Tensor {
    const mapped = this.#file.map(name, shape, dtype);
    try {
      const tensor = this.#device.alloc(shape, dtype, "sequence");
      try {
        const rowBytes = byteLength(shape.slice(-1), dtype);
        const rows = rowBytes === 0 ? 0 : byteLength(shape, dtype) / rowBytes;
        const some = Math.max(1, Math.floor(PIECE / Math.max(1, rowBytes)));
        for (let row = 0; row < rows; row += some) {
          const piece = new Uint8Array(Math.min(some, rows - row) * rowBytes);
          readRows(this.#host, mapped, row, piece);
          this.#device.write(tensor, piece, row);
        }
        return tensor;
      } catch (error) {
        this.#device.free(tensor);
        throw error;
      }
    } finally {
      this.#host.free(mapped);
    }
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function readRows(from: Backend, tensor: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void {
  if (from.readRows === undefined) throw new Unsupported(`Cannot copy rows: backend "${from.spec}" has no way to`);
  from.readRows(tensor, row, out);
}
