import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { bootstrap, summarizeKl, summarizeTask } from "../quality_table.ts";
import { tasks } from "./mod.ts";
import { Random } from "./random.ts";
import type { Material } from "./sample.ts";

const material: Material = {
  words: Array.from({ length: 3000 }, (_, i) => 1000 + i),
  filler: Array.from({ length: 5000 }, (_, i) => i % 97),
  encode: (text) => Array.from(text, (char) => 500 + char.charCodeAt(0)),
  start: [7],
};

for (const task of tasks) {
  for (const length of [1201, 2048, 4001]) {
    Deno.test(`task ${task.name} at ${length}: fits, repeats, holds its evidence`, () => {
      const make = (index: number) => task.make(new Random(1, task.name, length, index), material, length, 7);
      const { context, questions } = make(0);
      assert(context.length <= length && context.length > 0.9 * length, `${context.length} tokens of ${length}`);
      assertEquals(context[0], 7);
      assertEquals(questions.length, 7);
      assertEquals(make(0), { context, questions });
      assertNotEquals(make(1).context, context);
      const words = new Set(context);
      for (const { prompt, answer, distractors, depth } of questions) {
        assert(depth >= 0 && depth < 1);
        assert(prompt.length > 0 && answer.length > 0);
        for (const token of [...prompt, ...answer, ...distractors]) {
          assert(words.has(token) || token < 1000, `${token} is not in the context`);
        }
        assert(!distractors.includes(answer[0] as number));
        assertEquals(new Set(distractors).size, distractors.length);
        if (task.chance > 0) assertAlmostEquals(task.chance, 1 / (distractors.length + 1), 1e-12);
      }
    });
  }
  Deno.test(`task ${task.name} says when it does not fit`, () => {
    assertThrows(() => task.make(new Random(1), material, 40, 20), RangeError);
  });
}

Deno.test("kv-recall shows the value behind the key, chain the way to the root, count the most frequent", () => {
  const find = (context: readonly number[], a: number) => context.map((x, i) => x === a ? i : -1).filter((i) => i >= 0);
  const taskOf = (name: string) => tasks.find((task) => task.name === name) as typeof tasks[number];
  const kv = taskOf("kv-recall").make(new Random(3), material, 2000, 9);
  for (const { prompt, answer } of kv.questions) {
    const key = prompt[0] as number;
    assert(find(kv.context, key).some((i) => kv.context[i + 1] === 558 && kv.context[i + 2] === answer[0]));
  }
  const chained = taskOf("chain").make(new Random(3), material, 2000, 9);
  for (const { prompt, answer } of chained.questions) {
    let name = prompt[0] as number;
    for (let hops = 0; name !== answer[0]; hops++) {
      assert(hops < 3);
      const at = find(chained.context, name).find((i) =>
        chained.context[i + 2] === 561 && chained.context[i + 1] === 532
      );
      name = chained.context[(at as number) + 3] as number;
    }
  }
  const counted = taskOf("count").make(new Random(3), material, 4000, 5);
  for (const { answer, distractors } of counted.questions) {
    const times = (word: number) => find(counted.context, word).length;
    assert(distractors.every((other) => times(other) < times(answer[0] as number)));
  }
});

Deno.test("random numbers are even and repeat", () => {
  const random = new Random("a", 1);
  const counts = new Array(7).fill(0);
  for (let i = 0; i < 70_000; i++) counts[random.below(7)]++;
  for (const count of counts) assert(Math.abs(count - 10_000) < 500, `${counts}`);
  assertEquals(new Random("a", 1).bits(), new Random("a", 1).bits());
  assertNotEquals(new Random("a", 1).bits(), new Random("a1").bits());
  assertThrows(() => random.below(0), RangeError);
});

Deno.test("intervals hold the mean and shrink", () => {
  const random = new Random("values");
  const values = (n: number) => Array.from({ length: n }, () => random.below(1000) / 1000);
  const [few, many] = [bootstrap(values(20)), bootstrap(values(2000))];
  for (const [mean, low, high] of [few, many]) assert(low <= mean && mean <= high);
  assert(many[2] - many[1] < (few[2] - few[1]) / 4);
  assert(Math.abs(many[0] - 0.5) < 0.03);
});

Deno.test("differences are paired, and a task that the window can do is not informative", () => {
  const answers = (logprobs: number[], right: number) => [logprobs.map((logprob) => ({ logprob, right }))];
  const [full, near] = [answers([-1, -2, -3], 1), answers([-5, -6.1, -7.2], 0)];
  const cell = { task: tasks[0] as typeof tasks[number], method: "m", length: 9, full, isFar: [[true, false, true]] };
  const row = summarizeTask({ ...cell, near, own: answers([-1.5, -2.5, -3.5], 1) });
  assertEquals([row.informative, row.right, row.rightFar], [true, 1, 1]);
  assertEquals(row.logprobMinusFull, [-0.5, -0.5, -0.5]);
  assertEquals(summarizeTask({ ...cell, near: full, own: full }).informative, false);
});

Deno.test("divergence is averaged over tokens, texts told apart", () => {
  const row = summarizeKl("m", { kl: [[1, 2, 3], [5, 5, 5]], same: [1, 0.5], rows: [], share: [], error: [] });
  assertEquals([row.klOfTexts, row.sameTop, row.texts, row.tokens], [[2, 5], 0.75, 2, 3]);
});
