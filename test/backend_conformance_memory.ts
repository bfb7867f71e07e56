/**
 * Conformance: memory, lifetimes, and what must be refused.
 *
 * @module
 */
import type { DType } from "../core/tensor.ts";
import { NativeError, Unsupported } from "../core/errors.ts";
import { ReferenceBackend } from "../backends/reference.ts";
import { type Bench, type Case, check, same } from "./backend_conformance.ts";
import { Random } from "./backend_conformance_twin.ts";

const PLAIN: readonly DType[] = ["f32", "f16", "bf16", "i32", "i8"];

function bytesOf(dtype: DType, count: number): Uint8Array<ArrayBuffer> {
  const random = new Random(count);
  if (dtype === "f32") return new Uint8Array(random.floats(count).buffer);
  if (dtype === "i32") return new Uint8Array(Int32Array.from({ length: count }, () => random.int(2e9) - 1e9).buffer);
  if (dtype === "i8") return Uint8Array.from({ length: count }, () => random.int(256));
  // Small numbers of either format; the widening below reads them back from the same bits.
  return new Uint8Array(Uint16Array.from({ length: count }, () => 0x3800 + random.int(0x300)).buffer);
}

function widen(dtype: DType, bytes: Uint8Array<ArrayBuffer>): ArrayLike<number> {
  if (dtype === "f32") return new Float32Array(bytes.buffer);
  if (dtype === "i32") return new Int32Array(bytes.buffer);
  if (dtype === "i8") return new Int8Array(bytes.buffer);
  if (dtype === "f16") return new Float16Array(bytes.buffer);
  return new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), (b) => b << 16).buffer);
}

function roundTrip(dtype: DType): Case {
  return {
    name: `memory: ${dtype} is read as it was written`,
    run(at) {
      for (const shape of [[1], [3], [97], [3, 129], [3, 5, 7], [2, 3, 1, 5], [0], [0, 3], [3, 0]]) {
        const count = shape.reduce((a, b) => a * b, 1);
        const bytes = bytesOf(dtype, count);
        for (const life of ["step", "sequence"] as const) {
          const got = at.read(at.tensor(shape, dtype, bytes, life));
          check(got instanceof (dtype[0] === "i" ? Int32Array : Float32Array), "read() gives f32 or i32");
          same(got, widen(dtype, bytes), `[${shape}]`);
        }
      }
    },
  };
}

/** Every plain way of misusing a tensor that belongs to nobody here. */
function refuses(at: Bench, tensor: ReturnType<Bench["floats"]>, text: string): void {
  const { backend } = at;
  const x = at.floats([4], new Float32Array(4));
  at.throws(() => backend.kernels.add(x, x, tensor), text);
  at.throws(() => backend.kernels.add(tensor, x, x), text);
  at.throws(() => backend.read(tensor), text);
  at.throws(() => backend.write(tensor, new Float32Array(4)), text);
  at.throws(() => backend.view(tensor, [2]), text);
}

