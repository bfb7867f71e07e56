import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { KvType } from "../attention/kv_cache.ts";
import type { Loaded } from "./loaded.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "./forward.ts";
import { planAttention } from "./plan.ts";
import { TINY_VOCAB, tinyLoader } from "./tiny_model.ts";

function load(): Promise<Loaded> {
  const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  return tinyLoader()({ model: "tiny" }, hooks);
}

const TOKENS = Int32Array.from({ length: 300 }, (_, i) => (i * 31) % TINY_VOCAB);

describe("Forward.run()", () => {
  it("leaves caches as they were when it is interrupted at any layer, and can be run again", async () => {
    using loaded = await load();
    const { model, backend } = loaded;
    const forward = new Forward(model, new Ops(backend), 512);
    const logits = (state: SequenceState, start: number, numTokens: number, isInterrupted?: () => boolean) => {
      const out = forward.run([{ state, tokens: TOKENS, start, numTokens, numLogits: 1 }], isInterrupted);
      const values = out === undefined ? undefined : backend.read(out);
      backend.endStep();
      return values;
    };
    for (const type of ["f32", "i8"] satisfies KvType[]) {
      using plain = new SequenceState(backend, model.config.layers, type, 400, undefined);
      using cut = new SequenceState(backend, model.config.layers, type, 400, undefined);
      for (const [start, count] of [[0, 7], [7, 249], [256, 1], [257, 43]] as const) {
        for (let at = 1; at <= model.config.layers.length; at++) {
          let asked = 0;
          assertEquals(logits(cut, start, count, () => ++asked === at), undefined);
          assertEquals(cut.cache.layers.map((kv) => kv.length), model.config.layers.map(() => start));
          assertEquals(
            cut.cache.layers.map((kv) => kv.segments.reduce((sum, s) => sum + s.count, 0)),
            cut.cache.layers.map(() => start),
          );
        }
        assertEquals(logits(cut, start, count, () => false), logits(plain, start, count));
      }
      assertEquals(
        cut.cache.layers[0]?.segments.map((s) => s.sealed),
        plain.cache.layers[0]?.segments.map((s) => s.sealed),
      );
    }
  });

  it("gives the wanted rows of several sequences, side by side", async () => {
    using loaded = await load();
    const { model, backend } = loaded;
    const forward = new Forward(model, new Ops(backend), 512);
    const state = () => new SequenceState(backend, model.config.layers, "f32", 400, undefined);
    using a = state();
    using b = state();
    using alone = state();
    const part = (state: SequenceState, start: number, numTokens: number, numLogits: number) => ({
      state,
      tokens: TOKENS,
      start,
      numTokens,
      numLogits,
    });
    const read = (...parts: ReturnType<typeof part>[]) => {
      const values = backend.read(forward.run(parts) as NonNullable<ReturnType<Forward["run"]>>);
      backend.endStep();
      return values;
    };
    assertEquals(read(part(b, 0, 20, 0)).length, 0);
    const both = read(part(a, 0, 30, 1), part(b, 20, 1, 1));
    const [first, second] = [both.slice(0, TINY_VOCAB), both.slice(TINY_VOCAB)];
    assertEquals(read(part(alone, 0, 21, 1)), second);
    alone.cache.truncate(0);
    assertEquals(read(part(alone, 0, 30, 3)).slice(2 * TINY_VOCAB), first);
    assert(first.some((x, i) => x !== second[i]));
    assertThrows(() => forward.run([part(a, 30, 1, 1), part(b, 21, 2, 1)]), RangeError, "only its first part");
  });

  it("gives sequences that decode side by side what each gets alone, whatever it attends to", async () => {
    using loaded = await load();
    const { model, backend } = loaded;
    const forward = new Forward(model, new Ops(backend), 512);
    const { plan: window } = planAttention({ policy: "window:sinks=2,window=8" }, backend);
    const plans = [undefined, window, undefined, undefined, window];
    const lengths = [30, 40, 1, 7, 5];
    const states = () => plans.map((plan) => new SequenceState(backend, model.config.layers, "f16", 400, plan));
    const prompt = (state: SequenceState, length: number) => {
      forward.run([{ state, tokens: TOKENS, start: 0, numTokens: length, numLogits: 1, isPrompt: true }]);
      backend.endStep();
    };
    const decode = (all: readonly SequenceState[], at: number[]) => {
      const parts = all.map((state, i) => ({
        state,
        tokens: TOKENS,
        start: at[i] as number,
        numTokens: 1,
        numLogits: 1,
      }));
      const values = backend.read(forward.run(parts) as NonNullable<ReturnType<Forward["run"]>>);
      backend.endStep();
      return all.map((_, i) => values.slice(i * TINY_VOCAB, (i + 1) * TINY_VOCAB));
    };
    const [together, alone] = [states(), states()];
    for (const [i, length] of lengths.entries()) {
      prompt(together[i] as SequenceState, length);
      prompt(alone[i] as SequenceState, length);
    }
    for (let step = 0; step < 3; step++) {
      const at = lengths.map((length) => length + step);
      const each = alone.flatMap((state, i) => decode([state], [at[i] as number]));
      assertEquals(decode(together, at), each);
      together.forEach((state, i) => assertEquals(state.stats(), alone[i]?.stats()));
    }
    for (const state of [...together, ...alone]) state[Symbol.dispose]();
  });
});
