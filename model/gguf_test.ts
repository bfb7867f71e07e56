import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ModelFileError } from "../core/errors.ts";
import {
  type Field,
  ggufFields,
  serialize,
  type TensorSpec,
  tinyMetadata,
  tinyTensors,
  type Value,
} from "../test/fuzz_files_build.ts";
import { joinParts, openGguf, parseGguf, splitPaths } from "./gguf.ts";
import { GgufStrings } from "./gguf_strings.ts";
import { MemorySource } from "./open_source.ts";

function parse(metadata: [string, Value][], tensors: TensorSpec[] = [], version = 3) {
  return parseGguf(new MemorySource("x.gguf", serialize(ggufFields(metadata, tensors, version))));
}

function refusal(fields: readonly Field[], length?: number): string {
  const bytes = serialize(fields);
  return assertThrows(() => parseGguf(new MemorySource("x.gguf", bytes.slice(0, length))), ModelFileError).message;
}

const u32 = (value: number): Field => ({ kind: "u32", value });
const u64 = (value: bigint): Field => ({ kind: "u64", value });
const text = (value: string): Field => ({ kind: "string", value: new TextEncoder().encode(value) });
const header = (tensors: bigint, keys: bigint): Field[] => [u32(0x46554747), u32(3), u64(tensors), u64(keys)];

describe("parseGguf()", () => {
  it("reads metadata of every kind and tensors, versions 2 and 3", () => {
    for (const version of [2, 3]) {
      const metadata: [string, Value][] = [
        ["a.u32", { u32: 7 }],
        ["a.f32", { f32: 0.5 }],
        ["a.u64", { u64: 2n ** 60n }],
        ["a.small", { u64: 12n }],
        ["a.bool", { bool: true }],
        ["a.text", { text: "héllo\u0000 \ufeff" }],
        ["a.texts", { texts: ["", "ab", "é▁😀", "c"] }],
        ["a.f32s", { f32s: [1, -2.5] }],
      ];
      const file = parse(metadata, [
        { name: "w", dtype: "f16", shape: [3, 5] },
        { name: "v", dtype: "q4_0", shape: [2, 32] },
      ], version);
      assertEquals(file.version, version);
      assertEquals(file.metadata.get("a.u32"), 7);
      assertEquals(file.metadata.get("a.f32"), 0.5);
      assertEquals(file.metadata.get("a.u64"), 2n ** 60n);
      assertEquals(file.metadata.get("a.small"), 12);
      assertEquals(file.metadata.get("a.bool"), true);
      assertEquals(file.metadata.get("a.text"), "héllo\u0000 \ufeff");
      assertEquals((file.metadata.get("a.texts") as GgufStrings).toArray(), ["", "ab", "é▁😀", "c"]);
      assertEquals(file.metadata.get("a.f32s"), new Float32Array([1, -2.5]));
      const w = file.tensors.get("w"), v = file.tensors.get("v");
      assertEquals([w?.shape, w?.dtype, w?.offset, w?.bytes], [[3, 5], "f16", file.dataOffset, 30]);
      assertEquals([v?.shape, v?.dtype, v?.offset, v?.bytes], [[2, 32], "q4_0", file.dataOffset + 32, 36]);
    }
  });

  it("reads headers longer than its window", () => {
    const texts = Array.from({ length: 40_000 }, (_, i) => `token${i}`.padEnd(i % 23, "▁"));
    const file = parse([["a.texts", { texts }], ["a.long", { text: "x".repeat(600_000) }], ["a.last", { u32: 1 }]]);
    assertEquals((file.metadata.get("a.texts") as GgufStrings).toArray(), texts);
    assertEquals((file.metadata.get("a.long") as string).length, 600_000);
    assertEquals(file.metadata.get("a.last"), 1);
  });

  it("says where a file ends too early", () => {
    const fields = ggufFields(tinyMetadata(), tinyTensors());
    const size = serialize(fields).length;
    assertStringIncludes(
      refusal(fields, size - 1),
      `file ends at byte ${size - 1}, tensor "blk.0.ffn_down.weight" needs`,
    );
    // Whatever the byte: one clear refusal.
    for (let length = 0; length < size; length += 7) {
      assert(/^Cannot open model: [^\n]+ \(x\.gguf\)$/.test(refusal(fields, length)), `cut at ${length}`);
    }
  });

  it("refuses what is no GGUF, other versions and big-endian files", () => {
    assertStringIncludes(refusal([u32(0x04034b50), u64(0n), u64(0n), u64(0n)]), "not a GGUF file");
    assertStringIncludes(refusal([u32(0x46554747), u32(1), u64(0n), u64(0n)]), "GGUF version 1");
    assertStringIncludes(refusal([u32(0x46554747), u32(0x03000000), u64(0n), u64(0n)]), "big-endian");
  });

  it("refuses counts and lengths that the file cannot hold", () => {
    assertStringIncludes(refusal(header(2n ** 62n, 0n)), "tensor count");
    assertStringIncludes(refusal(header(0n, 2n ** 64n - 1n)), "metadata count");
    const pad: Field = { kind: "bytes", value: new Uint8Array(64) };
    assertStringIncludes(refusal([...header(0n, 1n), u64(2n ** 53n), pad]), "length of metadata key 0");
    assertStringIncludes(refusal([...header(0n, 1n), text("k"), u32(9), u32(4), u64(2n ** 40n), pad]), '"k"');
    assertStringIncludes(refusal([...header(0n, 1n), text("k"), u32(9), u32(8), u64(3n), u64(1n << 40n), pad]), '"k"');
  });

  it("refuses deep nesting, unknown value types and doubled keys", () => {
    const nested = Array.from({ length: 9 }, () => [u32(9), u64(1n)]).flat();
    assertStringIncludes(refusal([...header(0n, 1n), text("k"), u32(9), ...nested, u32(4), u64(0n)]), "nests arrays");
    assertStringIncludes(refusal([...header(0n, 1n), text("k"), u32(13), u64(0n)]), "unknown value type 13");
    const pair = [text("k"), u32(4), u32(1)];
    assertStringIncludes(refusal([...header(0n, 2n), ...pair, ...pair]), '"k" occurs twice');
  });

  it("keeps many tiny arrays within four times the file and 64 MB", () => {
    const inner = new Uint8Array(12 * 300_000);
    assertStringIncludes(
      refusal([...header(0n, 1n), text("k"), u32(9), u32(9), u64(300_000n), { kind: "bytes", value: inner }, u64(0n)]),
      "bytes of memory",
    );
  });

  it("refuses tensors with wrong dimensions, types, places", () => {
    const tensor = (...rest: Field[]) =>
      refusal([...header(1n, 0n), text("w"), ...rest, { kind: "bytes", value: new Uint8Array(99) }]);
    assertStringIncludes(tensor(u32(5)), "5 dimensions");
    assertStringIncludes(tensor(u32(1), u64(0n), u32(0), u64(0n)), "empty");
    assertStringIncludes(tensor(u32(2), u64(1n << 39n), u64(1n << 39n), u32(0), u64(0n)), "too large");
    assertStringIncludes(tensor(u32(1), u64(33n), u32(2), u64(0n)), "not whole blocks");
    assertStringIncludes(
      tensor(u32(1), u64(4n), u32(16), u64(0n)),
      "type IQ2_XXS, which is not supported; supported are F32",
    );
    assertStringIncludes(tensor(u32(1), u64(4n), u32(999), u64(0n)), "unknown type 999");
    assertStringIncludes(tensor(u32(1), u64(4n), u32(0), u64(2n ** 53n)), "offset");
    assertStringIncludes(tensor(u32(1), u64(4n), u32(0), u64(8n)), "not a multiple of 32");
    const twice = [text("w"), u32(1), u64(4n), u32(0), u64(0n)];
    assertStringIncludes(refusal([...header(2n, 0n), ...twice, ...twice]), "occurs twice");
    const other = [text("v"), u32(1), u64(4n), u32(0), u64(0n), { kind: "bytes", value: new Uint8Array(99) } as Field];
    assertStringIncludes(refusal([...header(2n, 0n), ...twice, ...other]), "overlap");
  });

  it("refuses an alignment that is no power of two", () => {
    assertStringIncludes(refusal(ggufFields([["general.alignment", { u32: 48 }]], [])), "general.alignment is 48");
  });
});

