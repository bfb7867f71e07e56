/**
 * The user's word on a model's rotary embedding, in place of the file's: how models run past the length of their training.
 *
 * @module
 */
import type { RopeOptions, RopeScaling } from "./rope.ts";

/** What is absent stays as the file has it. Sliding layers keep theirs: they never look that far. */
export interface RopeOverride {
  /** How frequencies are stretched; `none` undoes what the file says. */
  readonly scaling?: "none" | "linear" | "yarn";
  /** By how much: the context grows so many times. Default 1. */
  readonly scale?: number;
  /** `rope_theta`. */
  readonly freqBase?: number;
  /** YaRN: tokens of the first training; by default the model's context. */
  readonly yarnOrigCtx?: number;
  /** YaRN's β and α for Llama: 32 and 1 by default. */
  readonly yarnBetaFast?: number;
  /** See {@link yarnBetaFast}. */
  readonly yarnBetaSlow?: number;
  /** YaRN: factor on cosine and sine; by default the paper's. */
  readonly yarnAttnFactor?: number;
}

/** Throws `RangeError` for numbers without a scaling that uses them. */
export function overrideRope(file: RopeOptions, o: RopeOverride, contextLength: number): RopeOptions {
  const base = o.freqBase ?? file.base;
  const scaling = scalingOf(o, contextLength);
  if (scaling === "file") return { ...file, base };
  return { base, dims: file.dims, ...(scaling === undefined ? {} : { scaling }) };
}

/** Tokens that a model is meant for once it is stretched. */
export function stretchedContext(o: RopeOverride, contextLength: number): number {
  return o.scaling === "linear" || o.scaling === "yarn" ? Math.floor(contextLength * (o.scale ?? 1)) : contextLength;
}

function scalingOf(o: RopeOverride, contextLength: number): RopeScaling | undefined | "file" {
  const { scaling, scale, yarnOrigCtx, yarnBetaFast, yarnBetaSlow, yarnAttnFactor } = o;
  if (scaling !== "yarn" && [yarnOrigCtx, yarnBetaFast, yarnBetaSlow, yarnAttnFactor].some((x) => x !== undefined)) {
    throw new RangeError("Cannot stretch rotary embedding: YaRN's numbers need scaling yarn");
  }
  if (scaling === undefined || scaling === "none") {
    if (scale !== undefined) {
      throw new RangeError("Cannot stretch rotary embedding: a scale needs scaling linear or yarn");
    }
    return scaling === undefined ? "file" : undefined;
  }
  if (scaling === "linear") return { type: "linear", factor: scale ?? 1 };
  return {
    type: "yarn",
    factor: scale ?? 1,
    originalContext: yarnOrigCtx ?? contextLength,
    ...(yarnBetaFast === undefined ? {} : { betaFast: yarnBetaFast }),
    ...(yarnBetaSlow === undefined ? {} : { betaSlow: yarnBetaSlow }),
    ...(yarnAttnFactor === undefined ? {} : { attentionFactor: yarnAttnFactor }),
  };
}
