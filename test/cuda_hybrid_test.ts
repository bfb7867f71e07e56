/**
 * A device beside a host whose memory holds the cache, run by the CPU: a small model decodes with the device's own index over the
 * host's rows.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";
import { distance, load, PROMPT, run, TOKENS } from "./policy_fixture.ts";

const missing = await prepareEmulated("a device beside a host is");

const SPEC = "hybrid-emulated:codes=device,keep=128";
const index = "flat:codes=int4";

const suite = missing === "" ? describe : describe.skip;
suite("a device with the codes, a host with the rows", () => {
  it("an error of 0 equals full attention", async () => {
    using loaded = await load(SPEC, emulatedCuda);
    using other = await load("cpu");
    const full = run(other, { policy: "full" }).logits;
    const { logits, stats } = run(loaded, { policy: "retrieval:error=0,min_length=0,sinks=2,window=8", index });
    assert(distance(logits, full) < 1e-4, `${distance(logits, full)}`);
    assertEquals([stats.layers, stats.queries], [2, 2 * (TOKENS.length - PROMPT)]);
    assertAlmostEquals(stats.spanned + stats.retrieved, stats.tokens);
    assert(stats.retrieved > 0);
  });

  it("a sample is the CPU's, and repeats", async () => {
    // 4-bit codes are drawn from by two planes on the CPU, as a whole on the device.
    const options = { policy: "retrieval:error=0.2,min_length=0,sinks=4,window=16", index: "flat:codes=int8" };
    using loaded = await load(SPEC, emulatedCuda);
    using other = await load("cpu");
    const [mine, theirs] = [run(loaded, options), run(other, options)];
    const error = distance(mine.logits, run(other, { policy: "full" }).logits);
    // Queries differ by what products round, and a draw on the border with them.
    assert(distance(mine.logits, theirs.logits) < error / 2, `${distance(mine.logits, theirs.logits)} of ${error}`);
    assert(Math.abs(mine.stats.retrieved / theirs.stats.retrieved - 1) < 0.01);
    assertEquals(run(loaded, options).logits, mine.logits);
  });
});
