/**
 * llama.cpp by node-llama-cpp, with any type of its cache.
 *
 * @module
 */
import { type Rival, RIVAL_THREADS, type RivalAnswer, runJson, script } from "./rival.ts";

/** `folder` has node-llama-cpp in its node_modules; `kvType` is `F16`, `Q8_0`, `Q4_0` … */
export function llamaCpp(folder: string, kvType: string): Rival {
  return {
    program: "llama.cpp",
    kvType,
    cacheShare: kvType === "Q8_0" ? 17 / 32 : kvType === "Q4_0" ? 9 / 32 : 1,
    weightShare: 1,
    async score({ model, tokensFile, baseFile, prefix }): Promise<RivalAnswer> {
      const args = [model, tokensFile, baseFile, `${prefix}`, `${RIVAL_THREADS}`, kvType];
      const found = await runJson("node", [script("rival_llama_cpp.mjs"), ...args], { env: { KVASIR_RIVAL: folder } });
      const { kls, nlls, sames } = found as { kls: number[]; nlls: number[]; sames: number[] };
      return { kl: kls, nll: nlls, sameTop: sames };
    },
    async msPerToken({ model, tokens, steps }) {
      const job = { kind: "decode", model, depth: tokens.length, tokens: steps, runs: 1, warm: false };
      const input = `${JSON.stringify({ ...job, threads: RIVAL_THREADS, flash: true, kvType })}\n`;
      const { rates } = await runJson("node", [script("rival/llama_cpp.mjs"), folder], { input }) as {
        rates: [number];
      };
      return 1000 / rates[0];
    },
  };
}
