/**
 * Decode steps of a tiny model under any way to attend, and what they looked at.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Loaded } from "../engine/loaded.ts";
import type { Backends } from "../backends/mod.ts";
import { Ops } from "../backends/ops.ts";
import { Look } from "../attention/look.ts";
import { SequenceState } from "../attention/state.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

/** Tokens that are read at once; the rest of them is decoded one by one. */
export const PROMPT = 150;
/** What is read and decoded. */
export const TOKENS = Int32Array.from({ length: 310 }, (_, i) => (i * 31 + (i >> 3)) % TINY_VOCAB);

/** The tiny model on a backend, one of ours or of `backends`. */
export function load(backend: string, backends: Backends = {}): Promise<Loaded> {
  const hooks = { backends, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  return tinyLoader()({ model: "tiny", backend }, hooks);
}

/** Logits after each decode step, [steps × vocab], with one interrupted chunk on the way; and what was attended. `settles`: when the prompt is read; `isWatched`: by somebody who looks at hits; `end`: of the tokens. */
export function run(
  { model, backend }: Loaded,
  { settles = false, isWatched = false, end = TOKENS.length, ...options }: {
    policy: string;
    index?: string;
    settles?: boolean;
    isWatched?: boolean;
    end?: number;
  },
) {
  const { plan } = planAttention(options, backend);
  const before = backend.bytes;
  const logits: number[] = [];
  let stats: ReturnType<SequenceState["stats"]>;
  {
    using state = new SequenceState(backend, model.config.layers, "f32", 400, plan);
    const { layers } = model.config;
    if (isWatched) {
      state.look = new Look({ every: 64, stretches: 4 }, PROMPT, layers.length, (layers[0] as typeof layers[0]).heads);
    }
    const forward = new Forward(model, new Ops(backend), 512);
    const step = (start: number, numTokens: number, isInterrupted?: () => boolean) => {
      const part = { state, tokens: TOKENS, start, numTokens, numLogits: numTokens === 1 ? 1 : 0 };
      const out = forward.run([part], isInterrupted);
      if (out !== undefined && numTokens === 1) logits.push(...backend.read(out));
      backend.endStep();
    };
    step(0, 100);
    let asked = 0;
    step(100, PROMPT - 100, () => ++asked === 2);
    step(100, PROMPT - 100, () => false);
    if (settles) state.settle();
    for (let i = PROMPT; i < end; i++) step(i, 1);
    stats = state.stats();
  }
  assertEquals(backend.bytes, before);
  return { logits, stats };
}

/** Relative L2 distance of two lists of numbers. */
export function distance(a: readonly number[], b: readonly number[]): number {
  assertEquals(a.length, b.length);
  let [error, norm] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    error += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (a[i] as number) ** 2;
  }
  return Math.sqrt(error / norm);
}
