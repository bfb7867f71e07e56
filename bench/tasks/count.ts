/**
 * `count`: each question has four words of its own, which a random sequence repeats unequally often; asked is the most
 * frequent. The answer is a sum over many keys, which a truncated top-k does not see.
 *
 * @module
 */
import type { Task } from "./sample.ts";

const CHOICES = 4;
/** How often the four occur, relatively. */
const WEIGHTS = [8, 4, 2, 1];

/** See the module's head. */
export const count: Task = {
  name: "count",
  summary: "tells which of four words occurred most",
  chance: 1 / CHOICES,
  make(random, material, length, questions) {
    const [colon, comma] = [material.encode(":"), material.encode(",")];
    const words = random.pick(material.words, questions * (CHOICES + 1));
    // A group's name and its four words, the most frequent first.
    const groups = Array.from({ length: questions }, (_, i) => words.slice(i * (CHOICES + 1), (i + 1) * (CHOICES + 1)));
    const perItem = 2 + colon.length + comma.length;
    const total = WEIGHTS.reduce((sum, weight) => sum + weight, 0);
    const items = Math.floor((length - material.start.length) / perItem);
    const each = items / (questions * total);
    if (each < 1) throw new RangeError(`Cannot count ${questions} groups in ${length} tokens`);
    const sequence = groups.flatMap(([name, ...choices]) =>
      choices.flatMap((word, i) =>
        Array.from({ length: Math.floor(each * (WEIGHTS[i] as number)) }, () => [name as number, word])
      )
    );
    const context = [...material.start];
    for (const [name, word] of random.shuffle(sequence)) {
      context.push(name as number, ...colon, word as number, ...comma);
    }
    return {
      context,
      questions: groups.map(([name, answer, ...others]) => ({
        prompt: [name as number, ...colon],
        answer: [answer as number],
        distractors: others,
        depth: 0.5,
      })),
    };
  },
};
