import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import type { EngineOptions, GenerateOptions, TokenEvent } from "./types.ts";
import type { Prompt } from "./protocol.ts";
import { DoesNotFit, NativeError } from "../core/errors.ts";
import { Engine } from "./engine.ts";
import { localLink } from "./link.ts";
import { tinyLoader, type TinyOptions } from "./tiny_model.ts";

type Options = Partial<Omit<EngineOptions, "backends">> & TinyOptions;

function open({ seed, contextLength, onBackend, ...options }: Options = {}): Promise<Engine> {
  const tiny = {
    ...(seed === undefined ? {} : { seed }),
    ...(contextLength === undefined ? {} : { contextLength }),
    ...(onBackend === undefined ? {} : { onBackend }),
  };
  return Engine.openOver((to) => localLink(to, tinyLoader(tiny), {}), { model: "tiny", ...options });
}

type Done = Extract<TokenEvent, { type: "done" }>;
type Token = Extract<TokenEvent, { type: "token" }>;

interface Run {
  readonly text: string;
  readonly tokens: number[];
  readonly events: Token[];
  readonly done: Done;
}

async function run(
  engine: Engine,
  prompt: Prompt,
  options: GenerateOptions = {},
): Promise<Run> {
  const events: Token[] = [];
  let done: Done | undefined;
  for await (const event of engine.generate(prompt, { maxTokens: 20, temperature: 0, ...options })) {
    if (event.type === "token") events.push(event);
    if (event.type === "done") done = event;
  }
  assert(done !== undefined);
  return { text: events.map((e) => e.text).join(""), tokens: events.map((e) => e.token), events, done };
}

const LONG = "In the beginning God created the heaven and the earth. ".repeat(6);

