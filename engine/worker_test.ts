import { assert, assertEquals, assertRejects } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { DoesNotFit, ModelFileError, NativeError, Unsupported } from "../core/errors.ts";
import type { GenerateOptions } from "./types.ts";
import { Engine } from "./engine.ts";
import { workerLink } from "./link.ts";
import { fromRemote, toRemote } from "./remote_error.ts";

/** A worker that answers `open`, then does what `script` says with further requests. */
function fake(script: string): Promise<Engine> {
  const code = `onmessage = () => onmessage = ({ data }) => {
    if (data.type === "open") postMessage({ type: "result", id: data.id });
    else { ${script} }
  };`;
  const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  return Engine.openOver((to) => workerLink(to, url), { model: "none" });
}

/** The tiny model in a worker, with steps of 10 ms at least, as a real model's. */
async function tiny(): Promise<Engine> {
  const [serve, model] = ["./serve.ts", "./tiny_model.ts"].map((path) => import.meta.resolve(path));
  const script = await Deno.makeTempFile({ suffix: ".js" });
  await Deno.writeTextFile(
    script,
    `import { serve } from "${serve}";
     import { tinyLoader } from "${model}";
     const onBackend = ({ kernels }) => {
       const { sample } = kernels;
       kernels.sample = (...args) => {
         for (const start = performance.now(); performance.now() - start < 10;);
         sample(...args);
       };
     };
     serve(tinyLoader({ onBackend }));`,
  );
  const engine = await Engine.openOver((to) => workerLink(to, new URL(`file://${script}`)), { model: "tiny" });
  await Deno.remove(script);
  return engine;
}

describe("workerLink()", () => {
  it("hears a cancel, and other requests, while steps follow one another", async () => {
    await using engine = await tiny();
    const { bytes } = await engine.info();
    const abort = new AbortController();
    let steps = 0;
    let abortedMs = Infinity;
    for await (const event of engine.generate("x", { temperature: 0, signal: abort.signal })) {
      if (event.type === "token" && ++steps === 20) {
        const asked = performance.now();
        const { bytes: busy } = await engine.info();
        assert(busy > bytes && performance.now() - asked < 1000);
        abortedMs = performance.now();
        abort.abort();
      }
      if (event.type === "done") {
        assertEquals(event.reason, "cancelled");
        // The runtime by itself would look after 128 steps.
        assert(event.timings.predictedTokens < 100 && performance.now() - abortedMs < 500);
      }
    }
    assertEquals((await engine.info()).bytes, bytes);
  });

  it("goes on with others when a generation is refused", async () => {
    await using engine = await tiny();
    for (const wrong of [{ maxTokens: -1 }, { attention: { policy: "nope" } }, { grammar: { gbnf: "root" } }]) {
      await assertRejects(() => engine.generate("x", wrong as GenerateOptions).next());
    }
    await assertRejects(() => engine.generate("x".repeat(5000)).next(), DoesNotFit);
    let text = "";
    for await (const event of engine.generate("x", { maxTokens: 3, temperature: 0, ignoreEos: true })) {
      if (event.type === "done") text = event.reason;
    }
    assertEquals(text, "length");
  });

  it("tells everybody who waits, and who comes later, when the worker crashes", async () => {
    const engine = await fake(`setTimeout(() => { throw new Error("broken"); })`);
    const waiting = [engine.info(), engine.tokenize("x"), engine.generate("x").next()];
    for (const promise of waiting) await assertRejects(() => promise as Promise<unknown>, Error, "its worker failed");
    await assertRejects(() => engine.info(), Error, "broken");
    await engine[Symbol.asyncDispose]();
  });

  it("carries errors with their class", async () => {
    await assertRejects(() => Engine.open({ model: "/no/such/model.gguf" }), ModelFileError, "no such file");
    const wrong = Engine.open({ model: "/no/such/model.gguf", signal: AbortSignal.abort(new TypeError("mine")) });
    await assertRejects(() => wrong, TypeError, "mine");
  });
});

describe("fromRemote()", () => {
  it("restores the class, message and fields of every error that was posted", () => {
    const errors = [
      new NativeError(2, "a"),
      new Unsupported("b"),
      new ModelFileError("c"),
      new DoesNotFit("d", { promptTokens: 7, ctxSize: 5 }),
      new DoesNotFit("e"),
      new RangeError("f"),
      new TypeError("g"),
      new SyntaxError("h"),
      new DOMException("i", "AbortError"),
      new Deno.errors.NotFound("j"),
      new Error("k"),
    ];
    for (const error of errors) {
      const restored = fromRemote(structuredClone(toRemote(error)));
      assertEquals([restored.constructor, restored.name, restored.message], [
        error.constructor,
        error.name,
        error.message,
      ]);
    }
    const native = fromRemote(structuredClone(toRemote(errors[0])));
    assert(native instanceof NativeError && native.code === 2);
    const fit = fromRemote(structuredClone(toRemote(errors[3])));
    assert(fit instanceof DoesNotFit);
    assertEquals(fit.counts, { promptTokens: 7, ctxSize: 5 });
    assertEquals(fromRemote(structuredClone(toRemote("text"))).message, "text");
    assertEquals(fromRemote({ name: "constructor", message: "x" }).constructor, Error);
  });
});
