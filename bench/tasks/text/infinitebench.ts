/**
 * Retrieval of passkeys, numbers and pairs, infinitebench-style (Zhang et al. 2024; OpenBMB/InfiniteBench
 * `construct_synthetic_dataset.py`, wording ours), and the needle grid.
 *
 * @module
 */
import type { Random } from "../random.ts";
import { join, NOISE, number7, sentencesOf, uuid } from "./prose.ts";
import type { Draft, TextTask } from "./task.ts";

/** Depths of the original; samples visit them in an order that spreads early. */
const DEPTHS = 59;
const DEPTH_STRIDE = 23;
const KV_DEPTHS = 50;
const KV_STRIDE = 19;
const GRID_DEPTHS = 11;

/** A statement between noise lines. */
function hidden(
  name: string,
  summary: string,
  maxNewTokens: number,
  words: {
    readonly thing: string;
    readonly state: (value: string) => string;
    readonly draw: (random: Random) => string;
  },
): TextTask {
  return {
    name,
    summary,
    how: "integer",
    maxNewTokens,
    step: () => 1,
    draft({ random, index }, units): Draft {
      const value = words.draw(random);
      const at = Math.floor(units * (index * DEPTH_STRIDE % DEPTHS) / (DEPTHS - 1));
      const lines = new Array<string>(units).fill(NOISE);
      lines.splice(at, 0, words.state(value));
      const head = `There is an important piece of information hidden in a lot of text that does not matter. Find ` +
        `and memorize it: you will be asked for it.\n`;
      const { text, spans } = join(lines, "\n", [at], head.length);
      return {
        context: head + text,
        question: `What is the ${words.thing}?`,
        answerPrefix: `The ${words.thing} is`,
        answers: [value],
        distractors: [],
        decoy: () => words.draw(random),
        evidence: spans,
      };
    },
  };
}

/** Five random digits, then five times the digit at a random place is doubled in place. */
function doubled(random: Random): string {
  let digits = String(10_000 + random.below(90_000));
  for (let i = 0; i < 5; i++) {
    const at = random.below(digits.length);
    digits = digits.slice(0, at + 1) + digits[at] + digits.slice(at + 1);
  }
  return digits;
}

const kv: TextTask = {
  name: "retr.kv",
  summary: "finds the value of a key in one JSON object of random pairs",
  how: "word",
  maxNewTokens: 50,
  step: (length) => length < 4096 ? 1 : 5,
  draft({ random, index }, units): Draft {
    const pairs = Array.from({ length: Math.max(2, units) }, () => [uuid(random), uuid(random)] as const);
    const asked = Math.floor((index * KV_STRIDE % KV_DEPTHS) * pairs.length / KV_DEPTHS);
    const head = "Extract the value of the asked key from the JSON object below.\n\n";
    const { text, spans } = join(pairs.map(([key, value]) => `"${key}": "${value}"`), ", ", [asked], head.length + 1);
    const [key, value] = pairs[asked] as readonly [string, string];
    return {
      context: `${head}{${text}}`,
      question: `Key: "${key}". What is its value?`,
      answerPrefix: `The value of "${key}" is`,
      answers: [value],
      distractors: random.shuffle(pairs.map(([, other]) => other).filter((other) => other !== value)),
      decoy: () => uuid(random),
      evidence: spans,
    };
  },
};

/** By the names of InfiniteBench. */
export const infinitebenchTasks: readonly TextTask[] = [
  hidden("retr.passkey", "finds a five-digit key in noise", 6, {
    thing: "pass key",
    state: (value) => `The pass key is ${value}. Remember it: ${value} is the pass key.`,
    draw: (random) => String(10_000 + random.below(90_000)),
  }),
  hidden("retr.number", "finds ten digits that repeat themselves in noise", 12, {
    thing: "sequence of digits",
    state: (value) => `The sequence of digits is ${value}. Remember it: ${value} is the sequence of digits.`,
    draw: doubled,
  }),
  kv,
];

/** One needle at one of 11 depths, by the sample's number. */
export const needleGrid: TextTask = {
  name: "needle-grid",
  summary: "one needle at one of eleven depths of prose",
  how: "all",
  maxNewTokens: 16,
  step: () => 25,
  draft({ random, index, words }, units): Draft {
    const value = number7(random);
    const needle = `The secret number of the lighthouse is ${value}.`;
    const sentences = sentencesOf(random, words, units);
    const total = sentences.reduce((sum, sentence) => sum + sentence.length + 1, 0);
    // Back to the end of the sentence in which the depth falls.
    const aim = total * (index % GRID_DEPTHS) / (GRID_DEPTHS - 1);
    let [at, length] = [0, 0];
    while (at < sentences.length && length + (sentences[at] as string).length + 1 <= aim) {
      length += (sentences[at++] as string).length + 1;
    }
    sentences.splice(at, 0, needle);
    const { text, spans } = join(sentences, " ", [at]);
    return {
      context: text,
      question: "What is the secret number of the lighthouse?",
      answerPrefix: "The secret number of the lighthouse is",
      answers: [value],
      distractors: [],
      decoy: () => number7(random),
      evidence: spans,
    };
  },
};
