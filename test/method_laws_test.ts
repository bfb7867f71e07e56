/**
 * Laws of published methods in a small model's decode steps: with room for everything they equal full attention, by default they
 * repeat, and what stands for tokens stands for all of them.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { presets } from "../attention/mod.ts";
import { parseMethod } from "../attention/method.ts";
import { pyramidBudget } from "../attention/pyramid.ts";
import { distance, load, PROMPT, run, TOKENS } from "./policy_fixture.ts";

const METHODS = Object.entries(presets).filter(([, { policy }]) => policy.startsWith("retrieval")).map(([name]) =>
  name
);
/** What decides by itself how much it wants is told to want everything. */
const WANTING_ALL: Readonly<Record<string, string>> = {
  infinigen: "skew:alpha=1000,cap=1",
  retroinfer: "wave:retrieve=0",
  h2o: "heavy:share=1",
  "squeezed-attention": "clusters",
};
const SMALL = "min_length=0,dense=0,dense_every=0,sinks=2,window=20";

describe("published methods", () => {
  it("with room for everything they are full attention", async () => {
    using loaded = await load("cpu");
    const full = run(loaded, { policy: "full" });
    // MagicPIG attends to what collides, whatever room there is.
    for (const name of METHODS.filter((name) => name !== "magicpig")) {
      // H2O's budget is the prompt's: what comes later would take the place of what was there.
      const goal = name === "kvasir"
        ? "error=0"
        : `budget=4096,share=1,pyramid=0${name === "h2o" ? ",grow=false" : ""}`;
      const method = parseMethod(`${name}:${SMALL},${goal}`).options;
      const index = WANTING_ALL[name] ?? method.index;
      const { logits, stats } = run(loaded, { policy: method.policy, ...(index === undefined ? {} : { index }) });
      assert(distance(logits, full.logits) < 2e-5, `${name}: ${distance(logits, full.logits)}`);
      assertAlmostEquals(stats.spanned + stats.retrieved, stats.tokens, 1e-6, name);
    }
  });

  it("by default they leave something out, repeat to the bit, and free everything", async () => {
    using loaded = await load("cpu");
    const full = run(loaded, { policy: "full" });
    for (const name of METHODS) {
      const goal = name === "kvasir" ? "error=0.1" : "budget=24";
      const { policy, index: published = "flat" } = parseMethod(`${name}:${SMALL},${goal}`).options;
      const index = published === "wave" ? "wave:step=64" : published;
      const first = run(loaded, { policy, index });
      assertEquals(run(loaded, { policy, index }).logits, first.logits, name);
      assert(first.logits.every(Number.isFinite), name);
      const off = distance(first.logits, full.logits);
      assert(off > 1e-4 && off < 1.5, `${name} is ${off} off`);
      assert(first.stats.retrieved > 0 && first.stats.spanned + first.stats.retrieved < first.stats.tokens, name);
    }
  });

  it("clusters of one key each stand exactly for what is not opened", async () => {
    for (const backend of ["cpu", "reference", "hybrid:keep=32"]) {
      using loaded = await load(backend);
      if (loaded.backend.host === undefined) continue;
      const full = run(loaded, { policy: "full" });
      const index = "wave:cluster=1,step=64,retrieve=0,estimate=1";
      const policy = `retrieval:${SMALL},budget=9,tail=surrogate`;
      const { logits, stats } = run(loaded, { policy, index });
      assert(stats.retrieved / stats.queries <= 9);
      assert(distance(logits, full.logits) < 2e-5, `${backend}: ${distance(logits, full.logits)}`);
    }
  });

  it("surrogates of larger clusters, and a mean value, come nearer than leaving tokens out", async () => {
    using loaded = await load("cpu");
    const full = run(loaded, { policy: "full" }).logits;
    for (const index of ["wave:cluster=4,step=64,retrieve=0,estimate=1", "channels:r=8"]) {
      const [without, withRest] = ["none", "surrogate"].map((tail) =>
        distance(run(loaded, { policy: `retrieval:${SMALL},budget=16,tail=${tail}`, index }).logits, full)
      ) as [number, number];
      assert(withRest < 0.85 * without, `${index}: ${withRest} with, ${without} without`);
    }
  });

  it("what chooses once keeps every later token in the window", async () => {
    using loaded = await load("cpu");
    const { stats } = run(loaded, { policy: `retrieval:${SMALL},budget=10,grow=false`, index: "snap:observe=8" });
    const steps = TOKENS.length - PROMPT;
    // Of the prompt: sinks and window; of the rest: everything.
    const spanned = 2 * (steps * 22 + steps * (steps + 1) / 2);
    assertEquals(stats.spanned, spanned);
    assertEquals(stats.retrieved, 2 * steps * 10);
  });

  it("first layers, and one in so many, attend to everything", async () => {
    using loaded = await load("cpu");
    const layers = (policy: string) => run(loaded, { policy: `retrieval:min_length=0,${policy}` }).stats.layers;
    assertEquals(["dense=0", "dense=1", "dense=2", "dense_every=1", "dense_every=2"].map(layers), [2, 1, 0, 0, 1]);
  });
});

