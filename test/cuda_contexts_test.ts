/**
 * Contexts of a device, run by the CPU: saved through the host and gone on with in another engine, by themselves and in a hybrid.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { EngineOptions } from "../engine/types.ts";
import type { Loader } from "../engine/loaded.ts";
import { Engine } from "../engine/engine.ts";
import { localLink } from "../engine/link.ts";
import { tinyLoader } from "../engine/tiny_model.ts";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";

const missing = await prepareEmulated("contexts of a device are");

const TEXT = "In the beginning God created the heaven and the earth. ".repeat(3);
const RETRIEVAL = { policy: "retrieval:error=0,min_length=0,sinks=4,window=16", index: "flat:codes=int4" };
const WAYS: [string, Partial<EngineOptions>][] = [
  ["cuda-emulated", { kvType: "f16" }],
  ["cuda-emulated", { kvType: "i8", ...RETRIEVAL }],
  ["hybrid-emulated:codes=device", { kvType: "i8", ...RETRIEVAL }],
];

const suite = missing === "" ? describe : describe.skip;
suite("contexts of a device", () => {
  for (const [backend, options] of WAYS) {
    it(`are saved and gone on with: ${backend} ${JSON.stringify(options)}`, async () => {
      const contextDir = await Deno.makeTempDir();
      const open = () => {
        const tiny = tinyLoader({ contextLength: 400 });
        const load: Loader = (options, hooks) => tiny(options, { ...hooks, backends: emulatedCuda });
        return Engine.openOver((to) => localLink(to, load, {}), { model: "tiny", backend, contextDir, ...options });
      };
      const go = async (engine: Engine) => {
        const tokens: number[] = [];
        let cached = 0;
        const how = { context: "book", maxTokens: 4, temperature: 0, ignoreEos: true };
        for await (const event of engine.generate("Who?", how)) {
          if (event.type === "token") tokens.push(event.token);
          if (event.type === "done") cached = event.timings.cachedTokens;
        }
        return { tokens, cached };
      };
      try {
        let want: number[];
        {
          await using engine = await open();
          const made = await engine.contexts.create(TEXT, { name: "book" });
          assert(made.bytes.disk > made.tokens && made.tokens === TEXT.length);
          want = (await go(engine)).tokens;
        }
        await using engine = await open();
        const { tokens, cached } = await go(engine);
        assertEquals(tokens, want);
        assertEquals(cached, TEXT.length);
      } finally {
        await Deno.remove(contextDir, { recursive: true });
      }
    });
  }
});
