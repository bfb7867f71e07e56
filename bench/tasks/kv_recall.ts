/**
 * `kv-recall`: lines `key: value`, some of them asked and answered at the end as demonstrations, then a key that stood at some
 * depth. `kv-recall-hard`: keys are pairs of words out of few, so that each shares a word with many others (the difficulty of
 * RULER's multikey_3).
 *
 * @module
 */
import type { Material, Sample, Task } from "./sample.ts";
import type { Random } from "./random.ts";
import { askSolved, DEMONSTRATIONS, DISTRACTORS } from "./solved.ts";

function make(
  name: string,
  random: Random,
  material: Material,
  length: number,
  questions: number,
  keyTokens: number,
  newKeys: (count: number) => readonly (readonly number[])[],
): Sample {
  const [colon, line] = [material.encode(":"), material.encode("\n")];
  const perLine = keyTokens + 1 + colon.length + line.length;
  const lines = Math.floor((length - material.start.length) / perLine) - DEMONSTRATIONS;
  if (lines < questions + DEMONSTRATIONS + DISTRACTORS + 1 || lines > material.words.length) {
    throw new RangeError(`Cannot make ${name} of ${length} tokens: ${lines} lines of ${material.words.length} words`);
  }
  const keys = newKeys(lines);
  const values = keys.map(() => material.words[random.below(material.words.length)] as number);
  const prompt = (i: number) => [...keys[i] as readonly number[], ...colon];
  const answer = (i: number) => values[i] as number;
  const facts = [...material.start];
  for (let i = 0; i < lines; i++) facts.push(...prompt(i), answer(i), ...line);
  const depth = (i: number) => (material.start.length + i * perLine) / length;
  return askSolved(
    random,
    facts,
    { count: lines, prompt, answer, depth, answers: [...new Set(values)], line },
    questions,
  );
}

/** See the module's head. */
export const kvRecall: Task = {
  name: "kv-recall",
  summary: "finds the value of a key among hundreds of lines",
  chance: 1 / (DISTRACTORS + 1),
  make(random, material, length, questions) {
    const keys = (count: number) => random.pick(material.words, count).map((word) => [word]);
    return make("kv-recall", random, material, length, questions, 1, keys);
  },
};

/** See the module's head. */
export const kvRecallHard: Task = {
  name: "kv-recall-hard",
  summary: "finds the value of a key that shares each of its words with other keys",
  chance: 1 / (DISTRACTORS + 1),
  make(random, material, length, questions) {
    const keys = (count: number) => {
      const words = random.pick(material.words, Math.ceil(Math.sqrt(1.5 * count)) + 1);
      const pairs = words.flatMap((first) => words.map((second) => [first, second] as const));
      return random.pick(pairs.filter(([first, second]) => first !== second), count);
    };
    return make("kv-recall-hard", random, material, length, questions, 2, keys);
  },
};
