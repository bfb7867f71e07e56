import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { EngineOptions, GenerateOptions, TokenEvent } from "./types.ts";

import type { Prompt } from "./protocol.ts";
import { ContextError } from "../core/errors.ts";
import { Engine } from "./engine.ts";
import { localLink } from "./link.ts";
import { tinyLoader } from "./tiny_model.ts";

const MEGABYTES = 64 << 20;
const TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void. ";

/** Without the bytes of "😀": answers are text that can be read again. */
const logitBias = { 0: -Infinity, 1: -Infinity, 2: -Infinity, 3: -Infinity, 4: -Infinity };

function open(options: Partial<Omit<EngineOptions, "backends">> = {}): Promise<Engine> {
  return Engine.openOver((to) => localLink(to, tinyLoader(), {}), { model: "tiny", kvType: "f32", ...options });
}

async function run(engine: Engine, prompt: Prompt, options: GenerateOptions = {}) {
  const tokens: number[] = [];
  let done: Extract<TokenEvent, { type: "done" }> | undefined;
  for await (const event of engine.generate(prompt, { maxTokens: 12, temperature: 0, logitBias, ...options })) {
    if (event.type === "token") tokens.push(event.token);
    if (event.type === "done") done = event;
  }
  assert(done !== undefined);
  return { tokens, done, cached: done.timings.cachedTokens };
}

async function bytes(engine: Engine): Promise<number> {
  return (await engine.info()).bytes;
}

describe("prefixes", () => {
  it("of ended sequences are not read again, and answers stay what they were", async () => {
    const prompts = [TEXT, `${TEXT}Let there be light`, `${TEXT}Let there be darkness`, "And God saw the light"];
    await using plain = await open();
    await using engine = await open({ contextRam: MEGABYTES });
    const cached: number[] = [];
    for (const prompt of prompts) {
      const want = await run(plain, prompt);
      assertEquals(want.cached, 0);
      const got = await run(engine, prompt);
      assertEquals(got.tokens, want.tokens);
      cached.push(got.cached);
    }
    assertEquals(cached, [0, TEXT.length, TEXT.length + "Let there be ".length, 0]);
    const [first] = await engine.contexts.list();
    assert(first !== undefined && first.name === undefined && first.id.startsWith("ctx_"));
    assertEquals((await run(engine, prompts[3] as string, { cachePrompt: false })).cached, 0);
    assertEquals((await run(engine, prompts[3] as string, { cacheSalt: "other" })).cached, 0);
    assertEquals(
      (await run(engine, prompts[3] as string, { cacheSalt: "other" })).cached,
      prompts[3]?.length as number - 1,
    );
  });

  it("where prompts part stay with an index of their own", async () => {
    const policy = "retrieval:error=0.3,min_length=0,window=16,sinks=2";
    const questions = ["Let there be light", "and it was so", "Who was it?", "Why?"].map((end) => `${TEXT}${end}`);
    await using plain = await open({ policy });
    await using engine = await open({ policy, contextRam: MEGABYTES });
    const empty = await bytes(engine);
    const sizes: number[] = [];
    for (const prompt of questions) {
      const want = await run(plain, prompt);
      const got = await run(engine, prompt);
      assertEquals(got.tokens, want.tokens);
      sizes.push((await engine.contexts.list()).filter(({ tokens }) => tokens === TEXT.length).length);
    }
    // The first prompt parts from none; the second does, and what is kept there serves the others.
    assertEquals(sizes, [0, 1, 1, 1]);
    const all = await engine.contexts.list();
    const branch = all.find(({ tokens }) => tokens === TEXT.length);
    assertEquals(all.filter(({ parent }) => parent === branch?.id).length, 2);
    for (const { id } of all) await engine.contexts.delete(id);
    assertEquals(await bytes(engine), empty);
  });

  it("of a conversation are its earlier turns", async () => {
    await using engine = await open({ contextRam: MEGABYTES });
    const first = [{ role: "user", content: TEXT }] as const;
    const { tokens } = await run(engine, first);
    const answer = await engine.detokenize(Int32Array.from(tokens));
    const second = [...first, { role: "assistant", content: answer }, { role: "user", content: "Why?" }] as const;
    const { cached } = await run(engine, second);
    assert(cached >= "user: ".length + TEXT.length, `${cached}`);
  });

  it("of running sequences are shared while they run", async () => {
    await using engine = await open({ contextRam: MEGABYTES });
    await using plain = await open();
    const alone = [await run(plain, `${TEXT}a`, { maxTokens: 40 }), await run(plain, `${TEXT}b`)];
    const events = engine.generate(`${TEXT}a`, { maxTokens: 40, temperature: 0 })[Symbol.asyncIterator]();
    const tokens: number[] = [];
    let other: Promise<Awaited<ReturnType<typeof run>>> | undefined;
    for (let next = await events.next(); next.done !== true; next = await events.next()) {
      if (next.value.type !== "token") continue;
      tokens.push(next.value.token);
      other ??= run(engine, `${TEXT}b`);
    }
    const { tokens: got, cached } = await other as Awaited<ReturnType<typeof run>>;
    assertEquals(cached, TEXT.length);
    assertEquals([tokens, got], alone.map((r) => r.tokens));
  });

  it("go when there is no room, the least recently used first, and all at the end", async () => {
    await using engine = await open({ contextRam: 100_000 });
    const empty = await bytes(engine);
    for (const start of ["first ", "second ", "third ", "fourth "]) await run(engine, start + TEXT);
    const all = await engine.contexts.list();
    assert(all.length > 0 && all.length < 4, `${all.length} are kept`);
    assert(await bytes(engine) - empty <= 100_000);
    assertEquals((await run(engine, "first " + TEXT)).cached, 0);
    for (const { id } of await engine.contexts.list()) await engine.contexts.delete(id);
    assertEquals(await bytes(engine), empty);
  });
});

