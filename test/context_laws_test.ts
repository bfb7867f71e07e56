/**
 * Laws of forks: whatever the policy, index and backend, a fork goes on with the bits that the sequence itself would have had,
 * nobody disturbs anybody, and nothing stays allocated.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Loaded } from "../engine/loaded.ts";
import type { KvType } from "../attention/kv_cache.ts";
import { Ops } from "../backends/ops.ts";
import { SequenceState } from "../attention/state.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

const TOKENS = Int32Array.from({ length: 420 }, (_, i) => (i * 31 + (i >> 3)) % TINY_VOCAB);
const OTHER = TOKENS.map((token, i) => i < 300 ? token : (token + 7) % TINY_VOCAB);

function load(backend: string): Promise<Loaded> {
  const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  return tinyLoader()({ model: "tiny", backend }, hooks);
}

/** Runs sequences of one model. */
class Bench implements Disposable {
  readonly #forward: Forward;
  readonly #plan: ReturnType<typeof planAttention>["plan"];

  constructor(readonly loaded: Loaded, policy: string, index?: string, readonly type: KvType = "f32") {
    this.#plan = planAttention({ policy, ...(index === undefined ? {} : { index }) }, loaded.backend).plan;
    this.#forward = new Forward(loaded.model, new Ops(loaded.backend), 512);
  }

