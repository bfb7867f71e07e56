import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import type { BlockType } from "../core/tensor.ts";
import { DTYPES } from "../core/dtype.ts";
import golden from "../test/golden/dequant.json" with { type: "json" };
import { DEQUANTIZE } from "./dequant.ts";
import { fromBfloat, HALF, toBfloat } from "./half.ts";

describe("dequantize", () => {
  for (const [name, { blocks, values }] of Object.entries(golden)) {
    it(`reads ${name} bit for bit as the gguf package does`, () => {
      const bytes = Uint8Array.fromBase64(blocks);
      const want = new Float32Array(Uint8Array.fromBase64(values).buffer);
      const got = new Float32Array(want.length);
      DEQUANTIZE[name as BlockType](got, bytes, 0, got.length);
      assertEquals(got, want);
    });

    it(`starts ${name} at any block`, () => {
      const { elements, bytes: size } = DTYPES[name as BlockType];
      const want = new Float32Array(Uint8Array.fromBase64(values).buffer);
      const got = new Float32Array(elements);
      DEQUANTIZE[name as BlockType](got, Uint8Array.fromBase64(blocks), size, elements);
      assertEquals(got, want.slice(elements, 2 * elements));
    });
  }

  it("has goldens of every format", () => {
    assertEquals(Object.keys(golden).sort(), Object.keys(DEQUANTIZE).sort());
  });
});

describe("half.ts", () => {
  it("widens every half", () => {
    const halves = new Float16Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
    for (let i = 0; i < 65536; i++) assert(Object.is(HALF[i], halves[i]));
  });

  it("rounds to the nearest bfloat16, ties to even", () => {
    assertEquals(fromBfloat(0x3f80), 1);
    assertEquals(toBfloat(1 + 1 / 256), 0x3f80);
    assertEquals(toBfloat(1 + 3 / 256), 0x3f82);
    assertEquals(toBfloat(Infinity), 0x7f80);
    assert(Number.isNaN(fromBfloat(toBfloat(NaN))));
    fc.assert(fc.property(fc.float({ noNaN: true, min: Math.fround(-1e30), max: Math.fround(1e30) }), (x) => {
      assert(Math.abs(fromBfloat(toBfloat(x)) - x) <= Math.max(Math.abs(x) / 256, 1e-38));
    }));
  });
});
