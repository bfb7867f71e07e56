/**
 * A device beside a host whose memory holds the cache, run by the CPU: a small model decodes with the device's own index over the
 * host's rows, or with the host's.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HybridBackend } from "../backends/hybrid.ts";
import { openBackend } from "../backends/mod.ts";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";
import { distance, load, PROMPT, run, TOKENS } from "./policy_fixture.ts";

const missing = await prepareEmulated("a device beside a host is");

const SPEC = "hybrid-emulated:codes=device,keep=128";
const index = "flat:codes=int4";

const suite = missing === "" ? describe : describe.skip;
suite("a device beside a host that has the rows", () => {
  // Codes on the device, and on the host; rows that come down while the device goes on, and none that stay there.
  for (const spec of [SPEC, "hybrid-emulated:codes=host,keep=0"]) {
    it(`${spec}: an error of 0 equals full attention`, async () => {
      using loaded = await load(spec, emulatedCuda);
      using other = await load("cpu");
      const full = run(other, { policy: "full" }).logits;
      const { logits, stats } = run(loaded, { policy: "retrieval:error=0,min_length=0,sinks=2,window=8", index });
      assert(distance(logits, full) < 1e-4, `${distance(logits, full)}`);
      assertEquals([stats.layers, stats.queries], [2, 2 * (TOKENS.length - PROMPT)]);
      assertAlmostEquals(stats.spanned + stats.retrieved, stats.tokens);
      assert(stats.retrieved > 0);
    });

    it(`${spec}: a sample is the CPU's, and repeats`, async () => {
      // 4-bit codes are drawn from by two planes on the CPU, as a whole on the device.
      const options = { policy: "retrieval:error=0.2,min_length=0,sinks=4,window=16", index: "flat:codes=int8" };
      using loaded = await load(spec, emulatedCuda);
      using other = await load("cpu");
      const [mine, theirs] = [run(loaded, options), run(other, options)];
      const error = distance(mine.logits, run(other, { policy: "full" }).logits);
      // Queries differ by what products round, and a draw on the border with them.
      assert(distance(mine.logits, theirs.logits) < error / 2, `${distance(mine.logits, theirs.logits)} of ${error}`);
      assert(Math.abs(mine.stats.retrieved / theirs.stats.retrieved - 1) < 0.01);
      assertEquals(run(loaded, options).logits, mine.logits);
    });
  }

  it("rows are on the host by the time anybody looks, whatever became of what they were copied from", () => {
    using backend = openBackend("hybrid-emulated:keep=0", emulatedCuda);
    // A device whose copies go beside its work.
    assert(backend instanceof HybridBackend && backend.sides.device.fetch !== undefined);
    const before = backend.bytes;
    const rows = () => backend.alloc([1, 4, 2], "f32", "sequence");
    const segment = { start: 0, count: 0, sealed: false, keys: rows(), values: rows() };
    const k = backend.alloc([1, 1, 2], "f32", "step");
    for (let row = 0; row < 4; row++) {
      backend.write(k, Float32Array.of(row, row + 0.5));
      backend.kernels.append(segment, row, k, k);
      backend.kernels.add(k, k, k);
    }
    assertEquals([...backend.read(segment.values)], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]);
    backend.write(k, Float32Array.of(9, 9));
    backend.kernels.append(segment, 1, k, k);
    backend.host?.ready?.();
    backend.kernels.append(segment, 2, k, k);
    // What is under way to memory that ends goes with it.
    backend.free(segment.keys);
    backend.free(segment.values);
    backend.endStep();
    assertEquals(backend.bytes, before);
  });
});
