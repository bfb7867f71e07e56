/**
 * What a task is: contexts with questions that a small model can answer by looking, scored by log-probability.
 *
 * Everything is tokens, never text, so that no answer is split by the tokenizer in a way that the context did not show.
 *
 * @module
 */
import type { Random } from "./random.ts";

/** One question about a context. */
export interface Question {
  /** Tokens after the context. */
  readonly prompt: readonly number[];
  /** Tokens that should follow. */
  readonly answer: readonly number[];
  /** Other first tokens that the answer's first must beat; empty: the answer is judged token by token. */
  readonly distractors: readonly number[];
  /** Whole answers that this one must beat by mean log-probability, in place of `distractors`. */
  readonly rivals?: readonly (readonly number[])[];
  /** How an answer that the model writes itself is graded; absent: it is not asked to. */
  readonly grade?: Grade;
  /** Where the evidence stands: 0 is the context's beginning. */
  readonly depth: number;
}

/** What the benchmarks that tasks are named after count as right. */
export interface Grade {
  /** Strings that are looked for. */
  readonly answers: readonly string[];
  /**
   * `all`: the share of answers found as substrings, `part`: whether any is (RULER); `integer`: whether the first integer is the
   * answer, `word`: whether it is among the words (InfiniteBench).
   */
  readonly how: "all" | "part" | "integer" | "word";
  /** Tokens that the model may write. */
  readonly maxNewTokens: number;
}

/** One context, asked several times; no question sees another. */
export interface Sample {
  /** Tokens, a beginning of text included where the model has one. */
  readonly context: readonly number[];
  /** What is asked of forks of it. */
  readonly questions: readonly Question[];
}

/** What generators draw from. */
export interface Material {
  /** Tokens that are a whole word with its space, common ones first. */
  readonly words: readonly number[];
  /** Prose to hide things in. */
  readonly filler: readonly number[];
  /** Tokens of a text that does not begin a context. */
  encode(text: string): number[];
  /** What a context begins with. */
  readonly start: readonly number[];
}

/** A generator: pure, the same sample for the same random stream. */
export interface Task {
  /** For tables and `--tasks`. */
  readonly name: string;
  /** One sentence for `--help`. */
  readonly summary: string;
  /** Chance of being right without looking: 1 / (distractors + 1), or about 0. */
  readonly chance: number;
  /** A context of `length` tokens and `questions` questions. Throws `RangeError` when they do not fit. */
  make(random: Random, material: Material, length: number, questions: number): Sample;
}

/** `count` pieces hidden in prose at evenly spread, jittered depths; the result has `length` tokens. */
export function hide(
  random: Random,
  { start, filler }: Material,
  length: number,
  pieces: readonly (readonly number[])[],
): { readonly context: number[]; readonly depths: number[] } {
  const hidden = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const prose = length - hidden - start.length;
  if (prose < pieces.length) throw new RangeError(`Cannot hide ${pieces.length} pieces in ${length} tokens`);
  const from = random.below(Math.max(1, filler.length - prose));
  const context = [...start];
  const depths: number[] = [];
  const stride = prose / pieces.length;
  let taken = 0;
  for (const [i, piece] of pieces.entries()) {
    const until = Math.floor(stride * i) + random.below(Math.max(1, Math.floor(stride)));
    for (; taken < until; taken++) context.push(filler[(from + taken) % filler.length] as number);
    depths.push(context.length / length);
    context.push(...piece);
  }
  for (; taken < prose; taken++) context.push(filler[(from + taken) % filler.length] as number);
  return { context, depths };
}
