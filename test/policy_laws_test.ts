/**
 * Laws of attention policies, in a small model's decode steps: whatever is told to leave nothing out equals full attention,
 * spans and hits partition the tokens, runs repeat, and nothing stays allocated.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { resolveAttention } from "../attention/mod.ts";
import { distance, load, PROMPT, run, TOKENS } from "./policy_fixture.ts";

const IVF = "ivf:nlist=8,nprobe=2,min=64";
const HYBRIDS = ["hybrid:keep=32", "hybrid:codes=device,keep=0", "hybrid:host=reference"];

for (const backend of ["reference", "cpu", ...HYBRIDS]) {
  describe(`policies on ${backend}`, () => {
    const complete: [string, string?][] = [
      ["window:window=400"],
      ["retrieval:error=0,min_length=0,sinks=2,window=8"],
      ["retrieval:error=0,min_length=0,sinks=0,window=1"],
      ["retrieval:budget=400,min_length=0,sinks=3,window=20"],
      ["retrieval:budget=400,tail=sample,min_length=0,sinks=4,window=20"],
      ["retrieval:error=0,min_length=200,sinks=4,window=70"],
      ["retrieval:error=0,min_length=0,sinks=4,window=20", "flat-reference"],
    ];
    for (const [policy, index] of complete) {
      it(`${policy}${index === undefined ? "" : ` over ${index}`} equals full attention`, async () => {
        using loaded = await load(backend);
        const full = run(loaded, { policy: "full" });
        assertEquals(full.stats.layers, 0);
        const { logits, stats } = run(loaded, { policy, ...(index === undefined ? {} : { index }) });
        assert(distance(logits, full.logits) < 2e-5, `${distance(logits, full.logits)}`);
        assertEquals([stats.layers, stats.queries], [2, 2 * (TOKENS.length - PROMPT)]);
        // Nothing is looked at twice, nothing left out.
        assertAlmostEquals(stats.spanned + stats.retrieved, stats.tokens);
        assert(policy.startsWith("window") || stats.retrieved > 0);
      });
    }

    it("an error is kept on the way, far below what a window alone makes", async () => {
      using loaded = await load(backend);
      const full = run(loaded, { policy: "full" }).logits;
      const errors = [0.3, 0.1, 0.02].map((error) => {
        const { logits, stats } = run(loaded, { policy: `retrieval:error=${error},min_length=0,sinks=4,window=16` });
        return { error: distance(logits, full), rows: stats.retrieved / stats.queries, told: stats.estimatedError };
      });
      const [coarse, middle, fine] = errors as [typeof errors[0], typeof errors[0], typeof errors[0]];
      assert(coarse.error > middle.error && middle.error > fine.error, JSON.stringify(errors));
      assert(coarse.rows < middle.rows && middle.rows <= fine.rows && coarse.told > fine.told, JSON.stringify(errors));
      const alone = distance(run(loaded, { policy: "window:sinks=4,window=16" }).logits, full);
      assert(middle.error < alone / 3, `${middle.error} beside ${alone}`);
    });

    it("draws repeat, and follow the seed", async () => {
      using loaded = await load(backend);
      const policy = "retrieval:error=0.2,min_length=0,sinks=4,window=16";
      const { logits } = run(loaded, { policy });
      assertEquals(run(loaded, { policy }).logits, logits);
      assert(distance(run(loaded, { policy: `${policy},seed=1` }).logits, logits) > 1e-6);
    });
  });
}

describe("resolveAttention()", () => {
  it("takes presets, specs and goals apart", () => {
    assert(resolveAttention({}).policy.startsWith("retrieval:"));
    const { policy, index } = resolveAttention({ preset: "kvasir", error: 0.1, index: "flat:codes=int4" });
    assert(policy.startsWith("retrieval:") && policy.includes("error=0.1,"));
    assertEquals(index, "flat:codes=int4");
    assert(resolveAttention({ preset: "exact-topk", budget: 7 }).policy.includes("budget=7,"));
    assert(resolveAttention({ preset: "exact-topk", error: 0.1 }).policy.includes("budget=0,"));
  });

  it("says what is wrong", () => {
    const bad: [Parameters<typeof resolveAttention>[0], string][] = [
      [{ preset: "nope" }, "expected one of"],
      [{ policy: "nope" }, 'Cannot find policy "nope"'],
      [{ policy: "retrieval:x=1" }, 'no parameter "x"'],
      [{ policy: "retrieval:error=2" }, "error is 2"],
      [{ policy: "retrieval:window=0" }, "window is 0"],
      [{ policy: "retrieval:tail=best" }, 'tail is "best"'],
      [{ preset: "full", error: 0.1 }, "retrieves nothing"],
      [{ preset: "kvasir", error: 0.1, budget: 5 }, "both an error and a budget"],
    ];
    for (const [options, part] of bad) assertThrows(() => resolveAttention(options), RangeError, part);
  });
});

Deno.test("settled, what is built answers from the first query on, and what is chosen once is the same", async () => {
  using loaded = await load("cpu");
  const policy = "retrieval:budget=8,min_length=0,sinks=2,window=16";
  const behind = run(loaded, { policy, index: IVF }).stats;
  const settled = run(loaded, { policy, index: IVF, settles: true }).stats;
  // Scanned until what is built takes over, later than this run is long.
  assertEquals(behind.scored, behind.tokens - behind.spanned);
  assert(settled.scored < 0.8 * behind.scored, `${settled.scored} of ${behind.scored}`);
  const frozen = { policy: `${policy},grow=false`, index: "flat" };
  assertEquals(run(loaded, { ...frozen, settles: true }).logits, run(loaded, frozen).logits);
});