describe("errors of single layers", () => {
  it("are theirs alone: with 0 a layer keeps everything", async () => {
    using loaded = await load("cpu");
    const all = (policy: string) => run(loaded, { policy: `retrieval:${SMALL},${policy}` });
    const both = all("error=0.2"), one = all("error=0.2,errors=1:0"), none = all("error=0");
    const between = (both.stats.retrieved + none.stats.retrieved) / 2;
    assert(both.stats.retrieved < one.stats.retrieved && one.stats.retrieved < none.stats.retrieved);
    assert(Math.abs(one.stats.retrieved - between) < 0.25 * between);
    assertEquals(all("error=0.2,errors=0:0/1:0").logits, none.logits);
    assertEquals(all("error=0.7,errors=0:0.2/1:0.2").logits, both.logits);
  });

  it("are refused where they say nothing that can be done", async () => {
    using loaded = await load("cpu");
    for (
      const [errors, why] of [
        ["2:0.1", "errors names layer 2, the model has 2"],
        ["0:0.1/0:0.2", "errors names layer 0 twice"],
        ["0:2", "errors has 2 for layer 0, expected a number from 0 to 1"],
        ["0", 'errors holds "0", expected layer:error'],
        ["0:0.1/", 'errors holds "", expected layer:error'],
        ["-1:0.1", 'errors holds "-1:0.1", expected layer:error'],
        ["0:0.1,budget=5", "errors goes without budget"],
        ["0:0.1,dense=1", "errors names layer 0, which retrieves nothing"],
      ] as const
    ) {
      assertThrows(
        () => run(loaded, { policy: `retrieval:min_length=0,errors=${errors}` }),
        RangeError,
        `Cannot use "retrieval": ${why}`,
      );
    }
  });
});

describe("pyramidBudget()", () => {
  it("falls in equal steps around the mean", () => {
    const budgets = Array.from(
      { length: 32 },
      (_, layer) => pyramidBudget(2016, 20, { layer, layers: 32, tokens: 32000 }),
    );
    assertEquals([budgets[0], budgets[31]], [2 * 2016 - 100, 100]);
    assert(budgets.every((b, i) => i === 0 || b < (budgets[i - 1] as number)));
    assertAlmostEquals(budgets.reduce((a, b) => a + b, 0) / 32, 2016, 1);
  });

  it("gives no layer more than there is, and shares short prompts out evenly", () => {
    assertEquals(pyramidBudget(100, 20, { layer: 0, layers: 4, tokens: 150 }), 100);
    assertEquals([0, 3].map((layer) => pyramidBudget(100, 20, { layer, layers: 4, tokens: 200 })), [195, 5]);
    assertEquals([0, 3].map((layer) => pyramidBudget(100, 2, { layer, layers: 4, tokens: 300 })), [150, 50]);
  });
});
