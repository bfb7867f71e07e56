/**
 * `copy`: a sequence of random words, much prose, then the sequence's beginning again. `full` goes on with it; whoever
 * has lost the first copy cannot.
 *
 * @module
 */
import { hide, type Task } from "./sample.ts";

const LENGTH = 20;
const SHOWN = 6;

/** See the module's head. */
export const copy: Task = {
  name: "copy",
  summary: "goes on with a random sequence that stood far back",
  chance: 0,
  make(random, material, length, questions) {
    const line = material.encode("\n");
    const pieces = Array.from({ length: questions }, () => random.pick(material.words, LENGTH));
    const { context, depths } = hide(random, material, length, pieces.map((piece) => [...line, ...piece, ...line]));
    return {
      context,
      questions: pieces.map((piece, i) => ({
        prompt: [...line, ...piece.slice(0, SHOWN)],
        answer: piece.slice(SHOWN),
        distractors: [],
        depth: depths[i] as number,
      })),
    };
  },
};
