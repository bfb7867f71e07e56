/**
 * Files of tensors that lie on a device: rows are copied through the host, whose library writes and maps the file.
 *
 * @module
 */
import type { Backend, TensorFile, TensorFiles, TensorFileWriter } from "./backend.ts";
import type { Tensor } from "../core/tensor.ts";
import { byteLength } from "../core/dtype.ts";
import { Unsupported } from "../core/errors.ts";
import { copyHeadRows, headBytes, readRows } from "./head_rows.ts";

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
      return writerOf(device, host, files.create(path));
    },
    open(path) {
      const { host, files } = open();
      return fileOf(device, host, files.open(path));
    },
  };
}

function writerOf(device: Backend, host: Backend, file: TensorFileWriter): TensorFileWriter {
  const bring = (tensor: Tensor, count: number) =>
    copyHeadRows(device, host, tensor, { at: 0, count }, "sequence", new Uint8Array(headBytes(tensor, count)));
  return {
    add: (name, data) => file.add(name, data),
    addRows(name, tensors, counts) {
      const copies: Tensor[] = [];
      try {
        for (const [i, tensor] of tensors.entries()) copies.push(bring(tensor, counts[i] as number));
        file.addRows(name, copies, counts);
      } finally {
        for (const copy of copies) host.free(copy);
      }
    },
    addForeign: (name, write) => file.addForeign(name, write),
    commit: () => file.commit(),
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

function fileOf(device: Backend, host: Backend, file: TensorFile): TensorFile {
  return {
    verify: () => file.verify(),
    find: (name) => file.find(name),
    read: (name) => file.read(name),
    map(name, shape, dtype) {
      const mapped = file.map(name, shape, dtype);
      try {
        return toDevice(device, host, mapped);
      } finally {
        host.free(mapped);
      }
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** A copy of the host's. */
function toDevice(device: Backend, host: Backend, mapped: Tensor): Tensor {
  const { shape, dtype } = mapped;
  const tensor = device.alloc(shape, dtype, "sequence");
  try {
    const rowBytes = byteLength(shape.slice(-1), dtype);
    const rows = rowBytes === 0 ? 0 : byteLength(shape, dtype) / rowBytes;
    const some = Math.max(1, Math.floor(PIECE / Math.max(1, rowBytes)));
    for (let row = 0; row < rows; row += some) {
      const piece = new Uint8Array(Math.min(some, rows - row) * rowBytes);
      readRows(host, mapped, row, piece);
      device.write(tensor, piece, row);
    }
    return tensor;
  } catch (error) {
    device.free(tensor);
    throw error;
  }
}
