/**
 * The eight needle tasks, ruler-style (Hsieh et al. 2024; slots and counts of NVIDIA/RULER `synthetic.yaml`, wording ours).
 *
 * @module
 */
import type { Random } from "../random.ts";
import { adjectives, nouns } from "../words.ts";
import { insert, join, listed, NOISE, number7, sentencesOf, uuid } from "./prose.ts";
import type { Draft, DraftPlace, TextTask } from "./task.ts";

interface NeedleSpec {
  readonly haystack: "noise" | "essay" | "needle";
  readonly key: "words" | "uuids";
  readonly value: "numbers" | "uuids";
  /** Keys, values of each, keys asked for. */
  readonly k: number;
  readonly v: number;
  readonly q: number;
}

/** Places in prose, evenly spaced. */
const DEPTHS = 40;

function wordKey(random: Random): string {
  return `${adjectives[random.below(adjectives.length)]}-${nouns[random.below(nouns.length)]}`;
}

function niah(name: string, spec: NeedleSpec): TextTask {
  const isEssay = spec.haystack === "essay";
  return {
    name: `niah_${name}`,
    summary: `${spec.k * spec.v} needles in ${
      spec.haystack === "needle" ? "needles" : spec.haystack
    }, ${spec.key} to ${spec.value}`,
    how: "all",
    maxNewTokens: 128,
    step: (length) => isEssay ? (length < 4096 ? 50 : 500) : length < 4096 ? 5 : 25,
    draft: (place, units) => draft(place, units, spec),
  };
}

function draft({ random, words }: DraftPlace, units: number, spec: NeedleSpec): Draft {
  const newKey = () => spec.key === "words" ? wordKey(random) : uuid(random);
  const newValue = () => spec.value === "numbers" ? number7(random) : uuid(random);
  const needle = (key: string, value: string) => `A secret ${spec.value.slice(0, -1)} of the ${key} is: ${value}.`;
  const keys = new Set<string>();
  while (keys.size < Math.max(spec.k, spec.q)) keys.add(newKey());
  const pairs = [...keys].map((key) => ({ key, values: Array.from({ length: spec.v }, newValue) }));
  const asked = random.pick(pairs, spec.q);
  const needles = random.shuffle(pairs.flatMap(({ key, values }) => values.map((value) => ({ key, value }))));
  const hidden = needles.map(({ key, value }) => needle(key, value));
  const isEssay = spec.haystack === "essay";
  const decoys: string[] = [];
  const hay = isEssay ? sentencesOf(random, words, units) : Array.from({ length: units }, () => {
    if (spec.haystack === "noise") return NOISE;
    decoys.push(newValue());
    return needle(newKey(), decoys.at(-1) as string);
  });
  const places = isEssay
    ? random.pick([...Array(DEPTHS).keys()], hidden.length).map((i) => Math.floor(hay.length * i / (DEPTHS - 1)))
    : hidden.map(() => random.below(hay.length + 1));
  const { lines, at } = insert(hay, hidden, places);
  const isOne = spec.q * spec.v === 1;
  const [type, be] = isOne ? [spec.value.slice(0, -1), "is"] : [spec.value, "are"];
  const head = isOne
    ? `A secret ${type} is hidden in the text below. Memorize it: a quiz about the ${type} follows.\n`
    : `Some secret ${type} are hidden in the text below. Memorize them: a quiz about the ${type} follows.\n`;
  const answers = asked.flatMap(({ values }) => values);
  const query = listed(asked.map(({ key }) => key));
  const marked = answers.map((answer) => at[needles.findIndex(({ value }) => value === answer)] as number);
  const { text, spans } = join(lines, isEssay ? " " : "\n", marked, head.length);
  return {
    context: head + text,
    question: isOne
      ? `What is the secret ${type} of the ${query} that the text mentions?`
      : `What are all the secret ${type} of the ${query} that the text mentions?`,
    answerPrefix: `The secret ${type} of the ${query} that the text mentions ${be}`,
    answers,
    distractors: random.shuffle([...needles.map(({ value }) => value), ...decoys].filter((v) => !answers.includes(v))),
    decoy: newValue,
    evidence: spans,
  };
}

const words = { key: "words", value: "numbers" } as const;

/** By the names of RULER. */
export const needleTasks: readonly TextTask[] = [
  niah("single_1", { haystack: "noise", ...words, k: 1, v: 1, q: 1 }),
  niah("single_2", { haystack: "essay", ...words, k: 1, v: 1, q: 1 }),
  niah("single_3", { haystack: "essay", key: "words", value: "uuids", k: 1, v: 1, q: 1 }),
  niah("multikey_1", { haystack: "essay", ...words, k: 4, v: 1, q: 1 }),
  niah("multikey_2", { haystack: "needle", ...words, k: 1, v: 1, q: 1 }),
  niah("multikey_3", { haystack: "needle", key: "uuids", value: "uuids", k: 1, v: 1, q: 1 }),
  niah("multivalue", { haystack: "essay", ...words, k: 1, v: 4, q: 1 }),
  niah("multiquery", { haystack: "essay", ...words, k: 4, v: 1, q: 4 }),
];
