/**
 * Frequencies of rotary position embeddings (RoFormer, Su et al. 2021, section 3.4.2) and the published ways of
 * stretching them to longer contexts.
 *
 * @module
 */

/** How a model's rotary frequencies were stretched past the context it was first trained for. */
export type RopeScaling =
  /** Position interpolation (Chen et al. 2023): every frequency over `factor`. */
  | { readonly type: "linear"; readonly factor: number }
  /** Llama 3.1: long waves over `factor`, short ones kept, a linear blend between. */
  | {
    readonly type: "llama3";
    readonly factor: number;
    /** Waves longer than `originalContext / lowFreqFactor` are stretched in full. */
    readonly lowFreqFactor: number;
    /** Waves shorter than `originalContext / highFreqFactor` are kept. */
    readonly highFreqFactor: number;
    /** Tokens of the first training. */
    readonly originalContext: number;
  }
  /** YaRN (Peng et al. 2023, section 3.2): a ramp over pairs by how often they turn within the original context. */
  | {
    readonly type: "yarn";
    readonly factor: number;
    /** Tokens of the first training. */
    readonly originalContext: number;
    /** Turns from which on a pair is kept; 32 by default, the paper's β for Llama. */
    readonly betaFast?: number;
    /** Turns below which a pair is stretched in full; 1 by default, the paper's α for Llama. */
    readonly betaSlow?: number;
    /** Factor on cosine and sine; by default the paper's `0.1 · ln(factor) + 1`. */
    readonly attentionFactor?: number;
  }
  /** Divisors written in the file, as in GGUF's `rope_freqs.weight`: [dims / 2]. */
  | { readonly type: "factors"; readonly factors: Float64Array };

/** What the frequencies are computed from. */
export interface RopeOptions {
  /** `rope_theta`: pair `i` turns by `base^(-2i / dims)` radians a position. */
  readonly base: number;
  /** Rotated dimensions of a head: even. */
  readonly dims: number;
  /** None when absent. */
  readonly scaling?: RopeScaling;
}

/** Radians per position of each pair, and the factor on their cosines and sines. */
export interface RopeFrequencies {
  /** [dims / 2] */
  readonly frequencies: Float64Array;
  /** 1 but for YaRN. */
  readonly magnitude: number;
}

/**
 * Frequencies of a layer's rotary embedding, in double precision.
 *
 * ```ts
 * import { ropeFrequencies } from "./rope.ts";
 *
 * const { frequencies } = ropeFrequencies({ base: 10000, dims: 4, scaling: { type: "linear", factor: 2 } });
 * console.assert(frequencies[0] === 0.5 && frequencies[1] === 0.005);
 * ```
 *
 * Throws `RangeError` when a number is out of its range: the values come from files.
 */
export function ropeFrequencies(o: RopeOptions): RopeFrequencies {
  if (!Number.isInteger(o.dims) || o.dims <= 0 || o.dims % 2 !== 0) {
    throw new RangeError(`Cannot make rotary frequencies: ${o.dims} rotated dimensions, needs an even count`);
  }
  // A base of 1 would make YaRN divide by ln(1) = 0, and no model has one: all pairs would turn alike.
  if (!(o.base > 1) || !Number.isFinite(o.base)) {
    throw new RangeError(`Cannot make rotary frequencies: base ${o.base} is not a number over 1`);
  }
  const plain = new Float64Array(o.dims / 2);
  for (let i = 0; i < plain.length; i++) plain[i] = Math.pow(o.base, -2 * i / o.dims);
  const scaling = o.scaling;
  switch (scaling?.type) {
    case undefined:
      return { frequencies: plain, magnitude: 1 };
    case "linear": {
      const factor = positive("factor", scaling.factor);
      return { frequencies: plain.map((f) => f / factor), magnitude: 1 };
    }
    case "llama3":
      return { frequencies: llama3(plain, scaling), magnitude: 1 };
    case "yarn": {
      const factor = positive("factor", scaling.factor);
      // Stretching by less than 1 is none; the paper's formula would shrink the logits instead.
      const byPaper = factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1;
      const magnitude = positive("attention factor", scaling.attentionFactor ?? byPaper);
      return { frequencies: yarn(plain, o, scaling), magnitude };
    }
    case "factors": {
      if (scaling.factors.length !== plain.length) {
        throw new RangeError(
          `Cannot make rotary frequencies: ${scaling.factors.length} factors for ${plain.length} pairs`,
        );
      }
      return { frequencies: plain.map((f, i) => f / positive("factor", scaling.factors[i] as number)), magnitude: 1 };
    }
  }
}

function llama3(plain: Float64Array, s: Extract<RopeScaling, { type: "llama3" }>): Float64Array {
  const factor = positive("factor", s.factor);
  const context = positive("original context", s.originalContext);
  const low = positive("low-frequency factor", s.lowFreqFactor);
  const high = positive("high-frequency factor", s.highFreqFactor);
  if (high <= low) {
    throw new RangeError(
      `Cannot make rotary frequencies: high-frequency factor ${high} is not over the low one, ${low}`,
    );
  }
  return plain.map((f) => {
    const turns = context * f / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * f + (1 - kept) * f / factor;
  });
}

function yarn(plain: Float64Array, o: RopeOptions, s: Extract<RopeScaling, { type: "yarn" }>): Float64Array {
  const context = positive("original context", s.originalContext);
  // The (fractional) pair that turns `turns` times within the original context: the paper's equation for d, solved.
  const pairAt = (turns: number) =>
    o.dims * Math.log(context / (positive("beta", turns) * 2 * Math.PI)) / (2 * Math.log(o.base));
  const low = Math.max(0, Math.floor(pairAt(s.betaFast ?? 32)));
  const high = Math.min(o.dims - 1, Math.ceil(pairAt(s.betaSlow ?? 1)));
  // The authors' code widens an empty ramp by a thousandth; the models were trained with it.
  const length = high === low ? 0.001 : high - low;
  return plain.map((f, i) => {
    const stretched = Math.min(1, Math.max(0, (i - low) / length));
    return (1 - stretched) * f + stretched * f / s.factor;
  });
}

function positive(what: string, value: number): number {
  if (!(value > 0) || !Number.isFinite(value)) {
    throw new RangeError(`Cannot make rotary frequencies: ${what} ${value} is not a positive number`);
  }
  return value;
}
