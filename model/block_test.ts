import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { LayerShape, Rope } from "../core/kv.ts";
import type { Step, Weights } from "./model.ts";
import { openBackend } from "../backends/mod.ts";
import { Ops } from "../backends/ops.ts";
import { outputMatrix, rotary, splitHeads } from "./block.ts";

function rope(base: number, magnitude = 1): Rope {
  return { frequencies: Float64Array.from([1, 1 / base]), dims: 4, pairing: "halves", magnitude };
}

function layer(r?: Rope): LayerShape {
  return { heads: 3, kvHeads: 1, headDim: 5, scale: 1, ...(r === undefined ? {} : { rope: r }) };
}

function stepOf(ops: Ops, positions: number[]): Step {
  const tensor = ops.backend.alloc([positions.length], "i32", "step");
  ops.backend.write(tensor, Int32Array.from(positions));
  const unused = () => {
    throw new Error("not part of this test");
  };
  return { ops, tokens: tensor, positions: tensor, attend: unused, lastRows: unused };
}

describe("rotary()", () => {
  it("makes one table for layers with equal ropes, none for layers without", () => {
    using backend = openBackend("reference");
    const layers = [layer(rope(10)), layer(rope(100)), layer(), layer(rope(10)), layer(rope(10, 2))];
    const angles = rotary(layers)(stepOf(new Ops(backend), [0, 7, 3]));
    assertEquals(angles.length, 5);
    assertEquals(angles[0] === angles[3], true);
    assertEquals(angles[2], undefined);
    assertEquals(new Set(angles).size, 4);
    for (const table of angles) if (table !== undefined) assertEquals(table.shape, [3, 2, 2]);
  });
});

describe("splitHeads()", () => {
  it("takes the number of heads from the row's width", () => {
    using backend = openBackend("reference");
    const ops = new Ops(backend);
    const x = backend.alloc([7, 15], "f32", "step");
    assertEquals(splitHeads(ops, x, 5).shape, [7, 3, 5]);
    assertEquals(splitHeads(ops, backend.alloc([0, 15], "f32", "step"), 5).shape, [0, 3, 5]);
    assertThrows(() => splitHeads(ops, x, 4), RangeError);
  });
});

describe("outputMatrix()", () => {
  it("is the embedding table unless the file has one of its own", () => {
    using backend = openBackend("reference");
    const table = backend.alloc([11, 4], "f32", "model");
    const own = backend.alloc([11, 4], "f32", "model");
    const weights = (has: boolean): Weights => ({
      has: (name) => has && name === "output.weight",
      get: (name, shape) => {
        assertEquals([name, ...shape], ["output.weight", 11, 4]);
        return own;
      },
    });
    assertEquals(outputMatrix(weights(false), table) === table, true);
    assertEquals(outputMatrix(weights(true), table) === own, true);
  });
});