describe("Engine.generate()", () => {
  it("streams text with timings, the same at every opening", async () => {
    const runs: Run[] = [];
    for (let i = 0; i < 2; i++) {
      await using engine = await open();
      runs.push(await run(engine, "Hello"));
      runs.push(await run(engine, "Hello"));
    }
    const [first] = runs as [Run];
    assertEquals(first.tokens.length, 20);
    assertEquals([first.done.reason, first.done.timings.promptTokens], ["length", 5]);
    assertEquals(first.done.timings.predictedTokens, 20);
    for (const { tokens } of runs) assertEquals(tokens, first.tokens);
    assert(new Set(first.tokens).size > 3, "the tiny model should not repeat itself");
  });

  it("draws the same tokens for the same seed, others for another", async () => {
    await using engine = await open();
    const sampling = { temperature: 1, seed: 7 };
    const a = await run(engine, "Hello", sampling);
    assertEquals((await run(engine, "Hello", sampling)).tokens, a.tokens);
    assert((await run(engine, "Hello", { temperature: 1, seed: 8 })).tokens.join() !== a.tokens.join());
    const drawn = await run(engine, "Hello", { temperature: 1 });
    assertEquals((await run(engine, "Hello", { temperature: 1, seed: drawn.done.seed })).tokens, drawn.tokens);
  });

  it("gives the same in chunks of any size as in one", async () => {
    const seen: number[][] = [];
    for (const batchSize of [1, 7, 2048]) {
      await using engine = await open({ batchSize, kvType: "f32" });
      seen.push((await run(engine, LONG)).tokens);
    }
    assertEquals(seen[1], seen[0]);
    assertEquals(seen[2], seen[0]);
  });

  it("gives sequences that run together what each gets alone", async () => {
    await using engine = await open({ parallel: 3 });
    const prompts = ["Hello", LONG, "x", "The quick brown fox", LONG.slice(9)];
    const alone: number[][] = [];
    for (const prompt of prompts) alone.push((await run(engine, prompt)).tokens);
    const together = await Promise.all(prompts.map((prompt) => run(engine, prompt)));
    assertEquals(together.map((r) => r.tokens), alone);
  });

  it("works with every type of cache", async () => {
    for (const kvType of ["f32", "f16", "i8"] as const) {
      await using engine = await open({ kvType });
      assertEquals((await engine.info()).kvType, kvType);
      assertEquals((await run(engine, LONG)).tokens.length, 20);
    }
  });

  it("ends at an end token, a stop token, a stop string, and a full context", async () => {
    await using engine = await open({ ctxSize: 64 });
    const plain = await run(engine, "Hello", { maxTokens: Infinity });
    assertEquals([plain.done.reason, plain.tokens.length], ["length", 59]);
    const stop = plain.tokens[6] as number;
    const at = plain.tokens.indexOf(stop);
    const byToken = await run(engine, "Hello", { stopTokens: [stop] });
    assertEquals([byToken.done.reason, byToken.done.stop, byToken.tokens.length], ["stop", stop, at + 1]);
    assertEquals(byToken.text, plain.events.slice(0, at).map((e) => e.text).join(""));
    const byEos = await run(engine, "Hello", { logitBias: { 0: 1e9 } });
    assertEquals([byEos.done.reason, byEos.done.stop, byEos.text], ["stop", 0, ""]);
    const word = plain.text.slice(4, 7);
    const byText = await run(engine, "Hello", { stop: ["never", word] });
    assertEquals([byText.done.reason, byText.done.stop], ["stop", word]);
    assertEquals(byText.text, plain.text.slice(0, plain.text.indexOf(word)));
  });

  it("bans end tokens before minTokens, and altogether with ignoreEos", async () => {
    await using engine = await open();
    const eager = { logitBias: { 0: 1000 } };
    assertEquals((await run(engine, "Hello", eager)).tokens, [0]);
    assertEquals((await run(engine, "Hello", { ...eager, minTokens: 3 })).tokens.length, 4);
    assertEquals((await run(engine, "Hello", { ...eager, ignoreEos: true })).tokens.includes(0), false);
  });

  it("holds back text until it is whole UTF-8", async () => {
    await using engine = await open();
    const emoji = { 1: 1e6, 2: 0, 3: 0, 4: 0 };
    const cut = await run(engine, "x", { logitBias: emoji, maxTokens: 2 });
    assertEquals([cut.tokens, cut.events.map((e) => e.text)], [[1, 1], ["", "\ufffd\ufffd"]]);
    assertEquals(await engine.detokenize(await engine.tokenize("a😀b")), "a😀b");
  });

  it("penalizes repetition", async () => {
    await using engine = await open();
    const { tokens } = await run(engine, "Hello", { presencePenalty: 100, maxTokens: 40 });
    assertEquals(new Set(tokens).size, 40);
    const fresh = await run(engine, "Hello", { repetitionPenalty: 1e6, maxTokens: 40 });
    assert(new Set(fresh.tokens).size > 30);
  });

  it("reports log-probabilities of the raw softmax, as evaluate() does", async () => {
    await using engine = await open({ kvType: "f32" });
    const prompt = await engine.tokenize("Hello");
    const sampling = { logprobs: 3, temperature: 1, seed: 3, presencePenalty: 1.5, logitBias: { 65: 3 } };
    const { tokens, events } = await run(engine, prompt, sampling);
    const all = Int32Array.from([...prompt, ...tokens]);
    const { logprobs } = await engine.evaluate(all, { from: prompt.length, mode: "decode" });
    for (const [i, event] of events.entries()) {
      assert(Math.abs((event.logprob?.logprob as number) - (logprobs[i] as number)) < 1e-4);
      const top = event.top ?? [];
      assertEquals(top.length, 3);
      assert((top[0]?.logprob as number) >= (event.logprob?.logprob as number));
      assert(top.every((t, k) => k === 0 || t.logprob <= (top[k - 1]?.logprob as number)));
    }
    const greedy = await run(engine, prompt, { logprobs: 1 });
    assertEquals(greedy.events.map((e) => e.top?.[0]?.token), greedy.tokens);
  });

  it("renders conversations", async () => {
    await using engine = await open();
    const { done } = await run(engine, [{ role: "user", content: "Hi" }]);
    assertEquals(done.timings.promptTokens, "user: Hi\n".length);
  });

  it("attends as each request wishes", async () => {
    await using engine = await open();
    const narrow = { attention: { policy: "window:sinks=1,window=8" } };
    const [all, few] = await Promise.all([run(engine, LONG), run(engine, LONG, narrow)]);
    assertEquals(all.done.attended?.dense, all.done.attended?.queries);
    assertEquals(few.done.attended?.layers, 2);
    assert((few.done.attended?.spanned ?? 0) < 12 * (few.done.attended?.queries ?? 0));
    await assertRejects(() => run(engine, LONG, { attention: { policy: "none" } }), RangeError, "policy");
  });

  it("encodes and renders without generating", async () => {
    await using engine = await open();
    const conversation = { messages: [{ role: "user", content: "Hi" }] as const };
    assertEquals(await engine.render(conversation), "user: Hi\n");
    assertEquals(await engine.encode(conversation), await engine.encode("user: Hi\n"));
  });

  it("refuses what does not fit or makes no sense", async () => {
    await using engine = await open({ ctxSize: 16 });
    const error = await assertRejects(() => run(engine, "x".repeat(16)), DoesNotFit, "16 tokens, the context holds 16");
    assertEquals(error.counts, { promptTokens: 16, ctxSize: 16 });
    await assertRejects(() => run(engine, ""), RangeError, "prompt is empty");
    await assertRejects(() => run(engine, Int32Array.of(999)), RangeError, "token 999");
    await assertRejects(() => run(engine, "x", { temperature: -1 }), RangeError, "temperature");
    await assertRejects(() => run(engine, "x", { stop: [""] }), RangeError, "one is empty");
    assertEquals((await run(engine, "x")).tokens.length, 15);
  });
});

