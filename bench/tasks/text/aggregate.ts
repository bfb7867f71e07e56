/**
 * Tracing and counting, ruler-style: `vt`, `cwe`, `fwe` (Hsieh et al. 2024; slots and counts of NVIDIA/RULER, wording ours).
 *
 * @module
 */
import type { Random } from "../random.ts";
import { adjectives, nouns } from "../words.ts";
import { insert, join, letters, NOISE } from "./prose.ts";
import type { Draft, TextTask } from "./task.ts";

const HOPS = 4;
const ASKED_WORDS = 10;

/** One chain in noise: its text, names and value. */
function chain(random: Random, lines: number, capitals: number, before: number) {
  const names = new Set<string>();
  while (names.size <= HOPS) names.add(letters(random, capitals));
  const value = String(10_000 + random.below(89_999));
  const list = [...names];
  const statements = list.map((name, i) => `VAR ${name} = ${i === 0 ? value : `VAR ${list[i - 1]}`}`);
  const places = statements.map(() => random.below(lines + 1)).sort((a, b) => a - b);
  const made = insert(new Array<string>(lines).fill(NOISE), statements, places);
  return { names: list, value, ...join(made.lines, "\n", made.at, before) };
}

const vt: TextTask = {
  name: "vt",
  summary: "names all variables that a chain of assignments gives one value",
  how: "all",
  maxNewTokens: 30,
  step: (length) => length < 4096 ? 5 : 10,
  draft({ random }, units): Draft {
    const head = "Memorize and trace the chains of variable assignments in the text below.\n\n";
    const ask = (value: string) =>
      `Question: Find all variables that are assigned the value ${value}, directly or by others.`;
    const reply = (value: string) =>
      `Answer: By the chain of assignments, ${HOPS + 1} variables have the value ${value}:`;
    const shown = chain(random, 8, 3, 0);
    const example = `${shown.text}\n${ask(shown.value)}\n${reply(shown.value)} ${shown.names.join(" ")}\n\n`;
    const own = chain(random, units, 5, head.length + example.length);
    return {
      context: head + example + own.text,
      question: ask(own.value),
      answerPrefix: reply(own.value),
      answers: own.names,
      distractors: [],
      decoy: () => letters(random, 5),
      evidence: own.spans,
    };
  },
};

/** Common and other words, each so many times, numbered. */
function wordTable(random: Random, words: readonly string[], common: number, rare: number): string {
  const list = words.flatMap((word, i) => new Array<string>(i < ASKED_WORDS ? common : rare).fill(word));
  return random.shuffle(list).map((word, i) => `${i + 1}. ${word}`).join(" ");
}

const cwe: TextTask = {
  name: "cwe",
  summary: "names the ten words that occur most in a long list",
  how: "all",
  maxNewTokens: 120,
  step: () => 10,
  draft({ random, length }, units): Draft {
    const isShort = length < 4096;
    const plain = [...nouns, ...adjectives];
    const [shownCount, shownCommon, shownRare] = isShort ? [20, 3, 1] : [40, 10, 3];
    const [common, rare] = isShort ? [6, 1] : [30, 3];
    const drawn = random.pick(plain, Math.min(plain.length, shownCount + ASKED_WORDS + units));
    const [shown, words] = [drawn.slice(0, shownCount), drawn.slice(shownCount)];
    const ask = `Question: What are the ${ASKED_WORDS} most common words in the list above?`;
    const reply = `Answer: The ${ASKED_WORDS} words that occur most often in the list are:`;
    const best = (from: readonly string[]) => from.slice(0, ASKED_WORDS);
    const head = "Below is a numbered list of words. Some of them occur more often than others. Memorize those.\n";
    const example = `${head}${wordTable(random, shown, shownCommon, shownRare)}\n${ask}\n${reply} ` +
      `${best(shown).map((word, i) => `${i + 1}. ${word}`).join(" ")}\n\n`;
    const context = example + head + wordTable(random, words, common, rare);
    const answers = best(words);
    return {
      context,
      question: ask,
      answerPrefix: reply,
      answers,
      distractors: random.pick(words.slice(ASKED_WORDS), Math.min(31, words.length - ASKED_WORDS)),
      decoy: () => shown[random.below(shown.length)] as string,
      evidence: answers.map((word) => spanOf(context, ` ${word}`, example.length)),
    };
  },
};

const fwe: TextTask = {
  name: "fwe",
  summary: "names the three most frequent made-up words of a Zipf-like text",
  how: "all",
  maxNewTokens: 50,
  step: (length) => Math.max(1, Math.floor(length / 32)),
  draft({ random, length }, units): Draft {
    const size = Math.max(8, Math.floor((length - 50) / 50));
    const vocabulary = new Set<string>();
    while (vocabulary.size < size) vocabulary.add(letters(random, 6, "abcdefghijklmnopqrstuvwxyz"));
    const words = [...vocabulary];
    // Rank 1 is noise; frequencies fall with the square of the rank, ζ(2) = π²/6.
    const zeta = Math.PI ** 2 / 6;
    const text = words.flatMap((word, i) =>
      new Array<string>(Math.floor(units / (i + 1) ** 2 / zeta)).fill(i === 0 ? "..." : word)
    );
    const head = "Below is a coded text. Find out which words occur most often in it.\n";
    const ask = "Question: Do not consider the dots. What are the three most frequent words in the coded text above?";
    const context = head + random.shuffle(text).join(" ");
    const answers = words.slice(1, 4);
    return {
      context,
      question: ask,
      answerPrefix: "Answer: According to the coded text above, the three most frequent words are:",
      answers,
      distractors: words.slice(4, 35),
      decoy: () => words[random.below(words.length)] as string,
      evidence: answers.map((word) => spanOf(context, ` ${word}`, head.length - 1)),
    };
  },
};

/** Where `text` first stands behind `from`, without its first space; an empty stretch when it does not. */
function spanOf(context: string, text: string, from: number): readonly [number, number] {
  const at = context.indexOf(text, from);
  return at < 0 ? [from, from] : [at + 1, at + text.length];
}

/** See the module's head. */
export const aggregateTasks: readonly TextTask[] = [vt, cwe, fwe];
