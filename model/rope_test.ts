import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ropeFrequencies, type RopeScaling } from "./rope.ts";
import golden from "../test/golden/rope.json" with { type: "json" };

type Golden = (typeof golden)[number]["scaling"];

function scalingOf(g: Golden): RopeScaling {
  const originalContext = g.original_max_position_embeddings ?? NaN;
  switch (g.rope_type) {
    case "linear":
      return { type: "linear", factor: g.factor };
    case "llama3":
      return {
        type: "llama3",
        factor: g.factor,
        lowFreqFactor: g.low_freq_factor ?? NaN,
        highFreqFactor: g.high_freq_factor ?? NaN,
        originalContext,
      };
    case "yarn":
      return {
        type: "yarn",
        factor: g.factor,
        originalContext,
        ...(g.beta_fast === undefined ? {} : { betaFast: g.beta_fast }),
        ...(g.beta_slow === undefined ? {} : { betaSlow: g.beta_slow }),
        ...(g.attention_factor === undefined ? {} : { attentionFactor: g.attention_factor }),
      };
    default:
      throw new Error(`unknown golden "${g.rope_type}"`);
  }
}

describe("ropeFrequencies()", () => {
  for (const { base, dims, scaling, frequencies, magnitude } of golden) {
    it(`equals transformers for ${scaling.rope_type}, base ${base}, ${dims} dimensions, factor ${scaling.factor}`, () => {
      const ours = ropeFrequencies({ base, dims, scaling: scalingOf(scaling) });
      assertAlmostEquals(ours.magnitude, magnitude, 1e-12);
      assertEquals(ours.frequencies.length, frequencies.length);
      // transformers computes in float32
      ours.frequencies.forEach((f, i) => assertAlmostEquals(f / (frequencies[i] as number), 1, 1e-6));
    });
  }

  it("is a falling geometric series without scaling", () => {
    const { frequencies, magnitude } = ropeFrequencies({ base: 10000, dims: 6 });
    assertEquals(magnitude, 1);
    assertEquals(frequencies.length, 3);
    assertEquals(frequencies[0], 1);
    assertAlmostEquals(frequencies[2] as number, 10000 ** (-4 / 6), 1e-15);
  });

  it("divides by the file's factors, one a pair", () => {
    const { frequencies } = ropeFrequencies({
      base: 100,
      dims: 4,
      scaling: { type: "factors", factors: Float64Array.of(2, 5) },
    });
    assertAlmostEquals(frequencies[0] as number, 0.5, 1e-15);
    assertAlmostEquals(frequencies[1] as number, 0.02, 1e-15);
  });

  it("gives the same frequencies from llama3 and from its divisors written out", () => {
    const scaling: RopeScaling = {
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContext: 8192,
    };
    const plain = ropeFrequencies({ base: 500000, dims: 64 }).frequencies;
    const direct = ropeFrequencies({ base: 500000, dims: 64, scaling }).frequencies;
    const factors = plain.map((f, i) => f / (direct[i] as number));
    assertEquals(factors[0], 1);
    assertAlmostEquals(factors[31] as number, 8, 1e-12);
    const back = ropeFrequencies({ base: 500000, dims: 64, scaling: { type: "factors", factors } }).frequencies;
    back.forEach((f, i) => assertAlmostEquals(f, direct[i] as number, 1e-15));
  });

  it("refuses numbers that no model has", () => {
    const bad: [string, Parameters<typeof ropeFrequencies>[0]][] = [
      ["even", { base: 10000, dims: 7 }],
      ["even", { base: 10000, dims: 0 }],
      ["base 0", { base: 0, dims: 8 }],
      ["base NaN", { base: NaN, dims: 8 }],
      ["factor 0", { base: 10000, dims: 8, scaling: { type: "linear", factor: 0 } }],
      ["3 factors for 4", {
        base: 10000,
        dims: 8,
        scaling: { type: "factors", factors: new Float64Array(3).fill(1) },
      }],
      ["factor -1", { base: 10000, dims: 2, scaling: { type: "factors", factors: Float64Array.of(-1) } }],
      ["original context 0", { base: 10000, dims: 8, scaling: { type: "yarn", factor: 2, originalContext: 0 } }],
      ["not over the low one", {
        base: 10000,
        dims: 8,
        scaling: { type: "llama3", factor: 8, lowFreqFactor: 4, highFreqFactor: 4, originalContext: 8192 },
      }],
    ];
    for (const [message, options] of bad) assertThrows(() => ropeFrequencies(options), RangeError, message);
  });
});
