import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { DoesNotFit, ModelFileError } from "../core/errors.ts";
import { Engine } from "./engine.ts";
import { localLink } from "./link.ts";
import { TINY_VOCAB, tinyLoader } from "./tiny_model.ts";

function open(seed = 1, ctxSize = 300): Promise<Engine> {
  return Engine.openOver((to) => localLink(to, tinyLoader({ seed }), {}), { model: "tiny", kvType: "f32", ctxSize });
}

const TOKENS = Int32Array.from({ length: 200 }, (_, i) => (i * 37 + (i >> 3)) % TINY_VOCAB);

describe("Engine.evaluate()", () => {
  it("scores alike in chunks and token by token, and frees its cache", async () => {
    await using engine = await open();
    const before = (await engine.info()).bytes;
    const prefill = await engine.evaluate(TOKENS, { from: 1, mode: "prefill" });
    const decode = await engine.evaluate(TOKENS, { from: 150, mode: "decode" });
    assertEquals([prefill.logprobs.length, decode.logprobs.length], [199, 50]);
    assertEquals(decode.logprobs, prefill.logprobs.slice(149));
    assert(prefill.logprobs.every((x) => x < 0 && x > -50));
    assertEquals((await engine.info()).bytes, before);
  });

  it("begins with what an answer left behind, where it is asked to", async () => {
    await using engine = await Engine.openOver((to) => localLink(to, tinyLoader(), {}), {
      model: "tiny",
      kvType: "f32",
      ctxSize: 300,
      contextRam: 1e9,
    });
    for await (const _ of engine.generate(TOKENS.slice(0, 120), { maxTokens: 4, temperature: 0 }));
    const score = (cachePrompt: boolean, from = 150) => engine.evaluate(TOKENS, { from, mode: "decode", cachePrompt });
    const [anew, kept, few] = [await score(false), await score(true), await score(true, 60)];
    assertEquals([anew.cachedTokens, kept.cachedTokens, few.cachedTokens], [0, 120, 59]);
    assertEquals(kept.logprobs, anew.logprobs);
    assertEquals(few.logprobs.slice(-50), anew.logprobs);
    const other = await engine.evaluate(TOKENS, {
      from: 150,
      mode: "decode",
      cachePrompt: true,
      attention: { policy: "window:window=16" },
    });
    assertEquals(other.cachedTokens, 0);
  });

  it("compares with saved logits, in runs that append", async () => {
    const path = await Deno.makeTempFile();
    try {
      await using engine = await open();
      await engine.evaluate(TOKENS.slice(0, 90), { from: 60, mode: "prefill", saveLogits: path });
      await engine.evaluate(TOKENS.slice(40), { from: 150, mode: "decode", saveLogits: path });
      assertEquals((await Deno.stat(path)).size, 16 + 40 * (4 + 4 * TINY_VOCAB));
      const same = await engine.evaluate(TOKENS.slice(40), { from: 150, mode: "prefill", klBase: path, klRow: 30 });
      assert(same.kl?.every((x) => Math.abs(x) < 1e-6));
      assertEquals(same.sameTop, new Uint8Array(10).fill(1));

      await using other = await open(2);
      const differing = await other.evaluate(TOKENS.slice(0, 90), { from: 60, mode: "prefill", klBase: path });
      assert(differing.kl?.every((x) => x > 0));
      assert(differing.sameTop?.includes(0));

      const compare = (klRow: number) => engine.evaluate(TOKENS, { from: 190, mode: "prefill", klBase: path, klRow });
      await assertRejects(() => compare(35), ModelFileError, "has 40 rows, 45 are needed");
      await assertRejects(() => compare(0), ModelFileError, "row 2 is of token 15, the text has 16");
      await Deno.writeTextFile(path, "KVLX and more than sixteen bytes");
      await assertRejects(() => compare(0), ModelFileError, "does not begin with KVLG");
      await Deno.writeFile(path, new Uint8Array(new Uint32Array([0x474c564b, 1, 9, 0]).buffer));
      await assertRejects(() => compare(0), ModelFileError, "vocabulary has 9 tokens");
    } finally {
      await Deno.remove(path);
    }
  });

  it("refuses wrong arguments", async () => {
    await using engine = await open(1, 100);
    const score = (tokens: Int32Array, from: number) => engine.evaluate(tokens, { from, mode: "prefill" });
    await assertRejects(() => score(TOKENS, 0), RangeError, "from is 0");
    await assertRejects(() => score(TOKENS, 200), RangeError, "from is 200");
    await assertRejects(() => score(TOKENS, 1), DoesNotFit, "200 tokens, the context holds 100");
    await assertRejects(() => score(Int32Array.of(1, 500), 1), RangeError, "token 500");
    assertEquals((await score(TOKENS.slice(0, 101), 100)).logprobs.length, 1);
  });

  it("stops when its signal aborts", async () => {
    await using engine = await open();
    const before = (await engine.info()).bytes;
    const abort = new AbortController();
    const scored = engine.evaluate(TOKENS, { from: 1, mode: "decode", signal: abort.signal });
    setTimeout(() => abort.abort(), 10);
    await assertRejects(() => scored, DOMException, "abort");
    assertEquals((await engine.info()).bytes, before);
  });
});
