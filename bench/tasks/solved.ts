/**
 * The shape that several tasks share: a list of facts, some of them asked and answered at its end as demonstrations, then
 * others are asked in the same format.
 *
 * @module
 */
import type { Random } from "./random.ts";
import type { Sample } from "./sample.ts";

/** Solved questions at the end of a context. */
export const DEMONSTRATIONS = 8;
/** Wrong answers that the right one must beat. */
export const DISTRACTORS = 31;

/** What can be asked: item `i` of `count`. */
export interface Items {
  readonly count: number;
  /** What the question reads, its answer's token behind it. */
  prompt(i: number): readonly number[];
  answer(i: number): number;
  /** Where its evidence stands, 0 to 1. */
  depth(i: number): number;
  /** Answers of all items, without repeats. */
  readonly answers: readonly number[];
  /** What ends a line. */
  readonly line: readonly number[];
}

/** `facts` with demonstrations behind them, and `questions` other items asked. */
export function askSolved(random: Random, facts: readonly number[], items: Items, questions: number): Sample {
  const asked = random.pick([...Array(items.count).keys()], questions + DEMONSTRATIONS);
  const context = [...facts];
  for (const i of asked.slice(questions)) context.push(...items.prompt(i), items.answer(i), ...items.line);
  return {
    context,
    questions: asked.slice(0, questions).map((i) => ({
      prompt: items.prompt(i),
      answer: [items.answer(i)],
      distractors: random.pick(items.answers.filter((other) => other !== items.answer(i)), DISTRACTORS),
      depth: items.depth(i),
    })),
  };
}
