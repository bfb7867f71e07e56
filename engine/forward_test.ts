import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { KvType } from "../attention/kv_cache.ts";
import type { Loaded } from "./loaded.ts";
import type { Recorded } from "../backends/backend.ts";
import { Unsupported } from "../core/errors.ts";
import { SequenceState } from "../attention/state.ts";
import { StepClock } from "../attention/step_clock.ts";
import { prepareBackend } from "../backends/mod.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "./forward.ts";
import { planAttention } from "./plan.ts";
import { TINY_VOCAB, tinyLoader } from "./tiny_model.ts";

function load(backend?: string): Promise<Loaded> {
  const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  return tinyLoader()({ model: "tiny", ...(backend === undefined ? {} : { backend }) }, hooks);
}

/** The model on the native backend, and how many steps that recorded and repeated; undefined where there is none. */
async function loadRecording(): Promise<
  Loaded & { readonly done: { recorded: number; repeated: number } } | undefined
> {
  try {
    await prepareBackend("cpu");
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    console.log(`repeated steps are not tested: ${error.message}`);
    return undefined;
  }
  const loaded = await load("cpu:threads=2");
  const { record } = loaded.backend;
  assert(record !== undefined);
  const done = { recorded: 0, repeated: 0 };
  Object.defineProperty(loaded.backend, "record", {
    value: <T>(run: () => T): Recorded<T> => {
      done.recorded++;
      const { value, again } = record(run);
      if (again === undefined) return { value, again };
      return { value, again: (tokens, write) => again(tokens, write) && ++done.repeated > 0 };
    },
  });
  return { ...loaded, done };
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

  it("repeats steps to the bit while batches change, segments fill, caches are cut back and policies wait", async () => {
    using loaded = await loadRecording();
    if (loaded === undefined) return;
    const { model, backend, done } = loaded;
    const forward = new Forward(model, new Ops(backend), 512);
    const { plan } = planAttention({ policy: "retrieval:window=64,min_length=4096", index: "flat" }, backend);
    const states = () =>
      Array.from(
        { length: 9 },
        (_, i) => new SequenceState(backend, model.config.layers, "f16", 500, i < 3 ? plan : undefined),
      );
    const [repeating, plain] = [states(), states()];
    const tokens = Int32Array.from({ length: 500 }, (_, i) => (i * 31) % TINY_VOCAB);
    const at = Array.from({ length: 9 }, (_, i) => 180 + 9 * i);
    const run = (all: readonly SequenceState[], rows: readonly number[], clock?: StepClock) => {
      const parts = rows.map((i) => ({
        state: all[i] as SequenceState,
        tokens: tokens.subarray(0, (at[i] as number) + 1), // caches grow as they go
        start: at[i] as number,
        numTokens: 1,
        numLogits: 1,
      }));
      const values = backend.read(forward.run(parts, undefined, clock) as NonNullable<ReturnType<Forward["run"]>>);
      backend.endStep();
      return values;
    };
    for (const state of [...repeating, ...plain]) {
      const numTokens = at[[...repeating, ...plain].indexOf(state) % 9] as number;
      forward.run([{ state, tokens, start: 0, numTokens, numLogits: 1, isPrompt: true }]);
      backend.endStep();
    }
    const batch = (step: number) => [0, 1, 2, 3, 4, 5, 6, 7, 8].filter((i) => step < 60 || i !== 4 || step > 80);
    for (let step = 0; step < 130; step++) {
      if (step === 100) {
        at[2] = (at[2] as number) - 5;
        for (const all of [repeating, plain]) all[2]?.cache.truncate(at[2] as number);
      }
      const rows = batch(step);
      const logits = run(repeating, rows, step % 50 === 7 ? new StepClock() : undefined);
      assertEquals(logits, run(plain, rows, new StepClock()));
      for (const i of rows) at[i] = (at[i] as number) + 1;
    }
    for (const [i, state] of repeating.entries()) {
      assertEquals(state.cache.length, at[i]);
      assertEquals({ ...state.stats(), buildSeconds: 0 }, { ...plain[i]?.stats(), buildSeconds: 0 });
    }
    // A segment of one of nine caches fills now and then, and a step that is not recorded takes the step memory of those that are.
    assert(done.repeated > 20, `${done.repeated} steps of 130 were repeated, ${done.recorded} recorded`);
    assert(done.recorded > 10, `${done.recorded} were recorded`);
    for (const state of [...repeating, ...plain]) state[Symbol.dispose]();
  });

  it("repeats the steps of one sequence until its policy searches, and two in one step", async () => {
    using loaded = await loadRecording();
    if (loaded === undefined) return;
    const { model, backend, done } = loaded;
    const forward = new Forward(model, new Ops(backend), 512);
    const { plan } = planAttention({ policy: "retrieval:window=64,min_length=230", index: "flat" }, backend);
    const tokens = Int32Array.from({ length: 500 }, (_, i) => (i * 31) % TINY_VOCAB);
    const [repeating, plain] = [0, 1].map(() => new SequenceState(backend, model.config.layers, "f16", 500, plan));
    assert(repeating !== undefined && plain !== undefined);
    const run = (state: SequenceState, start: number, numTokens = 1, clock?: StepClock) => {
      const part = { state, tokens, start, numTokens, numLogits: 1, isPrompt: numTokens > 1 };
      return backend.read(forward.run([part], undefined, clock) as NonNullable<ReturnType<Forward["run"]>>);
    };
    for (const state of [repeating, plain]) {
      run(state, 0, 150);
      backend.endStep();
    }
    for (let at = 150; at < 260; at++) {
      const logits = run(repeating, at);
      if (at % 10 !== 0) backend.endStep();
      assertEquals(logits, run(plain, at, 1, new StepClock()));
      backend.endStep();
    }
    assert(done.repeated > 40 && done.repeated < 80, `${done.repeated} steps were repeated, ${done.recorded} recorded`);
    assertEquals(repeating.stats().retrieved, plain.stats().retrieved);
    assert(plain.stats().retrieved > 0);
    for (const state of [repeating, plain]) state[Symbol.dispose]();
  });
});
