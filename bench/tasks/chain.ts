/**
 * `chain`: lines `b = a`, one to three hops long, and some solved ones at the end; asked for what a name comes to.
 *
 * @module
 */
import type { Task } from "./sample.ts";
import { askSolved, DEMONSTRATIONS, DISTRACTORS } from "./solved.ts";

const MOST_HOPS = 3;

/** See the module's head. */
export const chain: Task = {
  name: "chain",
  summary: "follows one to three assignments back to their root",
  chance: 1 / (DISTRACTORS + 1),
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
    if (chains.length < questions + DEMONSTRATIONS + DISTRACTORS + 1 || names > material.words.length) {
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
    const answer = (i: number) => word((chains[i] as number[])[0] as number);
    return askSolved(random, context, {
      count: chains.length,
      prompt: (i) => [word((chains[i] as number[]).at(-1) as number), ...arrow],
      answer,
      depth: (i) => depth.get(i) as number,
      answers: [...chains.keys()].map(answer),
      line,
    }, questions);
  },
};
