import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { byteLength, DTYPES, elementCount, isBlockType } from "./dtype.ts";

describe("dtype", () => {
  it("sizes plain and block types", () => {
    assertEquals(byteLength([3, 5], "f16"), 30);
    assertEquals(byteLength([2, 64], "q4_1"), 80);
    assertEquals(byteLength([1, 256], "q6_k"), 210);
    assertEquals(byteLength([0, 32], "q8_0"), 0);
    assertEquals(elementCount([]), 1);
  });

  it("refuses rows that are not whole blocks", () => {
    assertThrows(() => byteLength([4, 48], "q4_0"), RangeError, "48");
  });

  it("tells block types from plain ones", () => {
    for (const [name, { elements }] of Object.entries(DTYPES)) {
      assertEquals(isBlockType(name as keyof typeof DTYPES), elements > 1);
    }
  });
});