export const memoryCases: readonly Case[] = [
  ...PLAIN.map(roundTrip),
  {
    name: "memory: rows are written where they belong, from unaligned bytes",
    run(at) {
      const x = at.floats([5, 3], new Float32Array(15));
      const rows = Float32Array.of(1, 2, 3, 4, 5, 6);
      const odd = new Uint8Array(new ArrayBuffer(25), 1);
      odd.set(new Uint8Array(rows.buffer));
      at.backend.write(x, odd, 2);
      at.backend.write(x, Float32Array.of(7, 8, 9), 4);
      at.backend.write(x, new Float32Array(0), 5);
      same(at.read(x), [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "rows");
      at.throws(() => at.backend.write(x, new Float32Array(3), 5), "");
      at.throws(() => at.backend.write(x, new Float32Array(18)), "");
      at.throws(() => at.backend.write(x, new Float32Array(2)), "whole rows");
      at.throws(() => at.backend.write(x, new Float32Array(3), -1), "");
      at.throws(() => at.backend.write(x, new Float32Array(3), 0.5), "");
    },
  },
  {
    name: "memory: rows are copied out as they are stored",
    run(at) {
      const { backend } = at;
      if (backend.readRows === undefined) throw new Unsupported("Cannot read rows: the backend has no way to");
      for (const dtype of PLAIN) {
        const bytes = bytesOf(dtype, 5 * 2 * 3);
        const x = at.tensor([5, 2, 3], dtype, bytes, "sequence");
        const rowBytes = bytes.length / 10;
        for (const [row, rows] of [[0, 10], [3, 4], [9, 1], [10, 0]] as const) {
          const out = new Uint8Array(rows * rowBytes);
          backend.readRows(x, row, out);
          same(out, bytes.subarray(row * rowBytes, (row + rows) * rowBytes), `${dtype} from row ${row}`);
        }
        for (const [row, rows] of [[8, 3], [11, 0], [-1, 1], [0.5, 1]] as const) {
          at.throws(() => backend.readRows?.(x, row, new Uint8Array(rows * rowBytes)), "read tensor");
        }
      }
    },
  },
  {
    name: "memory: views share it, at any offset",
    run(at) {
      const x = at.floats([2, 6], Float32Array.from({ length: 12 }, (_, i) => i));
      const y = at.backend.view(x, [2, 3], 5);
      same(at.read(y), [5, 6, 7, 8, 9, 10], "view");
      const z = at.backend.view(y, [2], 1);
      at.backend.write(z, Float32Array.of(-1, -2));
      same(at.read(x), [0, 1, 2, 3, 4, 5, -1, -2, 8, 9, 10, 11], "whole");
      same(at.read(at.backend.view(x, [0, 4], 12)), [], "empty view at the end");
      for (const [shape, offset] of [[[13], 0], [[2], 11], [[1], -1], [[1], 0.5], [[1], NaN]] as const) {
        at.throws(() => at.backend.view(x, shape, offset), "view");
      }
    },
  },
  {
    name: "memory: invalid shapes are refused",
    run(at) {
      for (const shape of [[], [1, 1, 1, 1, 1], [-1], [1.5], [NaN], [2 ** 31], [2 ** 30, 2 ** 30]]) {
        for (const life of ["model", "sequence", "step"] as const) {
          at.throws(() => at.backend.alloc(shape, "f32", life), "allocate", [RangeError, NativeError]);
        }
      }
      at.throws(() => at.backend.alloc([4, 48], "q4_0", "model"), "whole blocks");
      at.throws(() => at.backend.alloc([4], "f33" as DType, "model"), "f33");
    },
  },
  {
    name: "memory: bytes count what lives, free is idempotent",
    run(at) {
      const before = at.backend.bytes;
      const x = at.tensor([1000, 3], "f32", undefined, "sequence");
      check(at.backend.bytes - before >= 12000, `${at.backend.bytes - before} bytes for 12000`);
      const counted = at.backend.bytes;
      at.floats([1 << 16]);
      check(at.backend.bytes === counted, "step memory is not counted");
      at.backend.free(x);
      at.backend.free(x);
      check(at.backend.bytes === before, "free() gives bytes back");
      at.throws(() => at.backend.free(at.floats([1])), "step");
    },
  },
  {
    name: "memory: steps and scopes repeat without growing",
    run(at) {
      const { backend } = at;
      for (let step = 0; step < 6; step++) {
        const n = [1, 1, 33, 1, 33, 0][step] as number;
        const kept = at.floats([n, 4], new Float32Array(4 * n).fill(step));
        for (let layer = 0; layer < 3; layer++) {
          const mark = backend.mark();
          const x = at.floats([n, 4], new Float32Array(4 * n).fill(layer));
          const y = at.floats([n, 4]);
          backend.kernels.add(y, x, kept);
          same(at.read(backend.view(y, [4 * n])), new Float32Array(4 * n).fill(step + layer), "sum");
          backend.release(mark);
        }
        same(at.read(kept), new Float32Array(4 * n).fill(step), "outer");
        backend.endStep();
      }
      at.throws(() => backend.release(99), "mark");
    },
  },
  {
    name: "memory: another backend's tensors are refused",
    run(at) {
      using other = new ReferenceBackend();
      refuses(at, other.alloc([4], "f32", "step"), "another backend");
      at.throws(() => at.backend.free(other.alloc([4], "f32", "sequence")), "another backend");
      using twin = at.subject.open();
      refuses(at, twin.alloc([4], "f32", "step"), "another backend");
    },
  },
  {
    name: "memory: freed tensors and views of them are refused",
    run(at) {
      const x = at.tensor([4], "f32", new Float32Array(4), "sequence");
      const view = at.backend.view(x, [2, 2]);
      at.backend.free(x);
      refuses(at, x, "");
      at.throws(() => at.read(view), "");
      at.throws(() => at.backend.kernels.add(view, view, view), "");
    },
  },
  {
    name: "memory: a matrix of weights is no activation",
    run(at) {
      const { backend } = at;
      // Some backends keep weights as they are: nothing to refuse, but nothing may crash either.
      const weight = at.tensor([4, 32], "f32", new Float32Array(128), "model");
      const x = at.floats([4, 32], new Float32Array(128));
      for (const use of [() => backend.kernels.add(weight, x, x), () => backend.kernels.add(x, weight, x)]) {
        try {
          use();
        } catch (error) {
          check(error instanceof RangeError, `expected RangeError, got ${error}`);
        }
      }
    },
  },
  {
    name: "memory: a disposed backend refuses everything",
    run(at) {
      const backend = at.subject.open();
      const x = backend.alloc([4], "f32", "step");
      const w = backend.alloc([4], "f32", "model");
      const gone = [Error];
      backend[Symbol.dispose]();
      backend[Symbol.dispose]();
      at.throws(() => backend.alloc([4], "f32", "step"), "disposed", gone);
      at.throws(() => backend.alloc([4], "f32", "model"), "disposed", gone);
      at.throws(() => backend.kernels.add(x, x, w), "disposed", gone);
      at.throws(() => backend.read(x), "disposed", gone);
      at.throws(() => backend.write(w, new Float32Array(4)), "disposed", gone);
      at.throws(() => backend.view(w, [2]), "disposed", gone);
      backend.free(w);
      backend.endStep();
      check(backend.bytes === 0, "nothing lives");
    },
  },
];
