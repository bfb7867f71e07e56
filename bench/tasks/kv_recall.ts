/**
 * `kv-recall`: lines `key: value`, some of them asked and answered at the end as demonstrations, then a key that stood
 * at some depth.
 *
 * @module
 */
import type { Task } from "./sample.ts";

const DEMONSTRATIONS = 8;

/** See the module's head. */
export const kvRecall: Task = {
  name: "kv-recall",
  summary: "finds the value of a key among hundreds of lines",
  chance: 1 / 32,
  make(random, material, length, questions) {
    const [colon, line] = [material.encode(":"), material.encode("\n")];
    const perLine = 2 + colon.length + line.length;
    const lines = Math.floor((length - material.start.length) / perLine) - DEMONSTRATIONS;
    if (lines < questions + DEMONSTRATIONS + 32 || lines > material.words.length) {
      throw new RangeError(
        `Cannot make kv-recall of ${length} tokens: ${lines} lines of ${material.words.length} words`,
      );
    }
    const keys = random.pick(material.words, lines);
    const values = keys.map(() => material.words[random.below(material.words.length)] as number);
    const row = (i: number) => [keys[i] as number, ...colon, values[i] as number, ...line];
    const asked = random.pick([...keys.keys()], questions + DEMONSTRATIONS);
    const context = [...material.start];
    for (let i = 0; i < lines; i++) context.push(...row(i));
    for (const i of asked.slice(questions)) context.push(...row(i));
    const distinct = [...new Set(values)];
    return {
      context,
      questions: asked.slice(0, questions).map((i) => ({
        prompt: [keys[i] as number, ...colon],
        answer: [values[i] as number],
        distractors: random.pick(distinct.filter((value) => value !== values[i]), 31),
        depth: (material.start.length + i * perLine) / length,
      })),
    };
  },
};
