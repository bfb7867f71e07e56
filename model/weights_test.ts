import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import { openBackend } from "../backends/mod.ts";
import { byteLength } from "../core/dtype.ts";
import { ModelFileError } from "../core/errors.ts";
import type { DType, Shape } from "../core/tensor.ts";
import { MemorySource } from "./open_source.ts";
import { FileWeights, type WeightEntry, type WeightOptions } from "./weights.ts";

function entry(
  dtype: DType,
  shape: Shape,
  data: ArrayBufferView<ArrayBuffer>,
  rest: Partial<WeightEntry> = {},
): WeightEntry {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const padded = new Uint8Array(bytes.length + 3);
  padded.set(bytes, 3);
  return { dtype, shape, source: new MemorySource("w.bin", padded), offset: 3, bytes: bytes.length, ...rest };
}

function weights(
  entries: Record<string, WeightEntry>,
  options: Partial<WeightOptions> = {},
  backend = openBackend("reference"),
) {
  return new FileWeights(backend, new Map(Object.entries(entries)), { path: "w.bin", ...options });
}

const read = (w: FileWeights, name: string, shape: Shape) => [...w.backend.read(w.get(name, shape))];

describe("FileWeights", () => {
  it("widens vectors of every plain type to f32, adding one where the file leaves it out", () => {
    using w = weights({
      a: entry("f32", [3], new Float32Array([1, -2, 0.5])),
      b: entry("f16", [3], new Float16Array([1, -2, 0.5])),
      c: entry("bf16", [3], new Uint16Array([0x3f80, 0xc000, 0x3f00])),
      d: entry("bf16", [3], new Uint16Array([0x3f80, 0xc000, 0x3f00]), { addOne: true }),
    });
    for (const name of ["a", "b", "c"]) assertEquals(read(w, name, [3]), [1, -2, 0.5]);
    assertEquals(read(w, "d", [3]), [2, -1, 1.5]);
    assertEquals(w.get("c", [3]).dtype, "f32");
  });

  it("streams matrices in pieces of whole row groups", () => {
    // 2700 rows of 1000 f32: 10.8 MB, three pieces.
    const data = Float32Array.from({ length: 2_700_000 }, (_, i) => i);
    const rows: [number, number][] = [];
    const inner = openBackend("reference");
    const backend = new Proxy(inner, {
      get(target, key) {
        if (key === "write") {
          return (dst: Parameters<Backend["write"]>[0], src: ArrayBufferView<ArrayBuffer>, row = 0) => {
            rows.push([row, src.byteLength / 4000]);
            target.write(dst, src, row);
          };
        }
        const value = Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    using w = weights({ m: entry("f32", [2700, 1000], data) }, {}, backend);
    w.get("m", [2700, 1000]);
    assertEquals(rows.map(([row]) => row % 32), rows.map(() => 0));
    assertEquals(rows.reduce((sum, [, count]) => sum + count, 0), 2700);
    assert(rows.length === 3 && rows.every(([, count]) => count * 4000 <= 4 << 20), JSON.stringify(rows));
  });

  it("gives the same tensor twice, and frees all when disposed", () => {
    const backend = openBackend("reference");
    const w = weights({ m: entry("q8_0", [2, 32], new Uint8Array(byteLength([2, 32], "q8_0"))) }, {}, backend);
    assertEquals(w.get("m", [2, 32]), w.get("m", [2, 32]));
    assert(backend.bytes > 0);
    w[Symbol.dispose]();
    assertEquals(backend.bytes, 0);
  });

  it("refuses missing tensors, other shapes and types that are no weights", () => {
    using w = weights({
      m: entry("f32", [2, 3], new Float32Array(6)),
      i: entry("i32", [2], new Int32Array(2)),
      q: entry("q8_0", [32], new Uint8Array(34)),
    });
    assertThrows(() => w.get("x", [2]), ModelFileError, 'tensor "x" is missing (w.bin)');
    assertThrows(() => w.get("m", [3, 2]), ModelFileError, 'tensor "m" has shape [2, 3], [3, 2] expected');
    assertThrows(() => w.get("i", [2]), ModelFileError, "type I32, which is no weight type");
    assertThrows(() => w.get("q", [32]), ModelFileError, "type Q8_0");
  });

  it("reports tensors that nobody asked for, but optional ones", () => {
    using w = weights({
      a: entry("f32", [1], new Float32Array(1)),
      b: entry("f32", [1], new Float32Array(1)),
      c: entry("f32", [1], new Float32Array(1), { optional: true }),
    });
    w.get("a", [1]);
    assertThrows(() => w.finish(), ModelFileError, 'tensor "b" not known to this architecture');
    w.get("b", [1]);
    w.finish();
  });

  it("reports progress up to the end and stops when told", () => {
    const seen: number[][] = [];
    const signal = { aborted: false };
    const entries = { a: entry("f32", [4, 4], new Float32Array(16)), b: entry("f32", [4], new Float32Array(4)) };
    using w = weights(entries, { signal, onProgress: (done, total) => seen.push([done, total]) });
    w.get("a", [4, 4]);
    assertEquals(seen, [[64, 80]]);
    signal.aborted = true;
    assertThrows(() => w.get("b", [4]), DOMException, "cancelled");
  });
});
