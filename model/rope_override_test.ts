import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { RopeOptions } from "./rope.ts";
import { overrideRope, type RopeOverride, stretchedContext } from "./rope_override.ts";

const FILE: RopeOptions = { base: 1e5, dims: 64, scaling: { type: "linear", factor: 4 } };

describe("overrideRope()", () => {
  it("keeps what is not overridden", () => {
    assertEquals(overrideRope(FILE, {}, 8192), FILE);
    assertEquals(overrideRope(FILE, { freqBase: 2e5 }, 8192), { ...FILE, base: 2e5 });
  });

  it("replaces the file's scaling", () => {
    assertEquals(overrideRope(FILE, { scaling: "none" }, 8192), { base: 1e5, dims: 64 });
    assertEquals(overrideRope(FILE, { scaling: "linear", scale: 2 }, 8192).scaling, { type: "linear", factor: 2 });
    const yarn = { type: "yarn", factor: 4, originalContext: 8192 } as const;
    assertEquals(overrideRope(FILE, { scaling: "yarn", scale: 4 }, 8192).scaling, yarn);
    const all = {
      scaling: "yarn",
      scale: 4,
      yarnOrigCtx: 2048,
      yarnBetaFast: 16,
      yarnBetaSlow: 2,
      yarnAttnFactor: 1.5,
    };
    assertEquals(overrideRope(FILE, all as RopeOverride, 8192).scaling, {
      type: "yarn",
      factor: 4,
      originalContext: 2048,
      betaFast: 16,
      betaSlow: 2,
      attentionFactor: 1.5,
    });
  });

  it("says which numbers have no use", () => {
    assertThrows(() => overrideRope(FILE, { scale: 2 }, 8192), RangeError, "needs scaling linear or yarn");
    assertThrows(() => overrideRope(FILE, { scaling: "none", scale: 2 }, 8192), RangeError, "needs scaling");
    assertThrows(() => overrideRope(FILE, { yarnBetaFast: 2 }, 8192), RangeError, "need scaling yarn");
  });
});

describe("stretchedContext()", () => {
  it("grows with the scale", () => {
    assertEquals(stretchedContext({ scaling: "yarn", scale: 4 }, 8192), 32768);
    assertEquals(stretchedContext({ scaling: "linear", scale: 1.5 }, 8191), 12286);
    assertEquals(stretchedContext({ freqBase: 1e6 }, 8192), 8192);
  });
});
