/**
 * Means and intervals of a cell's answers, paired with full attention's.
 *
 * @module
 */
import type { Answer } from "../answers.ts";
import { bootstrap } from "../quality_table.ts";
import type { QuestionQuality, TextQuality } from "./cell.ts";

/** Of fewer answers no standard error is known. */
const LEAST_ANSWERS = 8;

/** One answered question. */
export interface Answered extends Answer {
  /** Where the evidence stands, 0 to 1. */
  readonly depth: number;
  /** Whether it stands before everything that a window sees. */
  readonly isFar: boolean;
  /** What the model wrote, graded 0 to 1. */
  readonly score?: number;
  readonly isEmpty?: boolean;
}

/** Answers of the method, of full attention and of a window to the same questions, in the same order. */
export function questionQuality(
  own: readonly Answered[],
  full: readonly Answered[],
  near: readonly Answered[],
  chance: number,
): QuestionQuality {
  const of = (answers: readonly Answered[], key: "right" | "logprob" | "margin") => answers.map((a) => a[key]);
  const minus = (a: readonly Answered[], b: readonly Answered[], key: "right" | "logprob" | "margin") =>
    of(a, key).map((value, i) => value - (of(b, key)[i] as number));
  const far = own.filter((answer) => answer.isFar);
  const scores = own.map((answer) => answer.score).filter((score) => score !== undefined);
  const fullScores = full.map((answer) => answer.score ?? 0);
  const gained = minus(full, near, "logprob");
  return {
    kind: "questions",
    count: own.length,
    chance,
    right: bootstrap(of(own, "right")),
    rightFar: far.length === 0 ? null : mean(of(far, "right")),
    logprob: bootstrap(of(own, "logprob")),
    margin: bootstrap(of(own, "margin")),
    rightMinusFull: bootstrap(minus(own, full, "right")),
    logprobMinusFull: bootstrap(minus(own, full, "logprob")),
    marginMinusFull: bootstrap(minus(own, full, "margin")),
    informative: gained.length >= LEAST_ANSWERS && mean(gained) > 3 * deviation(gained) / Math.sqrt(gained.length),
    ...(scores.length === 0 ? {} : {
      score: bootstrap(scores.map((score) => 100 * score)),
      scoreMinusFull: bootstrap(scores.map((score, i) => 100 * (score - (fullScores[i] as number)))),
      empty: own.filter((answer) => answer.isEmpty).length,
    }),
    each: own.map(({ depth, right, margin, score }) => [round(depth), round(right), round(margin), score ?? null]),
  };
}

/** Of every scored token, in order, texts one after the other. */
export interface Divergence {
  readonly kl: readonly number[];
  readonly sameTop: readonly number[];
  readonly nll: readonly number[];
  readonly nllFull: readonly number[];
}

/** Neighbouring tokens err alike: so many of them are one observation. */
const BLOCK = 32;

/** See {@link TextQuality}. */
export function textQuality({ kl, sameTop, nll, nllFull }: Divergence): TextQuality {
  const sorted = kl.toSorted((a, b) => a - b);
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
  return {
    kind: "text",
    count: kl.length,
    kl: bootstrap(blocks(kl)),
    klP50: at(0.5),
    klP99: at(0.99),
    sameTop: mean(sameTop),
    deltaNll: bootstrap(blocks(nll.map((x, i) => x - (nllFull[i] as number)))),
    nllFull: mean(nllFull),
  };
}

function blocks(values: readonly number[]): number[] {
  return Array.from(
    { length: Math.ceil(values.length / BLOCK) },
    (_, i) => mean(values.slice(i * BLOCK, (i + 1) * BLOCK)),
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / Math.max(1, values.length - 1));
}

function round(x: number): number {
  return Number(x.toPrecision(6));
}
