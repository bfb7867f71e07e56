/**
 * How well a question is answered by one way to attend: forced through answers, or written by the model itself.
 *
 * @module
 */
import type { PolicyStats } from "../attention/policy.ts";
import type { SequenceState } from "../attention/state.ts";
import type { Probe } from "./probe.ts";
import type { Grade, Question } from "./tasks/sample.ts";

/** Score of one answer. */
export interface Answer {
  /** Mean natural logarithm of the probability of its tokens. */
  readonly logprob: number;
  /** 1 when it beat all others; without others the share of its tokens that were the model's first choice. */
  readonly right: number;
  /** Its log-probability minus that of the best other. */
  readonly margin: number;
}

/**
 * Feeds prompts and answers one by one, all as decode queries: the question looks as the method does. `note` is told what each run
 * looked at.
 */
export function answerAll(
  probe: Probe,
  state: SequenceState,
  questions: readonly Question[],
  note: (stats: PolicyStats | undefined) => void = () => {},
): Answer[] {
  const [short, long] = [questions.filter((q) => q.rivals === undefined), questions.filter((q) => q.rivals)];
  const first = answerByTokens(probe, state, short, note);
  const then = long.map((q) => answerByRivals(probe, state, q, note));
  return questions.map((q) => (q.rivals === undefined ? first : then).shift() as Answer);
}

type Note = (stats: PolicyStats | undefined) => void;

/** All questions side by side. */
function answerByTokens(probe: Probe, state: SequenceState, questions: readonly Question[], note: Note): Answer[] {
  if (questions.length === 0) return [];
  const answers = questions.map(() => ({ logprob: 0, right: 0, margin: 0 }));
  const runs = questions.map(({ prompt, answer }) => ({ state, tokens: [...prompt, ...answer.slice(0, -1)] }));
  const stats = probe.decode(runs, (logits, run, i) => {
    const { prompt, answer, distractors } = questions[run] as Question;
    const at = i - (prompt.length - 1);
    if (at < 0) return;
    const row = probe.loaded.backend.read(logits) as Float32Array;
    const token = answer[at] as number;
    const own = row[token] as number;
    const best = distractors.length > 0
      ? distractors.reduce((most, other) => Math.max(most, row[other] as number), -Infinity)
      : bestBut(row, token);
    const sum = answers[run] as { logprob: number; right: number; margin: number };
    sum.logprob += (own - logSumExp(row)) / answer.length;
    sum.right += Number(best < own) / answer.length;
    sum.margin += (own - best) / answer.length;
  });
  stats.forEach(note);
  return answers;
}

/** The prompt once, then its answer and the rivals' side by side. */
function answerByRivals(
  probe: Probe,
  state: SequenceState,
  { prompt, answer, rivals = [] }: Question,
  note: Note,
): Answer {
  using asked = probe.extend(state, prompt.slice(0, -1));
  const candidates = [answer, ...rivals];
  const sums = candidates.map(() => 0);
  const last = prompt.at(-1) as number;
  const runs = candidates.map((c) => ({ state: asked, tokens: [last, ...c.slice(0, -1)] }));
  const stats = probe.decode(runs, (logits, run, i) => {
    const row = probe.loaded.backend.read(logits) as Float32Array;
    const candidate = candidates[run] as readonly number[];
    sums[run] = (sums[run] as number) + ((row[candidate[i] as number] as number) - logSumExp(row)) / candidate.length;
  });
  stats.forEach(note);
  const [own = 0, ...others] = sums;
  const best = Math.max(...others);
  return { logprob: own, right: Number(best < own), margin: own - best };
}

/** What the model writes behind `prompt`, greedily, until it ends or `maxNewTokens`. */
export function write(probe: Probe, state: SequenceState, prompt: readonly number[], maxNewTokens: number): string {
  const { tokenizer, backend } = probe.loaded;
  using asked = probe.extend(state, prompt.slice(0, -1));
  const { length } = asked.cache;
  using fork = asked.fork(length, length + 1 + maxNewTokens);
  const decoder = tokenizer.decoder();
  let [text, token] = ["", prompt.at(-1) as number];
  for (let i = 0; i < maxNewTokens; i++) {
    probe.step(fork, token, (logits) => token = argmax(backend.read(logits) as Float32Array));
    if (tokenizer.eos.has(token)) break;
    text += decoder.push(token);
  }
  return text + decoder.flush();
}

/** 0 to 1, as the benchmark that the task is named after scores. */
export function gradeText(written: string, { answers, how }: Grade): number {
  // deno-lint-ignore no-control-regex -- RULER's own clean-up
  const text = written.trim().replaceAll(/[\u0000-\u001f]/g, "\n").trim();
  const found = answers.filter((answer) => text.toLowerCase().includes(answer.toLowerCase())).length;
  switch (how) {
    case "all":
      return found / answers.length;
    case "part":
      return Number(found > 0);
    case "integer":
      return Number(/\d+/.exec(text)?.[0] === answers[0]);
    case "word":
      return Number(text.replaceAll(/[\n:"'.,?!{}]/g, " ").split(" ").includes(answers[0] as string));
  }
}

/** Where the largest value is, the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i;
  return best;
}

/** Of one row of logits. */
export function logSumExp(values: Float32Array): number {
  const most = values[argmax(values)] as number;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - most);
  return most + Math.log(sum);
}

function bestBut(row: Float32Array, token: number): number {
  let best = -Infinity;
  for (let i = 0; i < row.length; i++) if (i !== token && (row[i] as number) > best) best = row[i] as number;
  return best;
}