describe("Engine.contexts", () => {
  it("create() reads a prompt once, for any number of questions", async () => {
    await using engine = await open();
    const empty = await bytes(engine);
    const seen: number[] = [];
    const info = await engine.contexts.create(TEXT, {
      name: "genesis",
      metadata: { book: "1" },
      onProgress: (p) => seen.push(p.done),
    });
    assertEquals([info.name, info.tokens, info.metadata], ["genesis", TEXT.length, { book: "1" }]);
    assertEquals(seen.at(-1), TEXT.length);
    assertEquals(info.fingerprint.model, "tiny-1");
    const held = await bytes(engine);
    await using plain = await open();
    for (const question of ["Who?", "What?", "Who?"]) {
      const { tokens, done } = await run(engine, question, { context: "genesis" });
      assertEquals(done.timings.cachedTokens, TEXT.length);
      assertEquals(done.beganWith, info.id);
      assertEquals(tokens, (await run(plain, TEXT + question)).tokens);
      assertEquals(await bytes(engine), held);
    }
    await engine.contexts.delete("genesis");
    assertEquals(await bytes(engine), empty);
    await assertRejects(() => engine.contexts.show("genesis"), ContextError, "there is none");
  });

  it("conversations go on where they were saved", async () => {
    await using engine = await open();
    await engine.contexts.create([{ role: "user", content: TEXT }], { name: "book" });
    const asked = await run(engine, [{ role: "user", content: "Who?" }], { context: "book", saveContext: "chat" });
    assert(asked.cached >= TEXT.length && asked.done.savedAs !== undefined);
    await using plain = await open();
    const whole = [{ role: "user", content: `${TEXT}\n\nWho?` }] as const;
    assertEquals(asked.tokens, (await run(plain, whole)).tokens);
    const again = await run(engine, [{ role: "user", content: "Why?" }], { context: "chat", saveContext: "chat" });
    assert(again.cached > asked.cached);
    const shown = await engine.contexts.show("chat");
    assertEquals([shown.id, shown.parent], [again.done.savedAs as string, asked.done.savedAs as string]);
    await assertRejects(
      async () => {
        await engine.contexts.create(TEXT, { name: "text" });
        await run(engine, [{ role: "user", content: "?" }], { context: "text" });
      },
      ContextError,
      "made from text",
    );
  });

  it("fork() copies nothing, and both go on", async () => {
    await using engine = await open();
    await engine.contexts.create(TEXT, { name: "a" });
    const held = await bytes(engine);
    const fork = await engine.contexts.fork("a", { name: "b" });
    const half = await engine.contexts.fork("a", { name: "half", atToken: 40 });
    assertEquals(await bytes(engine), held);
    assertEquals([fork.tokens, half.tokens, fork.parent], [TEXT.length, 40, (await engine.contexts.show("a")).id]);
    await engine.contexts.delete("a");
    await using plain = await open();
    assertEquals((await run(engine, "Who?", { context: "b" })).tokens, (await run(plain, `${TEXT}Who?`)).tokens);
    const short = await run(engine, "Who?", { context: "half" });
    assertEquals(short.tokens, (await run(plain, `${TEXT.slice(0, 40)}Who?`)).tokens);
    await assertRejects(() => engine.contexts.fork("b", { name: "half" }), ContextError, "exists already");
    await assertRejects(() => engine.contexts.fork("b", { name: "c", atToken: 9999 }), RangeError, "at token 9999");
    const matches = await engine.contexts.lookup(TEXT);
    assertEquals(matches.map((m) => [m.context.name, m.matchedTokens]), [["b", TEXT.length], ["half", 40]]);
  });

  it("update() renames, and lifetimes end", async () => {
    await using engine = await open();
    await engine.contexts.create(TEXT, { name: "a" });
    const changed = await engine.contexts.update("a", { name: "b", ttlSeconds: 0.05, metadata: { x: "y" } });
    assertEquals([changed.name, changed.metadata], ["b", { x: "y" }]);
    assert(changed.expiresMs !== undefined);
    await new Promise((resolve) => setTimeout(resolve, 80));
    assertEquals(await engine.contexts.list(), []);
  });

  it("says what is wrong", async () => {
    await using engine = await open();
    for (const name of ["../x", "", "a/b", "..", "x".repeat(65), "ctx_1", "a b", "ü"]) {
      await assertRejects(() => engine.contexts.create(TEXT, { name }), RangeError, "Cannot name context");
      await assertRejects(() => run(engine, TEXT, { saveContext: name }), RangeError, "Cannot name context");
    }
    await assertRejects(() => run(engine, "x", { context: "nope" }), ContextError, 'Cannot find context "nope"');
    await assertRejects(() => engine.contexts.create(TEXT, { name: "a", ttlSeconds: -1 }), RangeError, "ttlSeconds");
    const metadata = Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}`, ""]));
    await assertRejects(() => engine.contexts.create(TEXT, { name: "a", metadata }), RangeError, "metadata");
    const error = await assertRejects(() => engine.contexts.delete("nope"), ContextError);
    assertEquals(error.kind, "missing");
  });

  it("a cancelled create() leaves nothing", async () => {
    await using engine = await open({ batchSize: 8 });
    const empty = await bytes(engine);
    const controller = new AbortController();
    const made = engine.contexts.create(TEXT, {
      name: "a",
      signal: controller.signal,
      onProgress: () => controller.abort(new DOMException("no more", "AbortError")),
    });
    await assertRejects(() => made, DOMException, "no more");
    assertEquals([await engine.contexts.list(), await bytes(engine)], [[], empty]);
  });
});