  state(): SequenceState {
    const { backend, model } = this.loaded;
    return new SequenceState(backend, model.config.layers, this.type, 400, this.#plan);
  }

  /** Runs tokens `[from, to)`, the first `chunk` of them together; logits after each of the rest. */
  run(state: SequenceState, tokens: Int32Array, from: number, to: number, chunk = 0): number[] {
    const logits: number[] = [];
    const step = (start: number, numTokens: number) => {
      const out = this.#forward.run([{ state, tokens, start, numTokens, numLogits: 1 }]);
      logits.push(...this.loaded.backend.read(out as NonNullable<typeof out>));
      this.loaded.backend.endStep();
    };
    if (chunk > 0) step(from, chunk);
    for (let i = from + chunk; i < to; i++) step(i, 1);
    return logits;
  }

  [Symbol.dispose](): void {
    this.loaded[Symbol.dispose]();
  }
}

/** Comparing tells at once; showing how thousands of numbers differ takes minutes. */
function same(a: readonly number[] | undefined, b: readonly number[]): boolean {
  return a?.length === b.length && a.every((x, i) => Object.is(x, b[i]));
}

function distance(a: readonly number[], b: readonly number[]): number {
  let [error, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += ((a[i] ?? NaN) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return Math.sqrt(error / norm);
}

const POLICIES: [string, string?][] = [
  ["full"],
  ["window:sinks=2,window=40"],
  ["retrieval:error=0.2,min_length=0,sinks=4,window=16", "flat-reference"],
  ["retrieval:error=0.2,min_length=0,sinks=4,window=16", "flat:codes=int4"],
  ["retrieval:budget=9,min_length=0,sinks=4,window=16", "flat"],
];

for (const backend of ["reference", "cpu"]) {
  for (const [policy, index] of POLICIES) {
    if (backend === "reference" && index?.startsWith("flat:") || backend === "reference" && index === "flat") continue;
    describe(`forks of ${policy} over ${index ?? "nothing"} on ${backend}`, () => {
      for (const type of ["f32", "i8"] as const) {
        it(`go on with the bits of the sequence itself, ${type}`, async () => {
          using bench = new Bench(await load(backend), policy, index, type);
          const before = bench.loaded.backend.bytes;
          {
            using alone = bench.state();
            bench.run(alone, TOKENS, 0, 290, 290);
            const want = bench.run(alone, TOKENS, 290, 390);
            using other = bench.state();
            bench.run(other, OTHER, 0, 290, 290);
            const wantOther = bench.run(other, OTHER, 290, 390);
            assert(want.join() !== wantOther.join());

            using source = bench.state();
            bench.run(source, TOKENS, 0, 290, 290);
            const held = bench.loaded.backend.bytes;
            using fork = source.fork(290, 400);
            // All but what searches are noted in is shared until somebody goes on.
            if (index !== "flat-reference") assertEquals(bench.loaded.backend.bytes, held);
            // Two grow side by side, then a third from where the first began, on a source that ends before it does.
            const [a, b]: number[][] = [[], []];
            for (let i = 290; i < 390; i += 10) {
              a?.push(...bench.run(source, TOKENS, i, i + 10));
              b?.push(...bench.run(fork, OTHER, i, i + 10));
            }
            assert(same(a, want) && same(b, wantOther));
            using late = source.fork(290, 400);
            source[Symbol.dispose]();
            assert(same(bench.run(late, OTHER, 290, 390), wantOther));
          }
          assertEquals(bench.loaded.backend.bytes, before);
        });
      }

      it("take over what no longer grows, once", async () => {
        using bench = new Bench(await load(backend), policy, index);
        const before = bench.loaded.backend.bytes;
        {
          using alone = bench.state();
          bench.run(alone, TOKENS, 0, 290, 290);
          const want = bench.run(alone, TOKENS, 290, 390);
          using source = bench.state();
          bench.run(source, TOKENS, 0, 290, 290);
          source.cache.trim();
          using first = source.fork(290, 400, { takesOver: true });
          using second = source.fork(290, 400, { takesOver: true });
          using third = source.fork(200, 400, { takesOver: true });
          const tail = (state: SequenceState) => state.cache.layers[0]?.segments.at(-1);
          assertEquals([tail(first)?.sealed, tail(second)?.sealed, tail(third)?.sealed], [false, true, true]);
          assertEquals([first.cache.capacity, second.cache.capacity, third.cache.capacity], [448, 290, 200]);
          bench.run(third, TOKENS, 200, 290, 90);
          for (const fork of [first, second]) assert(same(bench.run(fork, TOKENS, 290, 390), want));
          // What was read in other chunks differs in last bits.
          const again = bench.run(third, TOKENS, 290, 390);
          assert(distance(again, want) < 1e-4, `${distance(again, want)}`);
        }
        assertEquals(bench.loaded.backend.bytes, before);
      });
    });
  }
}

describe("KvCache.fork()", () => {
  it("of forks of forks holds the same rows, wherever they were cut", async () => {
    for (const backend of ["reference", "cpu"]) {
      using bench = new Bench(await load(backend), "retrieval:error=0,min_length=0,sinks=2,window=8", "flat-reference");
      const before = bench.loaded.backend.bytes;
      {
        const states = [bench.state()];
        bench.run(states[0] as SequenceState, TOKENS, 0, 130, 130);
        // Within the first tile, at its border, behind it, and everything, taken over or not.
        for (
          const [at, to, takesOver] of [[51, 54], [54, 60], [60, 64], [64, 70], [70, 129], [129, 200], [128, 140]]
            .map(([at, to], i) => [at, to, i % 2 === 0] as [number, number, boolean])
        ) {
          const fork = (states.at(-1) as SequenceState).fork(at, 400, { takesOver });
          states.push(fork);
          bench.run(fork, TOKENS, at, to, to - at);
          assertEquals(fork.cache.length, to);
        }
        using alone = bench.state();
        bench.run(alone, TOKENS, 0, 140, 140);
        const [got, want] = [states.at(-1) as SequenceState, alone].map((s) => bench.run(s, TOKENS, 140, 180));
        assert(distance(got as number[], want as number[]) < 1e-4, `${distance(got as number[], want as number[])}`);
        for (const state of states) state[Symbol.dispose]();
      }
      assertEquals(bench.loaded.backend.bytes, before);
    }
  });

  it("refuses tokens that are not there", async () => {
    using bench = new Bench(await load("reference"), "full");
    using state = bench.state();
    bench.run(state, TOKENS, 0, 10, 10);
    assertThrows(() => state.fork(11, 400), RangeError, "Cannot fork cache: at token 11, it holds 10");
    assertThrows(() => state.fork(-1, 400), RangeError, "at token -1");
  });
});
