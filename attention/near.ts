/**
 * The spans that several policies attend exactly: the first tokens (attention sinks) and the most recent ones.
 *
 * @module
 */
import type { Spans } from "./policy.ts";

/** `[0, sinks)` and `[from, length)`, or everything where they meet; one buffer, reused. */
export class Near {
  readonly #two = new Int32Array(4);
  readonly #one = new Int32Array(2);

  /** The first `sinks` tokens stay in sight for ever. */
  constructor(readonly sinks: number) {}

  /** Sinks and all from position `from` on. */
  spans(from: number, length: number): Spans {
    if (from <= this.sinks) {
      this.#one[1] = length;
      return this.#one;
    }
    this.#two[1] = this.sinks;
    this.#two[2] = from;
    this.#two[3] = length;
    // A span of nothing is no span.
    return this.sinks === 0 ? this.#two.subarray(2) : this.#two;
  }
}