describe("Engine", () => {
  it("frees what a generation held when it ends, fails, is cancelled or left", async () => {
    let backend: Backend | undefined;
    await using engine = await open({ onBackend: (b) => backend = b });
    const before = (await engine.info()).bytes;
    const check = async (what: string) => assertEquals((await engine.info()).bytes, before, what);
    assert(before > 0);
    await run(engine, LONG);
    await check("end");
    for await (const event of engine.generate(LONG, { temperature: 0 })) if (event.type === "token") break;
    await check("break");
    const abort = new AbortController();
    for await (const event of engine.generate(LONG, { signal: abort.signal })) {
      if (event.type === "prefill") abort.abort();
      if (event.type === "done") assertEquals(event.reason, "cancelled");
    }
    await check("abort");
    const { done, tokens } = await run(engine, LONG, { signal: AbortSignal.abort() });
    assertEquals([done.reason, tokens.length], ["cancelled", 0]);
    await check("aborted before");
    const attendCausal = (backend as Backend).kernels.attendCausal;
    let calls = 0;
    (backend as Backend).kernels.attendCausal = (...args) => {
      if (++calls === 7) throw new NativeError(2, "Cannot allocate: out of memory");
      attendCausal(...args);
    };
    const failed = await assertRejects(() => run(engine, LONG), NativeError, "out of memory");
    assertEquals(failed.code, 2);
    await check("failure");
    assertEquals((await run(engine, "Hello")).tokens.length, 20);
  });

  it("cancels one generation while others go on", async () => {
    await using engine = await open();
    const expected = (await run(engine, "Hello", { maxTokens: 60 })).tokens;
    const abort = new AbortController();
    const cancelled = run(engine, LONG, { maxTokens: 200, signal: abort.signal });
    const other = run(engine, "Hello", { maxTokens: 60 });
    setTimeout(() => abort.abort(), 5);
    assertEquals((await other).tokens, expected);
    assertEquals((await cancelled).done.reason, "cancelled");
  });

  it("closes twice, ends what runs and refuses what comes later", async () => {
    const engine = await open();
    const running = run(engine, LONG, { maxTokens: 200 });
    const unheard = engine.generate("later");
    await Promise.all([engine[Symbol.asyncDispose](), engine[Symbol.asyncDispose]()]);
    assertEquals((await running).done.reason, "cancelled");
    await assertRejects(() => unheard.next(), TypeError, "it was closed");
    await assertRejects(() => engine.info(), TypeError, "it was closed");
  });

  it("open() refuses wrong options, and says when the context is longer than trained", async () => {
    for (const options of [{ ctxSize: 0 }, { batchSize: 1.5 }, { parallel: -1 }]) {
      await assertRejects(() => open(options), RangeError, `${Object.keys(options)[0]} is`);
    }
    const notices: string[] = [];
    await using engine = await open({ ctxSize: 700, onNotice: (text) => notices.push(text) });
    assertEquals((await engine.info()).ctxSize, 700);
    assert(notices[0]?.includes("700"));
    await assertRejects(() => open({ signal: AbortSignal.abort() }), DOMException, "abort");
  });
});
