import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { gradeText } from "../../answers.ts";
import { grammarText } from "../grammar.ts";
import { adjectives, nouns } from "../words.ts";
import { buildSample, type Prompter, RIVALS, toSample } from "./build.ts";
import { rulerTasks, textTasks } from "./mod.ts";
import { fileTask } from "./qa.ts";
import type { TextSample, TextTask } from "./task.ts";

/** Words, spaces and single marks are tokens: enough to count by. */
function wordTokenizer(): Prompter {
  const ids = new Map<string, number>();
  const encode = (text: string) =>
    (text.match(/ ?[A-Za-z]+| ?\d{1,3}|[^A-Za-z\d]/g) ?? []).map((piece) => {
      const id = ids.get(piece) ?? ids.size;
      ids.set(piece, id);
      return id;
    });
  return {
    tokenizer: { encode } as unknown as Prompter["tokenizer"],
    chatTemplate: true,
    encodeChat: ({ messages }) =>
      Promise.resolve(encode(messages.map(({ role, content }) => `<${role}>${content}`).join(""))),
  };
}

const words = grammarText(200_000).split(/\s+/);
const prompter = wordTokenizer();
const make = (task: TextTask, length: number, index: number, seed: number | string = 42) =>
  buildSample(task, prompter, words, length, index, ["test", task.name, length, index, seed]);

/** How many of what is counted a context of `length` must hold, at least: it should be nearly full. */
const FULL = 0.8;

for (const task of textTasks) {
  for (const length of [2048, 5000]) {
    Deno.test(`${task.name} at ${length}: fits, repeats, and its answers stand where it says`, async () => {
      const sample = await make(task, length, 3);
      assert(sample.tokens <= length && sample.tokens > FULL * length, `${sample.tokens} tokens of ${length}`);
      assertEquals(sample.tokens, sample.ids.length + task.maxNewTokens);
      assertEquals(await make(task, length, 3), sample);
      for (const other of [await make(task, length, 4), await make(task, length, 3, 7)]) {
        assertNotEquals(other.context, sample.context);
      }
      for (const answer of sample.answers) {
        assert(sample.context.includes(answer), `${answer} is not in the context`);
        assert(!sample.answerPrefix.includes(` ${answer}`), `the prefix tells ${answer}`);
      }
      assertEquals(sample.distractors.length, RIVALS);
      assertEquals(new Set([...sample.distractors, ...sample.answers]).size, RIVALS + sample.answers.length);
      assert(sample.depth >= 0 && sample.depth < 1);
      assertEquals(gradeText(`${sample.answers.join(", ")}`, { ...task, answers: sample.answers }), 1);
      assertEquals(gradeText("nothing of the kind", { ...task, answers: sample.answers }), 0);
      assertSpans(sample);
      const { context, questions } = toSample(task, prompter, sample);
      assertEquals([...context, ...questions[0]?.prompt ?? []], [...sample.ids]);
      assert(questions.length >= 1 && questions.length <= 4);
      assertEquals(questions[0]?.grade?.answers, sample.answers);
      assert(questions[0]?.prompt.length as number < 250, "the question is not the context");
    });
  }
  Deno.test(`${task.name} says when it does not fit`, async () => {
    await assertRejects(() => make(task, 60, 0), RangeError, `Cannot make ${task.name}`);
  });
}

/** What stands between the tokens of the first span holds the first answer. */
function assertSpans({ spans, ids, answers, question, answerPrefix, context }: TextSample): void {
  assert(spans.length >= 1);
  for (const [start, end] of spans) assert(0 <= start && start < end && end <= ids.length);
  const [start = 0, end = 0] = spans[0] ?? [];
  const { tokenizer } = prompter;
  const answer = tokenizer.encode(answers[0] as string).slice(1);
  const inside = ids.slice(start - 1, end + 1).join();
  const outside = [...ids.slice(0, start - 1), -1, ...ids.slice(end + 1)].join();
  assert(`,${inside},`.includes(answer.join()), `${answers[0]} is not in tokens ${start} to ${end}`);
  assert(`${question}${answerPrefix}`.length < context.length && outside.length > 0);
}

Deno.test("there are 13 ruler-style tasks, and words enough", () => {
  assertEquals(rulerTasks.length, 13);
  assert(new Set(adjectives).size >= 1000 && new Set(nouns).size >= 1000);
});

