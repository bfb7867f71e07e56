/**
 * A policy from outside, as `--plugin` takes it: `strided` sees the newest tokens and, before them, one of every so many (Sparse
 * Transformers, Child et al. 2019, section 4.2).
 *
 * @module
 */
import type { AttentionPolicy, LayerPolicy } from "../attention/policy.ts";

/** What a plugin exports. */
export const policies: Readonly<Record<string, AttentionPolicy<{ stride: number }>>> = {
  strided: {
    summary: "the last `stride` tokens, and every `stride`-th before them",
    defaults: { stride: 128 },
    isDense: false,
    usesIndex: false,
    check({ stride }) {
      if (!Number.isInteger(stride) || stride < 1) {
        throw new RangeError(`Cannot use policy: stride is ${stride}, expected a whole number of at least 1`);
      }
    },
    open: (_place, { stride }) => strided(stride),
  },
};

function strided(stride: number): LayerPolicy {
  const seen = { queries: 0, dense: 0, tokens: 0, spanned: 0 };
  return {
    spans(length) {
      const near = Math.max(0, length - stride);
      const spans: number[] = [];
      for (let at = stride - 1; at < near; at += stride) spans.push(at, at + 1);
      spans.push(near, length);
      seen.queries++;
      seen.dense += near === 0 ? 1 : 0;
      seen.tokens += length;
      seen.spanned += spans.length / 2 - 1 + length - near;
      return Int32Array.from(spans);
    },
    hits: () => false,
    advance: () => {},
    endPrompt: () => {},
    fork: () => strided(stride),
    stats: () => ({
      ...seen,
      short: 0,
      retrieved: 0,
      scored: 0,
      indexBytes: 0,
      indexMemory: 0,
      estimatedError: 0,
      buildSeconds: 0,
    }),
    [Symbol.dispose]: () => {},
  };
}
