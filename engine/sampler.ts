/**
 * How one sequence's next token is drawn: what to tell the kernels, step by step. Full-vocabulary work stays there.
 *
 * Order on a row of logits: logit bias and bans, repetition penalty, presence and frequency penalties, grammar, temperature,
 * top-k, typical-p, top-p, min-p, draw. As in vLLM and the OpenAI API, the repetition penalty counts tokens of prompt and output,
 * presence and frequency those of the output only, without a window (llama.cpp looks at the last 64 of both).
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Kernels, SampleParams } from "../backends/backend.ts";
import type { Sampling } from "./types.ts";
import type { Constraint } from "./token_mask.ts";
import { TokenCounts } from "./token_counts.ts";

/** One sequence's sampling state. */
export class Sampler {
  /** Undefined: none wanted; else how many of the best. */
  readonly logprobs: number | undefined;
  readonly #s: Sampling & { readonly seed: number };
  readonly #biasIds: Int32Array<ArrayBuffer>;
  readonly #biasValues: Float32Array<ArrayBuffer>;
  /** Tokens that must not come before `minTokens` were drawn. */
  readonly #banned: Int32Array<ArrayBuffer>;
  readonly #bannedValues: Float32Array<ArrayBuffer>;
  readonly #seen: TokenCounts | undefined;
  readonly #drawn: TokenCounts | undefined;
  readonly #constraint: Constraint | undefined;
  #numDrawn = 0;

  /** `ends` are the tokens that would end the sequence by themselves; only what `constraint` allows is drawn. */
  constructor(
    sampling: Sampling & { readonly seed: number },
    prompt: ArrayLike<number>,
    ends: ReadonlySet<number>,
    constraint?: Constraint,
  ) {
    this.#s = sampling;
    this.#constraint = constraint;
    this.logprobs = sampling.logprobs;
    const bias = new Map(Object.entries(sampling.logitBias).map(([id, value]) => [Number(id), value]));
    // As in llama.cpp: a model that ends all the same would only repeat its end token.
    if (sampling.ignoreEos) { for (const id of ends) bias.set(id, -Infinity); }
    this.#biasIds = Int32Array.from(bias.keys());
    this.#biasValues = Float32Array.from(bias.values());
    this.#banned = sampling.minTokens > 0 ? Int32Array.from([...ends, ...sampling.stopTokens]) : new Int32Array(0);
    this.#bannedValues = new Float32Array(this.#banned.length).fill(-Infinity);
    if (sampling.repetitionPenalty !== 1) {
      this.#seen = new TokenCounts();
      for (let i = 0; i < prompt.length; i++) this.#seen.add(prompt[i] as number);
    }
    if (sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0) this.#drawn = new TokenCounts();
  }

  /** Whether {@link adjust} changes logits, so that raw ones must be kept for log-probabilities. */
  get adjusts(): boolean {
    return this.#constraint !== undefined || this.#biasIds.length > 0 || this.#banned.length > 0 ||
      this.#seen !== undefined || this.#drawn !== undefined;
  }

  /** Whether a constraint lets nothing follow. */
  get isFinished(): boolean {
    return this.#constraint?.isFinished ?? false;
  }

  /** Throws `RangeError` where the constraint lets no further token be drawn; to be called before each step. */
  prepare(): void {
    this.#constraint?.prepare();
  }

  /** Applies bias, bans and penalties to `row` of logits [rows, vocab] before the next token is drawn. */
  adjust(kernels: Kernels, logits: Tensor, row: number): void {
    if (this.#biasIds.length > 0) kernels.addLogits(logits, row, this.#biasIds, this.#biasValues);
    if (this.#numDrawn < this.#s.minTokens && this.#banned.length > 0) {
      kernels.addLogits(logits, row, this.#banned, this.#bannedValues);
    }
    if (this.#seen !== undefined && this.#seen.size > 0) {
      const { tokens, counts } = this.#seen;
      const repetition = this.#s.repetitionPenalty;
      kernels.penalize(logits, row, { tokens, counts, repetition, presence: 0, frequency: 0 });
    }
    if (this.#drawn !== undefined && this.#drawn.size > 0) {
      const { tokens, counts } = this.#drawn;
      const { presencePenalty: presence, frequencyPenalty: frequency } = this.#s;
      kernels.penalize(logits, row, { tokens, counts, repetition: 1, presence, frequency });
    }
    if (this.#constraint !== undefined) {
      const { banned } = this.#constraint;
      kernels.addLogits(logits, row, banned, minusInfinity(banned.length));
    }
  }

  /** How the token at absolute `position` is drawn; the same for the same seed, however steps were batched. */
  params(position: number): SampleParams {
    const { temperature, topK, typicalP, topP, minP, seed } = this.#s;
    return { temperature, topK, typicalP, topP, minP, uniform: temperature === 0 ? 0 : uniform(seed, position) };
  }

  /** Books a drawn token. */
  accept(token: number): void {
    this.#numDrawn++;
    this.#constraint?.accept(token);
    this.#seen?.add(token);
    this.#drawn?.add(token);
  }
}

let bans = new Float32Array(0);

/** [n] times −∞. */
function minusInfinity(n: number): Float32Array<ArrayBuffer> {
  if (n > bans.length) bans = new Float32Array(n).fill(-Infinity);
  return bans.subarray(0, n);
}

/**
 * The draw of `position` under `seed`: uniform in [0, 1) with 53 random bits. Counter-based, so that a fork, a restored
 * context or another batch shape repeats it.
 */
export function uniform(seed: number, position: number): number {
  const low = seed | 0;
  const high = Math.floor(seed / 4294967296) | 0;
  const key = mix(mix(low ^ 0x9e3779b9) ^ high);
  const a = mix(key ^ mix(position ^ 0x85ebca6b));
  const b = mix(a ^ mix(position ^ 0xc2b2ae35) ^ key);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}

/** lowbias32 (Wellons): a 32-bit permutation in which every input bit flips every output bit about half the time. */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}