describe("split files", () => {
  it("are found by any part's name", () => {
    assertEquals(splitPaths("m/x-00002-of-00003.gguf"), [1, 2, 3].map((i) => `m/x-0000${i}-of-00003.gguf`));
    assertEquals(splitPaths("x.gguf"), ["x.gguf"]);
    assertEquals(splitPaths("x-00001-of-00000.gguf"), ["x-00001-of-00000.gguf"]);
  });

  it("open as one model, and are refused when a part is missing or foreign", () => {
    const folder = Deno.makeTempDirSync();
    const part = (no: number, name: string, count = 2): Uint8Array =>
      serialize(ggufFields(
        [["split.no", { u32: no }], ["split.count", { u32: count }], ["split.tensors.count", { u32: 2 }]],
        [{ name, dtype: "f32", shape: [4] }],
      ));
    const path = (i: number) => `${folder}/m-0000${i}-of-00002.gguf`;
    try {
      Deno.writeFileSync(path(1), part(0, "a"));
      assertThrows(() => openGguf(path(1)), ModelFileError, "no such file");
      Deno.writeFileSync(path(2), part(1, "b"));
      {
        using file = openGguf(path(2));
        assertEquals([...file.tensors.keys()], ["a", "b"]);
        assertEquals(file.paths, [path(1), path(2)]);
      }
      Deno.writeFileSync(path(2), part(0, "b"));
      assertThrows(() => openGguf(path(1)), ModelFileError, "split.no is 0, 1 expected");
      Deno.writeFileSync(path(2), part(1, "a"));
      assertThrows(() => openGguf(path(1)), ModelFileError, "occurs in two parts");
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
    const alone = parse([["split.count", { u32: 3 }]]);
    assertThrows(() => joinParts([alone], () => {}), ModelFileError, "split.count is 3");
  });
});

describe("GgufStrings", () => {
  it("decodes strings that are not UTF-8 one by one", () => {
    const data = new Uint8Array([0x61, 0xc3, 0xa9, 0xff, 0x62]);
    const offsets = (...at: number[]) => Uint32Array.from(at);
    assertEquals(new GgufStrings(data, offsets(0, 1, 3, 4, 5)).toArray(), ["a", "é", "\ufffd", "b"]);
    // A character cut by a string's border is two broken strings, not one good one.
    assertEquals(new GgufStrings(data.slice(0, 3), offsets(0, 2, 3)).toArray(), ["a\ufffd", "\ufffd"]);
    assertEquals(new GgufStrings(data, offsets(0)).toArray(), []);
    assertThrows(() => new GgufStrings(data, offsets(0, 1)).get(1), RangeError, "1 strings");
  });
});