Deno.test("needles: counts and kinds are the benchmark's", async () => {
  const of = async (name: string) =>
    await make(textTasks.find((task) => task.name === `niah_${name}`) as TextTask, 4096, 1);
  const count = (text: string) => text.match(/A secret /g)?.length ?? 0;
  const heads = { single_1: 2, single_2: 2, single_3: 2, multikey_1: 5, multivalue: 4, multiquery: 4 };
  for (const [name, most] of Object.entries(heads)) assertEquals(count((await of(name)).context), most, name);
  assert(count((await of("multikey_2")).context) > 50);
  assertEquals((await of("multivalue")).answers.length, 4);
  assertEquals((await of("multiquery")).answers.length, 4);
  assert(
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(
      (await of("multikey_3")).answers[0] ?? "",
    ),
  );
  assert(/^[1-9]\d{6}$/.test((await of("single_1")).answers[0] ?? ""));
});

Deno.test("chains, counts and depths are what they should be", async () => {
  const of = async (name: string, index = 0, length = 8192) =>
    await make(textTasks.find((task) => task.name === name) as TextTask, length, index);
  const vt = await of("vt");
  const value = /value (\d{5})/.exec(vt.question)?.[1];
  let known = [...vt.context.matchAll(/VAR ([A-Z]{5}) = (\d{5})/g)].filter((m) => m[2] === value).map((m) =>
    m[1] as string
  );
  for (let before = 0; before < known.length;) {
    before = known.length;
    known = [
      ...new Set([
        ...known,
        ...[...vt.context.matchAll(/VAR ([A-Z]{5}) = VAR ([A-Z]{5})/g)].filter((m) => known.includes(m[2] as string))
          .map((m) => m[1] as string),
      ]),
    ];
  }
  assertEquals(known.sort(), [...vt.answers].sort());
  for (const name of ["cwe", "fwe"]) {
    const { context, answers } = await of(name);
    const own = context.slice(name === "cwe" ? context.lastIndexOf("Below") : 0);
    const counts = new Map<string, number>();
    for (const word of own.match(/[a-z]{5,}/g) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
    const least = Math.min(...answers.map((answer) => counts.get(answer) ?? 0));
    const best = [...counts].filter(([word, count]) => count > least && !answers.includes(word)).map(([word]) => word);
    assertEquals(
      best.filter((word) => !/below|numbered|words|occur|often|others|coded|which|memorize/i.test(word)),
      [],
      name,
    );
  }
  const depths: number[] = [];
  for (let i = 0; i < 11; i++) depths.push((await of("needle-grid", i, 3000)).depth);
  for (const [i, depth] of depths.entries()) assert(Math.abs(depth - i / 10) < 0.12, `${i}: ${depth}`);
});

Deno.test("answers are graded as the benchmarks do", () => {
  const grade = (text: string, how: "all" | "part" | "integer" | "word", ...answers: string[]) =>
    gradeText(text, { how, answers, maxNewTokens: 9 });
  assertEquals([grade("ABC and d", "all", "abc", "x"), grade("so: ABC", "part", "x", "abc")], [0.5, 1]);
  assertEquals([grade(" 12345.", "integer", "12345"), grade("512345", "integer", "12345")], [1, 0]);
  assertEquals([grade('is: "a-b".', "word", "a-b"), grade("a-bc", "word", "a-b")], [1, 0]);
});

Deno.test("questions come from files of SQuAD and HotpotQA", async () => {
  const squad = {
    data: [{
      paragraphs: Array.from({ length: 400 }, (_, i) => ({
        context: `Paragraph ${i} says that house ${i} is painted in colour c${i}.`,
        qas: [{ question: `Which colour is house ${i}?`, answers: [{ text: `c${i}` }, { text: `colour c${i}` }] }],
      })),
    }],
  };
  const one = await make(fileTask("qa_1", JSON.stringify(squad), "s.json"), 2048, 0);
  assert(one.tokens > FULL * 2048 && one.context.includes(one.answers[0] as string));
  const hotpot = Array.from({ length: 200 }, (_, i) => ({
    question: `Who owns what ${i} made?`,
    answer: `owner${i}`,
    supporting_facts: [[`a${i}`, 0], [`b${i}`, 0]],
    context: [[`a${i}`, [`Maker ${i} made thing ${i}.`]], [`b${i}`, [`Thing ${i} is owner${i}'s.`]], [`c${i}`, [
      "No.",
    ]]],
  }));
  const two = await make(fileTask("qa_2", JSON.stringify(hotpot), "h.json"), 2048, 0);
  assertEquals(two.spans.length, 2);
  assert(two.context.includes(two.answers[0] as string));
  assertThrows(() => fileTask("qa_1", "{}", "x.json"), SyntaxError, "SQuAD");
  assertThrows(() => fileTask("qa_2", "[]", "x.json"), SyntaxError, "HotpotQA");
});
