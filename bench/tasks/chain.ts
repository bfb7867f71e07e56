/**
 * `chain`: lines `b = a`, one to three hops long, and some solved ones at the end; asked for what a name comes to.
 *
 * @module
 */
import type { Task } from "./sample.ts";

const DEMONSTRATIONS = 8;
const MOST_HOPS = 3;

/** See the module's head. */
export const chain: Task = {
  name: "chain",
  summary: "follows one to three assignments back to their root",
  chance: 1 / 32,
  make(random, material, length, questions) {
    const [equals, arrow, line] = [material.encode(" ="), material.encode(" ->"), material.encode("\n")];
    const perLine = 2 + equals.length + line.length;
    const solved = DEMONSTRATIONS * (2 + arrow.length + line.length);
    const lines = Math.floor((length - material.start.length - solved) / perLine);
    // A chain of h hops takes h lines and h + 1 names.
    const chains: number[][] = [];
    let used = 0;
    let names = 0;
    for (let hops = 1; used + hops <= lines; hops = hops % MOST_HOPS + 1) {
      chains.push(Array.from({ length: hops + 1 }, (_, i) => names + i));
      used += hops;
      names += hops + 1;
    }
    if (chains.length < questions + DEMONSTRATIONS + 32 || names > material.words.length) {
      throw new RangeError(
        `Cannot make chain of ${length} tokens: ${names} names of ${material.words.length} words`,
      );
    }
    const words = random.pick(material.words, names);
    const word = (i: number) => words[i] as number;
    // Lines of a chain stay in order, chains are mixed.
    const rest = chains.map((chained) => chained.slice(1).map((name, i) => [name, chained[i] as number] as const));
    const order = random.shuffle(chains.flatMap((chained, i) => chained.slice(1).map(() => i)));
    const context = [...material.start];
    const depth = new Map<number, number>();
    for (const i of order) {
      const [name, from] = (rest[i] as (readonly [number, number])[]).shift() as readonly [number, number];
      depth.set(i, depth.get(i) ?? context.length / length);
      context.push(word(name), ...equals, word(from), ...line);
    }
    const asked = random.pick([...chains.keys()], questions + DEMONSTRATIONS);
    const prompt = (i: number) => [word((chains[i] as number[]).at(-1) as number), ...arrow];
    const root = (i: number) => word((chains[i] as number[])[0] as number);
    for (const i of asked.slice(questions)) context.push(...prompt(i), root(i), ...line);
    const roots = [...chains.keys()].map(root);
    return {
      context,
      questions: asked.slice(0, questions).map((i) => ({
        prompt: prompt(i),
        answer: [root(i)],
        distractors: random.pick(roots.filter((other) => other !== root(i)), 31),
        depth: depth.get(i) as number,
      })),
    };
  },
};
