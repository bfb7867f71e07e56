/**
 * transformers in float32, on the file's dequantized weights: what the architecture says, without anybody's short cuts.
 *
 * @module
 */
import { LogitsFile } from "../../../engine/logits_file.ts";
import { argmax, logSumExp } from "../../answers.ts";
import { type Rival, RIVAL_THREADS, type RivalAnswer, type RivalText, runJson, script } from "./rival.ts";

/** Weights of 4 bits and what belongs to them, as floats. */
const FLOAT_OVER_PACKED = 32 / 5;

/** `python` has torch, transformers and gguf. */
export function transformers(python: string): Rival {
  let timed: { readonly text: RivalText; readonly ms: number } | undefined;
  return {
    program: "transformers",
    kvType: "F32",
    cacheShare: 2,
    weightShare: FLOAT_OVER_PACKED,
    async score(text): Promise<RivalAnswer> {
      const { model, folder, tokensFile, baseFile, tokens, prefix, count, vocab, steps } = text;
      const file = `${folder}/transformers.kvlg`;
      const args = [model, tokensFile, file, `${prefix}`, `${count}`, `${steps}`, `${RIVAL_THREADS}`];
      const { ms } = await runJson(python, [script("rival/transformers_text.py"), ...args]) as { ms: number };
      timed = { text, ms };
      using base = LogitsFile.open(baseFile, vocab, "read");
      using own = LogitsFile.open(file, vocab, "read");
      const answer: RivalAnswer = { kl: [], nll: [], sameTop: [] };
      for (let i = 0; i < count; i++) {
        const next = tokens[prefix + i] as number;
        let p: Float32Array | undefined;
        base.read(i, [next], (row) => p = row.slice());
        own.read(i, [next], (q) => {
          answer.kl.push(divergence(p as Float32Array, q));
          answer.nll.push(logSumExp(q) - (q[next] as number));
          answer.sameTop.push(Number(argmax(q) === argmax(p as Float32Array)));
        });
      }
      return answer;
    },
    msPerToken(text) {
      if (timed?.text !== text) throw new Error("Cannot tell the time of a text that was not scored");
      return Promise.resolve(timed.ms);
    },
  };
}

/** KL(p ‖ q) of two rows of logits. */
function divergence(p: Float32Array, q: Float32Array): number {
  const [lseP, lseQ] = [logSumExp(p), logSumExp(q)];
  let kl = 0;
  for (let i = 0; i < p.length; i++) {
    const logP = (p[i] as number) - lseP;
    kl += Math.exp(logP) * (logP - ((q[i] as number) - lseQ));
  }
  return kl;
}
