/**
 * Questions about documents, ruler-style: invented people by default, SQuAD or HotpotQA from the user's own file.
 *
 * @module
 */
import type { Random } from "../random.ts";
import { names, nouns } from "../words.ts";
import { join } from "./prose.ts";
import type { Draft, TextTask } from "./task.ts";

const CRAFTS = (
  "baker carpenter clockmaker cooper farmer gardener glassblower joiner locksmith mason midwife miller musician " +
  "painter potter printer ropemaker saddler tailor weaver"
).split(" ");
const HEAD = "Answer the question from the documents below. Give only the answer, no other words.\n\n";

/** A document and what may be asked about it. */
interface Fact {
  readonly text: string;
  readonly question: string;
  readonly answers: readonly string[];
}

function proper(word: string): string {
  return (word[0] as string).toUpperCase() + word.slice(1);
}

function newNames(random: Random, count: number): string[] {
  const made = new Set<string>();
  while (made.size < count) {
    made.add(`${names[random.below(names.length)]} ${proper(nouns[random.below(nouns.length)] as string)}`);
  }
  return [...made];
}

/** One fact a document. */
function oneHop(random: Random, count: number): { readonly facts: Fact[]; readonly places: readonly string[] } {
  const people = newNames(random, count);
  const places = random.pick(nouns, count).map(proper);
  const facts = people.map((person, i) => {
    const [town, craft] = [places[i] as string, CRAFTS[random.below(CRAFTS.length)] as string];
    return {
      text:
        `${person} was born in the town of ${town}. As a child, ${person.split(" ")[0]} learned to be a ${craft}, ` +
        `and later taught others for ${3 + random.below(40)} years.`,
      question: `In which town was ${person} born?`,
      answers: [town],
    };
  });
  return { facts, places };
}

/** Two documents lead to the answer: person to town, town to river. */
function twoHops(random: Random, count: number) {
  const pairs = Math.max(2, count >> 1);
  const people = newNames(random, pairs);
  const drawn = random.pick(nouns, 2 * pairs).map(proper);
  const [towns, rivers] = [drawn.slice(0, pairs), drawn.slice(pairs)];
  const documents = people.flatMap((person, i) => [
    `${person} has lived in ${towns[i]} for ${3 + random.below(40)} years and works there as a ` +
    `${CRAFTS[random.below(CRAFTS.length)]}.`,
    `The town of ${towns[i]} has ${500 + random.below(9000)} people. It lies on the river ${rivers[i]}.`,
  ]);
  return { people, rivers, documents };
}

function numbered(documents: readonly string[], marked: readonly number[]) {
  const lines = documents.map((text, i) => `Document ${i + 1}:\n${text}`);
  return join(lines, "\n\n", marked, HEAD.length);
}

function ask(question: string): Pick<Draft, "question" | "answerPrefix"> {
  return {
    question: `Answer the question from the documents. Give only the answer, no other words.\n\nQuestion: ${question}`,
    answerPrefix: "Answer:",
  };
}

const frame = { how: "part", maxNewTokens: 32, step: (length: number) => length < 4096 ? 2 : 10 } as const;

const qa1: TextTask = {
  ...frame,
  name: "qa_1-syn",
  summary: "a question about one of many documents",
  draft({ random }, units): Draft {
    const { facts, places } = oneHop(random, units);
    const gold = random.below(facts.length);
    const { question, answers } = facts[gold] as Fact;
    const { text, spans } = numbered(facts.map((fact) => fact.text), [gold]);
    return {
      context: HEAD + text,
      ...ask(question),
      answers,
      distractors: random.shuffle(places.filter((place) => place !== answers[0])),
      decoy: () => proper(nouns[random.below(nouns.length)] as string),
      evidence: spans,
    };
  },
};

const qa2: TextTask = {
  ...frame,
  name: "qa_2-syn",
  summary: "a question that takes two of many documents",
  draft({ random }, units): Draft {
    const { people, rivers, documents } = twoHops(random, units);
    const gold = random.below(people.length);
    const order = random.shuffle([...documents.keys()]);
    const at = (document: number) => order.indexOf(document);
    const { text, spans } = numbered(order.map((i) => documents[i] as string), [at(2 * gold + 1), at(2 * gold)]);
    return {
      context: HEAD + text,
      ...ask(`Which river runs through the town where ${people[gold]} lives?`),
      answers: [rivers[gold] as string],
      distractors: random.shuffle(rivers.filter((_, i) => i !== gold)),
      decoy: () => proper(nouns[random.below(nouns.length)] as string),
      evidence: spans,
    };
  },
};

/** A task over the user's own SQuAD or HotpotQA file (their JSON formats). Throws `SyntaxError` for another one. */
export function fileTask(name: "qa_1" | "qa_2", json: string, source: string): TextTask {
  const { documents, asked } = name === "qa_1" ? readSquad(json, source) : readHotpot(json, source);
  return {
    ...frame,
    name,
    summary: `questions of "${source}"`,
    draft({ random }, units): Draft {
      const { question, answers, gold } = asked[random.below(asked.length)] as Asked;
      const others = random.pick([...documents.keys()], Math.min(documents.length, units + gold.length))
        .filter((i) => !gold.includes(i)).slice(0, Math.max(0, units - gold.length));
      const order = random.shuffle([...gold, ...others]);
      const { text, spans } = numbered(order.map((i) => documents[i] as string), gold.map((i) => order.indexOf(i)));
      const other = () => (asked[random.below(asked.length)] as Asked).answers[0] as string;
      return { context: HEAD + text, ...ask(question), answers, distractors: [], decoy: other, evidence: spans };
    },
  };
}

interface Asked {
  readonly question: string;
  readonly answers: readonly string[];
  /** Documents that the answer takes. */
  readonly gold: readonly number[];
}

interface Corpus {
  readonly documents: readonly string[];
  readonly asked: readonly Asked[];
}

// deno-lint-ignore no-explicit-any -- somebody else's file, checked by what comes out of it
type Json = any;

function readSquad(json: string, source: string): Corpus {
  const documents: string[] = [];
  const asked: Asked[] = [];
  for (const { paragraphs = [] } of (JSON.parse(json) as Json)?.data ?? []) {
    for (const { context, qas = [] } of paragraphs) {
      documents.push(String(context));
      for (const { question, answers = [] } of qas) {
        const texts = [...new Set(answers.map((answer: Json) => String(answer.text)))] as string[];
        if (texts.length > 0) asked.push({ question: String(question), answers: texts, gold: [documents.length - 1] });
      }
    }
  }
  return checked({ documents, asked }, source, "SQuAD's");
}

function readHotpot(json: string, source: string): Corpus {
  const documents: string[] = [];
  const asked: Asked[] = [];
  for (const { question, answer, context = [], supporting_facts = [] } of JSON.parse(json) as Json) {
    const titles = new Set(supporting_facts.map(([title]: Json) => title));
    const gold: number[] = [];
    for (const [title, sentences] of context) {
      if (titles.has(title)) gold.push(documents.length);
      documents.push(`${title}\n${sentences.join("")}`);
    }
    if (gold.length > 0) asked.push({ question: String(question), answers: [String(answer)], gold });
  }
  return checked({ documents, asked }, source, "HotpotQA's");
}

function checked(corpus: Corpus, source: string, format: string): Corpus {
  if (corpus.asked.length > 0) return corpus;
  throw new SyntaxError(`Cannot read "${source}": it holds no questions in ${format} format`);
}

/** See the module's head. */
export const qaTasks: readonly TextTask[] = [qa1, qa2];
