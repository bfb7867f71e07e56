/**
 * Makes samples of a wanted length, sized by counting tokens, and turns them into what a probe is asked.
 *
 * @module
 */
import type { Loaded } from "../../../engine/loaded.ts";
import type { Message } from "../../../model/model.ts";
import { Random } from "../random.ts";
import type { Sample } from "../sample.ts";
import type { Draft, TextSample, TextTask } from "./task.ts";

/** Wrong answers that the right one is compared with: 31, chance 1 / 32. */
export const RIVALS = 31;

/** The parts of a model that prompts are made with. */
export type Prompter = Pick<Loaded, "tokenizer" | "chatTemplate" | "encodeChat">;

/** Tokens of a prompt: by the model's template, the assistant's turn begun; a base model reads the same text bare. */
export function encodePrompt(loaded: Prompter, context: string, question: string, prefix: string): Promise<number[]> {
  const content = `${context}\n\n${question}`;
  if (!loaded.chatTemplate) return Promise.resolve(loaded.tokenizer.encode(`${content}\n${prefix}`));
  const messages: Message[] = [{ role: "user", content }, { role: "assistant", content: prefix }];
  return loaded.encodeChat({ messages, continueFinalMessage: true });
}

/** Tokens of `text` where it follows other text. */
export function encodeBehind(loaded: Prompter, text: string): number[] {
  const { tokenizer } = loaded;
  return tokenizer.encode(`a${text}`, { bos: false }).slice(tokenizer.encode("a", { bos: false }).length);
}

/**
 * The largest sample of at most `length` tokens. `ids` name the random stream. Throws `RangeError` when the smallest one is too
 * long.
 */
export async function buildSample(
  task: TextTask,
  loaded: Prompter,
  words: readonly string[],
  length: number,
  index: number,
  ids: readonly (number | string)[],
): Promise<TextSample> {
  const step = task.step(length);
  const tried = new Map<number, { readonly draft: Draft; readonly prompt: number[]; readonly tokens: number }>();
  const at = async (steps: number) => {
    const known = tried.get(steps);
    if (known !== undefined) return known;
    const draft = task.draft({ random: new Random(...ids), index, length, words }, steps * step);
    const prompt = await encodePrompt(loaded, draft.context, draft.question, draft.answerPrefix);
    const made = { draft, prompt, tokens: prompt.length + task.maxNewTokens };
    tried.set(steps, made);
    return made;
  };
  let [fits, too] = [1, Infinity];
  const least = await at(1);
  if (least.tokens > length) {
    throw new RangeError(`Cannot make ${task.name} of ${length} tokens: the smallest sample has ${least.tokens}`);
  }
  // Two sizes give a slope, the slope a guess; guesses close in from both sides.
  let slope = Math.max(1, (await at(2)).tokens - least.tokens);
  while (too - fits > 1) {
    const from = await at(fits);
    const guess = fits + Math.max(1, Math.floor((length - from.tokens) / slope));
    const next = Math.min(guess, too === Infinity ? guess : too - 1);
    const { tokens } = await at(next);
    // All there is: a user's file may hold fewer documents.
    if (tokens === from.tokens) break;
    if (tokens <= length) {
      slope = Math.max(1, (tokens - from.tokens) / (next - fits));
      fits = next;
    } else {
      too = next;
      slope = Math.max(slope, (tokens - from.tokens) / (next - fits));
    }
  }
  const { draft, prompt, tokens } = await at(fits);
  return await finish(task, loaded, draft, prompt, tokens, `${task.name}-${length}-${index}`);
}

async function finish(
  task: TextTask,
  loaded: Prompter,
  draft: Draft,
  ids: readonly number[],
  tokens: number,
  id: string,
): Promise<TextSample> {
  const { context, question, answerPrefix, answers, evidence } = draft;
  const shared = (other: readonly number[]) => {
    let same = 0;
    while (same < ids.length && same < other.length && ids[same] === other[same]) same++;
    return same;
  };
  // Where prompts that go on differently part is where a piece begins.
  const questionAt = shared(await encodePrompt(loaded, context, "#", answerPrefix));
  const tokenAt = async (character: number) =>
    shared(await encodePrompt(loaded, `${context.slice(0, character)}\u0001`, question, answerPrefix));
  const spans: [number, number][] = [];
  for (const [start, end] of evidence) spans.push([await tokenAt(start), await tokenAt(end)]);
  const wrong = new Set(draft.distractors.filter((other) => !answers.includes(other)));
  for (let tries = 0; wrong.size < RIVALS && tries < 100 * RIVALS; tries++) {
    const decoy = draft.decoy();
    if (!answers.includes(decoy)) wrong.add(decoy);
  }
  return {
    id,
    task: task.name,
    context,
    question,
    answerPrefix,
    answers,
    distractors: [...wrong].slice(0, RIVALS),
    maxNewTokens: task.maxNewTokens,
    tokens,
    depth: (spans[0]?.[0] ?? 0) / ids.length,
    spans,
    ids,
    questionAt,
  };
}

/** Most answers of one sample that are ranked: each takes 32 runs. */
const RANKED = 4;

/** One question for each answer that is ranked; the first also has the model write. */
export function toSample(task: TextTask, loaded: Prompter, sample: TextSample): Sample {
  const { ids, questionAt, answers, distractors, spans, maxNewTokens } = sample;
  const rivals = distractors.map((text) => encodeBehind(loaded, ` ${text}`));
  const ranked = task.how === "all" ? answers.slice(0, RANKED) : answers.slice(0, 1);
  return {
    context: ids.slice(0, questionAt),
    questions: ranked.map((answer, i) => ({
      prompt: ids.slice(questionAt),
      answer: encodeBehind(loaded, ` ${answer}`),
      distractors: [],
      rivals,
      ...(i > 0 ? {} : { grade: { answers, how: task.how, maxNewTokens } }),
      depth: (spans[i] ?? spans[0] ?? [0])[0] / ids.length,
    })),
  };
}
