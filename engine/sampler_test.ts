import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import type { Kernels } from "../backends/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Sampling } from "./types.ts";
import { resolveSampling } from "./sampling.ts";
import { Sampler, uniform } from "./sampler.ts";
import { TokenCounts } from "./token_counts.ts";

/** Writes down what a sampler asks of the kernels. */
function recorder(): { calls: unknown[]; kernels: Kernels } {
  const calls: unknown[] = [];
  const kernels = {
    addLogits: (_: Tensor, row: number, ids: Int32Array, values: Float32Array) =>
      calls.push(["add", row, [...ids], [...values]]),
    penalize: (
      _: Tensor,
      row: number,
      p: { tokens: Int32Array; counts: Int32Array; repetition: number; presence: number; frequency: number },
    ) => calls.push(["penalize", row, [...p.tokens], [...p.counts], p.repetition, p.presence, p.frequency]),
  } as unknown as Kernels;
  return { calls, kernels };
}

const logits = {} as Tensor;

function sampler(wanted: Partial<Sampling>, prompt: number[] = [3, 1, 3]): Sampler {
  return new Sampler(resolveSampling({ seed: 1, ...wanted }, {}, 100), prompt, new Set([9]));
}

describe("resolveSampling()", () => {
  it("puts the caller's wishes before the model's and those before the defaults", () => {
    const s = resolveSampling({ topK: 5, topP: undefined as unknown as number }, { topK: 7, temperature: 0.6 }, 100);
    assertEquals([s.topK, s.temperature, s.topP, s.minP], [5, 0.6, 0.95, 0.05]);
    assert(Number.isSafeInteger(s.seed));
  });

  it("names what is out of range", () => {
    const bad: [Partial<Sampling>, string][] = [
      [{ temperature: -1 }, "temperature is -1"],
      [{ temperature: NaN }, "temperature is NaN"],
      [{ topK: 1.5 }, "topK is 1.5"],
      [{ topP: 1.01 }, "topP is 1.01"],
      [{ maxTokens: 0 }, "maxTokens is 0"],
      [{ logprobs: 21 }, "logprobs is 21"],
      [{ logitBias: { 100: 1 } }, "token 100"],
      [{ logitBias: { 5: NaN } }, "token 5 is NaN"],
      [{ stopTokens: [-1] }, "token -1"],
      [{ seed: 0.5 }, "seed is 0.5"],
      [{ repetitionPenalty: 0 }, "repetitionPenalty is 0"],
    ];
    for (const [wanted, message] of bad) assertThrows(() => resolveSampling(wanted, {}, 100), RangeError, message);
  });
});

describe("uniform()", () => {
  it("is in [0, 1), repeats, and differs by seed and position", () => {
    fc.assert(fc.property(fc.maxSafeInteger(), fc.nat(), (seed, position) => {
      const u = uniform(seed, position);
      assert(u >= 0 && u < 1);
      assertEquals(u, uniform(seed, position));
      assert(u !== uniform(seed, position + 1));
    }));
    assert(uniform(1, 5) !== uniform(2, 5));
    assert(uniform(1, 5) !== uniform(1 + 2 ** 32, 5));
  });

  it("is spread evenly over positions and over seeds", () => {
    for (const draw of [(i: number) => uniform(7, i), (i: number) => uniform(i, 7)]) {
      const bins = new Array<number>(16).fill(0);
      for (let i = 0; i < 16_000; i++) bins[Math.floor(draw(i) * 16)]!++;
      // Chi-square with 15 degrees of freedom stays below 44 but once in ten thousand.
      assert(bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0) < 44, bins.join(" "));
    }
  });
});

describe("Sampler", () => {
  it("adjust() does nothing for plain sampling", () => {
    const { calls, kernels } = recorder();
    const plain = sampler({});
    plain.adjust(kernels, logits, 0);
    assertEquals([calls, plain.adjusts], [[], false]);
  });

  it("adjust() repeats over prompt and output, but presence and frequency over output only", () => {
    const { calls, kernels } = recorder();
    const s = sampler({ repetitionPenalty: 1.5, presencePenalty: 0.25, frequencyPenalty: 0.5 });
    s.adjust(kernels, logits, 2);
    for (const token of [1, 4, 4]) s.accept(token);
    s.adjust(kernels, logits, 2);
    assertEquals(calls, [
      ["penalize", 2, [3, 1], [2, 1], 1.5, 0, 0],
      ["penalize", 2, [3, 1, 4], [2, 2, 2], 1.5, 0, 0],
      ["penalize", 2, [1, 4], [1, 2], 1, 0.25, 0.5],
    ]);
    assert(s.adjusts);
  });

  it("adjust() biases, and bans the end before minTokens", () => {
    const { calls, kernels } = recorder();
    const s = sampler({ logitBias: { 5: 2 }, minTokens: 1, stopTokens: [6] });
    s.adjust(kernels, logits, 0);
    s.accept(1);
    s.adjust(kernels, logits, 0);
    assertEquals(calls, [["add", 0, [5], [2]], ["add", 0, [9, 6], [-Infinity, -Infinity]], ["add", 0, [5], [2]]]);
    const ignoring = recorder();
    sampler({ ignoreEos: true }).adjust(ignoring.kernels, logits, 0);
    assertEquals(ignoring.calls, [["add", 0, [9], [-Infinity]]]);
  });
});

describe("TokenCounts", () => {
  it("add() counts any number of distinct tokens", () => {
    const counts = new TokenCounts();
    for (let i = 0; i < 1000; i++) counts.add(i % 300);
    assertEquals(counts.tokens, Int32Array.from({ length: 300 }, (_, i) => i));
    assertEquals(counts.counts, Int32Array.from({ length: 300 }, (_, i) => i < 100 ? 4 : 3));
  });
});
