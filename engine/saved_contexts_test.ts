import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { EngineOptions, GenerateOptions, TokenEvent } from "./types.ts";
import type { Prompt } from "./protocol.ts";
import { ContextError, Unsupported } from "../core/errors.ts";
import { Engine } from "./engine.ts";
import { localLink } from "./link.ts";
import { tinyLoader } from "./tiny_model.ts";

const TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void. ".repeat(
  4,
);
const RETRIEVAL = { policy: "retrieval:error=0.2,min_length=0,sinks=4,window=16", index: "flat:codes=int4" };

function open(options: Partial<Omit<EngineOptions, "backends">>, seed = 1): Promise<Engine> {
  const tiny = tinyLoader({ contextLength: 2000, seed });
  return Engine.openOver((to) => localLink(to, tiny, {}), { model: "tiny", backend: "cpu", ...options });
}

async function run(engine: Engine, prompt: Prompt, options: GenerateOptions = {}) {
  const tokens: number[] = [];
  let done: Extract<TokenEvent, { type: "done" }> | undefined;
  for await (const event of engine.generate(prompt, { maxTokens: 40, temperature: 0, ignoreEos: true, ...options })) {
    if (event.type === "token") tokens.push(event.token);
    if (event.type === "done") done = event;
  }
  assert(done !== undefined);
  return { tokens, done, cached: done.timings.cachedTokens };
}

async function folder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await body(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

describe("contexts on disk", () => {
  const ways: Partial<EngineOptions>[] = [
    { kvType: "f16" },
    { kvType: "i8", ...RETRIEVAL },
    { kvType: "f32", policy: "window:sinks=4,window=100" },
    { ...RETRIEVAL, index: "flat-reference" },
  ];
  for (const options of ways) {
    it(`go on with the same tokens in another engine: ${JSON.stringify(options)}`, async () => {
      await folder(async (contextDir) => {
        let want: number[];
        let id: string;
        {
          await using engine = await open({ ...options, contextDir });
          const made = await engine.contexts.create(TEXT, { name: "book", metadata: { a: "b" } });
          id = made.id;
          assert(made.bytes.disk > 2 * made.tokens && made.tokens === TEXT.length);
          want = (await run(engine, "Who was there?", { context: "book" })).tokens;
        }
        for (let i = 0; i < 2; i++) {
          await using engine = await open({ ...options, contextDir });
          const before = (await engine.info()).bytes;
          assertEquals((await engine.contexts.list()).map((c) => [c.name, c.id, c.metadata]), [["book", id, {
            a: "b",
          }]]);
          const { tokens, cached, done } = await run(engine, "Who was there?", { context: i === 0 ? "book" : id });
          assertEquals([cached, done.beganWith], [TEXT.length, id]);
          assertEquals(tokens, want);
          // By its prefix, without a name; and a second turn that is saved in its turn.
          const again = await run(engine, `${TEXT}Who was there?`, { saveContext: "turn" });
          assertEquals([again.cached, again.tokens], [TEXT.length, want]);
          const grown = await engine.contexts.show("turn");
          assert(grown.tokens > TEXT.length && grown.parent === id && grown.bytes.disk > 0);
          await engine.contexts.delete("turn");
          const fork = await engine.contexts.fork("book", { name: "half", atToken: 300 });
          assertEquals([fork.tokens, fork.bytes.disk > 0], [300, true]);
          await engine.contexts.delete("half");
          await engine.contexts.update("book", { name: "tome" });
          await engine.contexts.update("tome", { name: "book" });
          assertEquals((await engine.info()).bytes, before);
        }
        assertEquals([...Deno.readDirSync(contextDir)].map((f) => f.name), ["book.kvctx"]);
      });
    });
  }

  it("are refused by name of what differs", async () => {
    await folder(async (contextDir) => {
      {
        await using engine = await open({ contextDir, ...RETRIEVAL });
        await engine.contexts.create(TEXT, { name: "book" });
      }
      const others: [string, Partial<EngineOptions>, number][] = [["model", {}, 2], ["kvType", { kvType: "f32" }, 1]];
      for (const [field, options, seed] of others) {
        await using engine = await open({ contextDir, ...RETRIEVAL, ...options }, seed);
        const error = await assertRejects(() => run(engine, "?", { context: "book" }), ContextError, `its ${field} is`);
        assertEquals([error.kind, error.field], ["mismatch", field]);
        assertEquals((await run(engine, `${TEXT}?`)).cached, 0);
      }
      await using engine = await open({ contextDir, backend: "reference", ...RETRIEVAL, index: "flat-reference" });
      assertEquals((await run(engine, TEXT.slice(0, 50), { maxTokens: 2 })).cached, 0);
      await assertRejects(() => engine.contexts.create("some text", { name: "x" }), Unsupported, "keeps no files");
    });
  });

  it("make room for each other, and say so when there is none", async () => {
    await folder(async (contextDir) => {
      await using engine = await open({ contextDir, contextDisk: 250_000 });
      const { bytes } = await engine.contexts.create(TEXT, { name: "a" });
      assert(bytes.disk > 70_000 && bytes.disk < 100_000, `${bytes.disk}`);
      for (const name of ["b", "c", "d"]) await engine.contexts.create(`${name}${TEXT}`, { name });
      const files = [...Deno.readDirSync(contextDir)].map((f) => f.name).sort();
      assert(files.includes("d.kvctx") && files.length < 4, files.join());
      await using small = await open({ contextDir, contextDisk: 1000 });
      const error = await assertRejects(() => small.contexts.create(TEXT, { name: "e" }), ContextError, "it takes");
      assertEquals(error.kind, "full");
      assertEquals([...Deno.readDirSync(contextDir)].length, files.length);
    });
  });
});
