/**
 * Where exact attention lies, and how far what was computed is from it, on one decode step in so many.
 *
 * The softmax mass of a stretch of tokens is exp(lse of the stretch − lse of all), so the kernel that attends to spans, asked
 * stretch by stretch, gives the whole picture at the price of one exact attention.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer } from "../core/kv.ts";
import type { AttentionPart, Backend } from "../backends/backend.ts";
import type { Hits } from "../index/index.ts";
import type { Spans } from "./policy.ts";
import { Unsupported } from "../core/errors.ts";

/** What to look at. */
export interface LookOptions {
  /** One decode step of so many, the first among them. */
  readonly every: number;
  /** Tokens of the prompt are seen as so many stretches of equal length, or fewer; 0: only the error is measured. */
  readonly stretches: number;
}

/** What was seen. */
export interface Looked {
  /** Steps that were looked at. */
  readonly steps: number;
  /** Relative L2 error of a head's output against exact attention: the mean over heads, layers and steps. */
  readonly error: number;
  /** Share of exact attention, 0 to 1, that lies on the tokens that were attended to: the mean over heads, layers and steps. */
  readonly attendedMass: number;
  /** Tokens of a stretch; the last one of the prompt may be shorter. */
  readonly stretchTokens: number;
  /** [layers, heads, stretches]: the mean share of attention, 0 to 1. */
  readonly mass: Float32Array<ArrayBuffer>;
  /** Dimensions of `mass`. */
  readonly shape: readonly [number, number, number];
}

/** What a query looked at. */
export interface Seen {
  /** Ranges. */
  readonly spans: Spans;
  /** And tokens that an index found; absent: none. */
  readonly hits?: Hits;
}

/** Throws `RangeError` for options that make no sense. */
export function checkLook({ every, stretches }: LookOptions): void {
  if (!Number.isInteger(every) || every < 1) throw new RangeError(`Cannot look at attention: every is ${every}`);
  if (!Number.isInteger(stretches) || stretches < 0 || stretches > 1024) {
    throw new RangeError(`Cannot look at attention: stretches is ${stretches}, must be 0 to 1024`);
  }
}

/** See the module's head; of one sequence. */
export class Look {
  readonly #every: number;
  readonly #promptTokens: number;
  readonly #stretchTokens: number;
  readonly #mass: Float32Array<ArrayBuffer>;
  readonly #shape: readonly [number, number, number];
  #calls = 0;
  #steps = 0;
  #error = 0;
  #numErrors = 0;
  #attendedMass = 0;
  #numMasses = 0;

  /** For `layers` layers of `heads` query heads; options as {@link checkLook} has them. */
  constructor({ every, stretches }: LookOptions, promptTokens: number, layers: number, heads: number) {
    this.#every = every;
    this.#promptTokens = promptTokens;
    this.#stretchTokens = stretches === 0 ? 0 : Math.ceil(promptTokens / stretches);
    this.#shape = [layers, heads, stretches === 0 ? 0 : Math.ceil(promptTokens / this.#stretchTokens)];
    this.#mass = new Float32Array(this.#shape[0] * this.#shape[1] * this.#shape[2]);
  }

  /**
   * One query q [1, heads, headDim] of `layer` was answered by out, of q's shape, and looked at `seen`, or at everything. Layers come
   * in order, all of each step.
   */
  note(backend: Backend, layer: number, kv: KvLayer, q: Tensor, out: Tensor, seen?: Seen): void {
    const step = Math.floor(this.#calls++ / this.#shape[0]);
    if (step % this.#every !== 0) return;
    const { attendWindow, attendTopk } = backend.kernels;
    if (attendWindow === undefined) {
      throw new Unsupported(`Cannot look at attention: backend "${backend.spec}" has no kernel for spans`);
    }
    if (layer === 0) this.#steps++;
    const heads = q.shape[1] as number;
    const mark = backend.mark();
    const part: AttentionPart = {
      o: backend.alloc(q.shape, "f32", "step"),
      lse: backend.alloc([1, heads], "f32", "step"),
    };
    const window = kv.shape.slidingWindow;
    const first = window === undefined ? 0 : Math.max(0, kv.length - window);
    const attendTo = (spans: Spans) => {
      attendWindow.call(backend.kernels, part, q, kv, spans);
      return backend.read(part.lse) as Float32Array;
    };
    const attend = (from: number, to: number) => attendTo(Int32Array.of(Math.max(from, first), to));
    const whole = attend(0, kv.length).slice();
    this.#noteError(backend.read(part.o) as Float32Array, backend.read(out) as Float32Array, heads);
    const parts = seen === undefined ? [whole] : [attendTo(seen.spans).slice()];
    if (seen?.hits !== undefined) {
      // Without what a sample's tokens stand for: their own weight alone.
      attendTopk?.call(backend.kernels, part, q, kv, { tokens: seen.hits.tokens, counts: seen.hits.counts });
      parts.push((backend.read(part.lse) as Float32Array).slice());
    }
    for (const lse of parts) for (let head = 0; head < heads; head++) this.#attendedMass += share(lse, whole, head);
    this.#numMasses += heads;
    const [, , stretches] = this.#shape;
    for (let i = 0; i < stretches; i++) {
      const [from, to] = [i * this.#stretchTokens, Math.min(this.#promptTokens, (i + 1) * this.#stretchTokens)];
      if (to <= first) continue;
      const lse = attend(from, to);
      for (let head = 0; head < heads; head++) {
        const at = (layer * this.#shape[1] + head) * stretches + i;
        this.#mass[at] = (this.#mass[at] as number) + share(lse, whole, head);
      }
    }
    backend.release(mark);
  }

  /** What was seen so far. */
  result(): Looked {
    const steps = Math.max(1, this.#steps);
    return {
      steps: this.#steps,
      error: this.#numErrors === 0 ? 0 : this.#error / this.#numErrors,
      attendedMass: this.#numMasses === 0 ? 1 : Math.min(1, this.#attendedMass / this.#numMasses),
      stretchTokens: this.#stretchTokens,
      mass: this.#mass.map((sum) => sum / steps),
      shape: this.#shape,
    };
  }

  #noteError(exact: Float32Array, out: Float32Array, heads: number): void {
    const dim = exact.length / heads;
    for (let head = 0; head < heads; head++) {
      let [wrong, all] = [0, 0];
      for (let i = head * dim; i < (head + 1) * dim; i++) {
        wrong += ((out[i] as number) - (exact[i] as number)) ** 2;
        all += (exact[i] as number) ** 2;
      }
      if (all > 0) this.#error += Math.sqrt(wrong / all);
      this.#numErrors++;
    }
  }
}

/** Of a head's attention to `whole`, by the log-sum-exps of both. */
function share(part: Float32Array, whole: Float32Array, head: number): number {
  return Math.exp((part[head] as number) - (whole[head] as number));
}
