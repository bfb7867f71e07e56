/**
 * `induction`: a pair of words stands somewhere in prose, twice in a row; the prompt ends with its first word.
 *
 * @module
 */
import { hide, type Task } from "./sample.ts";

/** See the module's head. */
export const induction: Task = {
  name: "induction",
  summary: "completes a pair of words that stood far back",
  chance: 1 / 32,
  make(random, material, length, questions) {
    const line = material.encode("\n");
    const words = random.pick(material.words, 2 * Math.max(questions, 32));
    const pairs = Array.from({ length: Math.max(questions, 32) }, (_, i) => words.slice(2 * i, 2 * i + 2));
    const { context, depths } = hide(
      random,
      material,
      length,
      pairs.map((pair) => [...line, ...pair, ...pair, ...line]),
    );
    const seconds = pairs.map((pair) => pair[1] as number);
    return {
      context,
      questions: random.pick([...pairs.keys()], questions).map((i) => {
        const [x, y] = pairs[i] as [number, number];
        return {
          prompt: [...line, x],
          answer: [y],
          distractors: random.pick(seconds.filter((word) => word !== y), 31),
          depth: depths[i] as number,
        };
      }),
    };
  },
};
