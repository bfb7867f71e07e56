/**
 * What a task made of text is. Types only.
 *
 * @module
 */
import type { Random } from "../random.ts";
import type { Grade } from "../sample.ts";

/** Text of one sample, before it is tokens. */
export interface Draft {
  readonly context: string;
  readonly question: string;
  /** What the answer begins with, given to the model; the answer follows behind a space. */
  readonly answerPrefix: string;
  /** All strings that are asked for; for `part` any of them will do. */
  readonly answers: readonly string[];
  /** Wrong answers that stand in the context. */
  readonly distractors: readonly string[];
  /** Another wrong answer of the answers' format. */
  readonly decoy: () => string;
  /** Where in the context the evidence stands: characters `[start, end)`, the first answer's first. */
  readonly evidence: readonly (readonly [start: number, end: number])[];
}

/** What a sample is drawn from. */
export interface DraftPlace {
  readonly random: Random;
  /** Its number: tasks that sweep depths take it from that, so that more samples change none. */
  readonly index: number;
  /** Tokens aimed at. */
  readonly length: number;
  /** Words of the prose that things are hidden in. */
  readonly words: readonly string[];
}

/** A task made of text: pure, the same draft for the same stream and size. */
export interface TextTask {
  readonly name: string;
  readonly summary: string;
  readonly how: Grade["how"];
  readonly maxNewTokens: number;
  /** Units by which contexts grow. */
  step(length: number): number;
  /** A draft of `units` units: lines, words, documents. */
  draft(place: DraftPlace, units: number): Draft;
}

/** A finished sample. */
export interface TextSample {
  readonly id: string;
  readonly task: string;
  readonly context: string;
  readonly question: string;
  readonly answerPrefix: string;
  readonly answers: readonly string[];
  readonly distractors: readonly string[];
  readonly maxNewTokens: number;
  /** Of the whole prompt, `maxNewTokens` included. */
  readonly tokens: number;
  /** Of the first answer's evidence, 0 to 1. */
  readonly depth: number;
  /** Token spans of the evidence, in the prompt. */
  readonly spans: readonly (readonly [start: number, end: number])[];
  /** The prompt's tokens, and where the question begins. */
  readonly ids: readonly number[];
  readonly questionAt: number;
}
