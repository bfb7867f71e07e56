/**
 * The policy `window`: attention sinks and a sliding window (StreamingLLM, Xiao et al. 2023), at true positions.
 *
 * @module
 */
import type { AttentionPolicy, LayerPolicy, PolicyStats, Spans } from "./policy.ts";
import { Near } from "./near.ts";

/** Registry entry. */
export const window: AttentionPolicy<{ sinks: number; window: number }> = {
  summary: "attends to the first `sinks` and the last `window` tokens only (StreamingLLM)",
  defaults: { sinks: 4, window: 2000 },
  isDense: false,
  usesIndex: false,
  check: checkNear,
  open: (_place, params) => new WindowLayer(params.sinks, params.window),
};

/** Throws `RangeError` unless `sinks` and `window` are whole and something is attended. */
export function checkNear({ sinks, window }: { readonly sinks: number; readonly window: number }): void {
  if (!Number.isInteger(sinks) || sinks < 0 || sinks > 1 << 20) {
    throw new RangeError(`Cannot use policy: sinks is ${sinks}, expected a whole number of at least 0`);
  }
  if (!Number.isInteger(window) || window < 1 || window > 1 << 30) {
    throw new RangeError(`Cannot use policy: window is ${window}, expected a whole number of at least 1`);
  }
}

class WindowLayer implements LayerPolicy {
  readonly #near: Near;
  readonly #window: number;
  #queries = 0;
  #dense = 0;
  #tokens = 0;
  #spanned = 0;

  constructor(sinks: number, window: number) {
    this.#near = new Near(sinks);
    this.#window = window;
  }

  advance(): void {}
  endPrompt(): void {}

  fork(): LayerPolicy {
    return new WindowLayer(this.#near.sinks, this.#window);
  }

  spans(length: number): Spans {
    const from = length - this.#window;
    this.#queries++;
    this.#tokens += length;
    this.#spanned += Math.min(length, this.#near.sinks + this.#window);
    if (from <= this.#near.sinks) this.#dense++;
    return this.#near.spans(from, length);
  }

  hits(): boolean {
    return false;
  }

  stats(): PolicyStats {
    const nothing = {
      short: 0,
      buildSeconds: 0,
      retrieved: 0,
      scored: 0,
      indexBytes: 0,
      indexMemory: 0,
      estimatedError: 0,
    };
    return { queries: this.#queries, dense: this.#dense, tokens: this.#tokens, spanned: this.#spanned, ...nothing };
  }

  [Symbol.dispose](): void {}
}
