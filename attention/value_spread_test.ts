import { assert, assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import type { Kernels } from "../backends/backend.ts";
import { openBackend } from "../backends/mod.ts";
import { Ops } from "../backends/ops.ts";
import { HitsBuffer } from "../index/hits.ts";
import { IndexRegistry } from "../index/mod.ts";
import { KvCache } from "./kv_cache.ts";
import { valueSpread } from "./value_spread.ts";

const [HEADS, KV_HEADS, DIM, INDEXED, LENGTH, QUERIES] = [6, 2, 32, 1500, 1600, 12] as const;

/** Sums of uniform numbers: nearly normal. */
function bells(seed: number, count: number): Float32Array<ArrayBuffer> {
  let state = seed * 2654435761 >>> 0;
  const uniform = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Float32Array.from(
    { length: count },
    () => Math.SQRT2 * (uniform() + uniform() + uniform() + uniform() - 2) * 1.2,
  );
}

it("the estimated error of sampled outputs is their error, for values of any size beside the output's", () => {
  using backend = openBackend("reference");
  const { attendCausal, attendWindow, attendTopk, merge } = backend.kernels as Required<Kernels>;
  const shape = { heads: HEADS, kvHeads: KV_HEADS, headDim: DIM, scale: DIM ** -0.5 };
  for (const [sharp, mean] of [[1, 0], [1, 2], [3, 0], [3, 2]] as const) {
    using cache = new KvCache(backend, [shape], "f32", 2048);
    cache.reserve(LENGTH);
    const rows = (seed: number, n: number, heads: number, factor: number, shift: number) => {
      const tensor = backend.alloc([n, heads, DIM], "f32", "step");
      backend.write(tensor, bells(seed, n * heads * DIM).map((x) => factor * x + shift) as Float32Array<ArrayBuffer>);
      return tensor;
    };
    cache.append(0, rows(1, LENGTH, KV_HEADS, 1, 0), rows(2, LENGTH, KV_HEADS, 1, mean));
    const kv = cache.layers[0] as typeof cache.layers[0] & object;
    using index = new IndexRegistry().create("flat-reference", kv, backend);
    index.add({ start: 0, count: INDEXED });
    index.commit();
    using hits = new HitsBuffer(backend);
    let [told, real, spread] = [0, 0, 0];
    for (let i = 0; i < QUERIES; i++) {
      const q = rows(100 + i, 1, HEADS, sharp, 0);
      const part = () => ({
        o: backend.alloc([1, HEADS, DIM], "f32", "step"),
        lse: backend.alloc([1, HEADS], "f32", "step"),
      });
      const [near, far, out, whole] = [part(), part(), part().o, part().o];
      attendWindow(near, q, kv, Int32Array.of(INDEXED, LENGTH));
      index.search(hits, q, { error: 0.05, draw: 1000 + i }, near.lse);
      attendTopk(far, q, kv, hits);
      merge(out, [near, far]);
      attendCausal(whole, q, kv);
      const [a, b] = [backend.read(out), backend.read(whole)];
      for (let h = 0; h < HEADS; h++) {
        let [error, size] = [0, 0];
        for (let j = h * DIM; j < (h + 1) * DIM; j++) {
          error += ((a[j] as number) - (b[j] as number)) ** 2;
          size += (b[j] as number) ** 2;
        }
        real += error / size / HEADS / QUERIES;
      }
      for (const e of backend.read(hits.estimatedError)) told += e / KV_HEADS / QUERIES;
      spread += (valueSpread(new Ops(backend), attendTopk, kv, hits, q, out) as number) ** 2 / QUERIES;
    }
    const estimate = told * Math.sqrt(spread);
    const ratio = estimate / Math.sqrt(real);
    assert(ratio > 0.6 && ratio < 1.6, `sharp ${sharp}, mean ${mean}: ${estimate} beside ${Math.sqrt(real)}`);
    if (mean === 0) assert(told < Math.sqrt(real) / 2, "weights alone would do");
    assertEquals(
      valueSpread(new Ops(backend), attendTopk, kv, { tokens: hits.tokens, counts: hits.counts }, near0(), near0()),
      undefined,
    );
    backend.endStep();
  }

  function near0() {
    return backend.alloc([1, HEADS, DIM], "f32", "step");
  }
});
