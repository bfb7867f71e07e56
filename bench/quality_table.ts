/**
 * Means and intervals of quality cells.
 *
 * @module
 */
import type { Task } from "./tasks/sample.ts";
import { Random } from "./tasks/random.ts";

/** Mean and the ends of its 95 % interval. */
export type Interval = readonly [mean: number, low: number, high: number];

/** Neighbouring tokens err alike: so many of them are one observation. */
const BLOCK = 32;
const RESAMPLES = 2000;

/** Bootstrap over observations (percentiles; Efron and Tibshirani 1993, §13), equal for equal values. */
export function bootstrap(observations: readonly number[]): Interval {
  const n = observations.length;
  const random = new Random("bootstrap", n);
  const means = Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += observations[random.below(n)] as number;
    return sum / n;
  }).sort();
  const at = (q: number) => means[Math.min(RESAMPLES - 1, Math.floor(q * RESAMPLES))] as number;
  return [mean(observations), at(0.025), at(0.975)];
}

/** One method's divergence: `kl` [texts][tokens]; the others one value a run. */
export function summarizeKl(
  method: string,
  cell: {
    readonly kl: readonly (readonly number[])[];
    readonly same: readonly number[];
    readonly rows: readonly number[];
    readonly share: readonly number[];
    readonly error: readonly number[];
  },
): Readonly<Record<string, unknown>> {
  const blocks = cell.kl.flatMap((kl) =>
    Array.from({ length: Math.ceil(kl.length / BLOCK) }, (_, i) => mean(kl.slice(i * BLOCK, (i + 1) * BLOCK)))
  );
  return {
    method,
    texts: cell.kl.length,
    tokens: cell.kl[0]?.length ?? 0,
    runs: cell.same.length,
    kl: bootstrap(blocks),
    klOfTexts: cell.kl.map(mean),
    sameTop: mean(cell.same),
    ...(cell.rows.length === 0
      ? {}
      : { rows: mean(cell.rows), share: mean(cell.share), estimatedError: mean(cell.error) }),
  };
}

interface Answered {
  readonly logprob: number;
  readonly right: number;
}

/** What `summarizeTask` compares: answers [contexts][questions] of three ways to attend. */
export interface TaskCell {
  readonly task: Task;
  readonly method: string;
  readonly length: number;
  readonly full: readonly (readonly Answered[])[];
  readonly near: readonly (readonly Answered[])[];
  readonly own: readonly (readonly Answered[])[];
  /** Whether each question's evidence stands before everything that a window sees, [contexts][questions]. */
  readonly isFar: readonly (readonly boolean[])[];
}

/** One method's row: scores, paired differences to full attention, and whether the task says anything at this length. */
export function summarizeTask(
  { task, method, length, full, near, own, isFar }: TaskCell,
): Readonly<Record<string, unknown>> {
  const flat = (answers: readonly (readonly Answered[])[], key: keyof Answered) =>
    answers.flatMap((context) => context.map((answer) => answer[key]));
  const difference = (a: typeof own, b: typeof own, key: keyof Answered) => {
    const other = flat(b, key);
    return flat(a, key).map((value, i) => value - (other[i] as number));
  };
  const gained = difference(full, near, "logprob");
  const [lead] = bootstrap(gained);
  const far = isFar.flat();
  return {
    task: task.name,
    length,
    method,
    questions: flat(own, "right").length,
    right: mean(flat(own, "right")),
    rightFar: mean(flat(own, "right").filter((_, i) => far[i])),
    chance: task.chance,
    logprob: mean(flat(own, "logprob")),
    rightMinusFull: bootstrap(difference(own, full, "right")),
    logprobMinusFull: bootstrap(difference(own, full, "logprob")),
    // Full attention must lead the window by more than 3 standard errors, or nothing was looked up.
    informative: lead > 3 * deviation(gained) / Math.sqrt(gained.length),
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / Math.max(1, values.length - 1));
}
