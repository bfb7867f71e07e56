/**
 * A step of sequences that decode and attend to everything is, but for its tokens and a row more in each cache, the step
 * before: what that one asked of the backend is done again, and what JavaScript did to ask for it is not.
 *
 * @module
 */
import type { Backend, Recorded } from "../backends/backend.ts";
import type { KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import type { SequenceState } from "../attention/state.ts";
import type { ForwardPart } from "./forward.ts";

/** What a step reads and writes, in step memory. */
export interface StepTensors {
  /** i32 [n] */
  readonly tokens: Tensor;
  /** i32 [n] */
  readonly positions: Tensor;
  /** f32 [n, vocab] */
  readonly logits: Tensor;
}

/** A recorded step of one token of each of several sequences. */
export class RepeatedStep {
  readonly #states: readonly SequenceState[];
  readonly #segments: readonly (KvSegment | undefined)[];
  readonly #tensors: StepTensors;
  readonly #again: NonNullable<Recorded<unknown>["again"]>;
  /** Tokens in the caches when it was run. */
  readonly #starts: Int32Array<ArrayBuffer>;

  /** `parts` have been run: their caches hold their tokens. */
  constructor(parts: readonly ForwardPart[], tensors: StepTensors, again: NonNullable<Recorded<unknown>["again"]>) {
    this.#states = parts.map(({ state }) => state);
    this.#segments = parts.map(({ state }) => state.cache.openSegment);
    this.#starts = Int32Array.from(parts, ({ start }) => start);
    this.#tensors = tensors;
    this.#again = again;
  }

  /** Whether steps of such parts can be recorded and repeated: one token each, with nothing to search or to tell. */
  static suits(parts: readonly ForwardPart[]): boolean {
    return parts.length > 0 &&
      parts.every(({ state, numTokens, numLogits, isPrompt, start }) =>
        numTokens === 1 && numLogits === 1 && isPrompt !== true && state.cache.length === start && state.isIdle
      );
  }

  /**
   * Logits f32 [n, vocab] of `parts`, for whom `suits` said yes and room was reserved, as the next step's first act; undefined, and nothing
   * has happened, where they are another step's. After an error their caches are of no use.
   */
  run(
    backend: Backend,
    parts: readonly ForwardPart[],
    tokens: Int32Array<ArrayBuffer>,
    positions: Int32Array<ArrayBuffer>,
  ): Tensor | undefined {
    const passed = (parts[0] as ForwardPart).start - (this.#starts[0] as number);
    if (
      parts.length !== this.#states.length || passed < 1 || !parts.every((part, i) => this.#goesOn(part, i, passed))
    ) {
      return undefined;
    }
    const write = () => {
      backend.write(this.#tensors.tokens, tokens);
      backend.write(this.#tensors.positions, positions);
    };
    if (!this.#again(passed, write)) return undefined;
    for (const [i, { state, start }] of parts.entries()) {
      state.grow();
      this.#starts[i] = start;
    }
    return this.#tensors.logits;
  }

  /** The same sequence, whose row goes to the same segment. */
  #goesOn({ state, start }: ForwardPart, i: number, passed: number): boolean {
    const segment = state.cache.openSegment;
    return state === this.#states[i] && segment !== undefined && segment === this.#segments[i] &&
      start === (this.#starts[i] as number) + passed;
  }
}
