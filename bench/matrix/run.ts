/**
 * Runs rows of the matrix on one model: every method of a context over the same keys, answers and costs of the same run.
 *
 * @module
 */
import type { PolicyStats } from "../../attention/policy.ts";
import type { SequenceState } from "../../attention/state.ts";
import { answerAll, argmax, gradeText, logSumExp, write } from "../answers.ts";
import { type Method, parseMethod, type Probe } from "../probe.ts";
import type { Question, Sample } from "../tasks/sample.ts";
import { type Cell, cellKey, type CellSpec, type HeadErrors, type Machine } from "./cell.ts";
import { addStats, type CostPlace, measureCosts, measureHeads, workOf } from "./costs.ts";
import { type Answered, type Divergence, questionQuality, textQuality } from "./quality.ts";
import { hashOf, type MatrixTask, type TaskPlace } from "./tasks.ts";

/** Sees sinks and window alone: a task that it can do says nothing. */
export const NEAR = "streaming-llm:window=512";
/** What stands so many tokens before a context's end is out of its sight. */
const WINDOW_REACH = 640;
/** Tokens over which heads are compared with exact attention. */
const HEAD_STEPS = 4;

/** Cells of one context length and task: they share contexts. */
export interface Group {
  readonly task: MatrixTask;
  readonly length: number;
  /** Wanted and not finished. */
  readonly specs: readonly CellSpec[];
}

/** What a run is given. */
export interface RunPlace {
  readonly probe: Probe;
  readonly tasks: TaskPlace;
  readonly machine: Machine;
  readonly commit: string;
  readonly version: string;
  /** Turns of decode steps that are timed. */
  readonly pairs: number;
  /** Bytes of the weights. */
  readonly weights: number;
  /** Called between pieces of work; throws to stop. */
  breathe(done: number): Promise<void>;
}

/** What one method gathered so far. */
interface Gathered {
  readonly spec: CellSpec | undefined;
  readonly method: (draw: number) => Method;
  readonly answers: Answered[];
  readonly divergence: { kl: number[]; sameTop: number[]; nll: number[]; nllFull: number[] };
  readonly stats: (PolicyStats | undefined)[];
  costs?: ReturnType<typeof measureCosts>;
  heads?: HeadErrors | null;
  work?: ReturnType<typeof workOf>;
  ms: number;
}

/** Runs a group; cells come when all of its contexts are done. Throws what `breathe` throws, having freed all. */
export async function runGroup(place: RunPlace, { task, length, specs }: Group): Promise<Cell[]> {
  const [first] = specs;
  if (first === undefined) return [];
  const { probe } = place;
  const make = (name: string, spec?: CellSpec): Gathered => ({
    spec,
    method: (draw) => parseMethod(name, { ...spec?.settings, seed: String((first.seed + draw) >>> 0) }),
    answers: [],
    divergence: { kl: [], sameTop: [], nll: [], nllFull: [] },
    stats: [],
    ms: 0,
  });
  const base = make("full");
  const near = make(NEAR);
  const own = specs.map((spec) => make(spec.method, spec));
  const prompts: string[] = [];
  for (let index = 0; index < first.samples; index++) {
    const sample = await task.make(place.tasks, length, index, first.seed, first.questions);
    prompts.push(hashSample(sample));
    const rest = task.kind === "text" ? sample.context.slice(length - first.questions) : [];
    const parts = task.kind === "text"
      ? [sampleOf(sample, first.questions)]
      : first.mode === "cold"
      ? cold(sample)
      : [sample];
    for (const [part, { context, questions }] of parts.entries()) {
      const started = performance.now();
      await probe.read(context);
      const readMs = performance.now() - started;
      await place.breathe((index + part / parts.length) / first.samples);
      using exact = await probe.under(base.method(0));
      const logits = task.kind === "text" ? scoreFull(probe, exact, rest) : undefined;
      const costs: CostPlace = {
        probe,
        exact,
        pairs: place.pairs,
        tokens: context.slice(-64),
        weights: place.weights,
        readMs,
      };
      for (const one of task.kind === "text" ? own : [base, near, ...own]) {
        const began = performance.now();
        {
          const method = one.method(index);
          using state = await probe.under(method);
          const underMs = performance.now() - began;
          state.settle();
          if (one.spec !== undefined && one.costs === undefined) {
            one.costs = measureCosts(costs, state, {
              readWithMs: probe.readsItself(method) ? underMs : readMs + underMs,
              settleMs: performance.now() - began - underMs,
            });
            one.heads = measureHeads(probe, state, context.slice(-HEAD_STEPS));
          }
          if (logits !== undefined) scoreText(probe, one, state, rest, logits);
          else one.answers.push(...answers(probe, one, state, questions, length, first.writes));
          one.work = workOf(state, addStats(one.stats));
        }
        one.ms += performance.now() - began;
        await place.breathe((index + part / parts.length) / first.samples);
      }
      logits?.free();
    }
  }
  return own.map((one) => {
    const spec = one.spec as CellSpec;
    const { costs, work, heads } = one as Required<Gathered>;
    return {
      kind: "cell",
      key: cellKey(spec),
      spec,
      machine: place.machine,
      commit: place.commit,
      version: place.version,
      at: new Date().toISOString(),
      seconds: Number((one.ms / 1000).toFixed(3)),
      prompts,
      quality: task.kind === "text"
        ? textQuality(one.divergence)
        : questionQuality(one.answers, base.answers, near.answers, task.chance),
      headErrors: heads,
      work,
      ...costs,
    };
  });
}

/** A sample without its last tokens. */
function sampleOf({ context }: Sample, numScored: number): Sample {
  return { context: context.slice(0, context.length - numScored), questions: [] };
}

/** Each question read together with its context: an index knows what will be asked. */
function cold({ context, questions }: Sample): Sample[] {
  return questions.map((question) => ({
    context: [...context, ...question.prompt.slice(0, -1)],
    questions: [{ ...question, prompt: question.prompt.slice(-1) }],
  }));
}

function answers(
  probe: Probe,
  one: Gathered,
  state: SequenceState,
  questions: readonly Question[],
  length: number,
  writes: boolean,
): Answered[] {
  const scored = answerAll(probe, state, questions, (stats) => one.stats.push(stats));
  return scored.map((answer, i) => {
    const { depth, grade, prompt } = questions[i] as Question;
    const placed = { ...answer, depth, isFar: depth * length < length - WINDOW_REACH };
    if (!writes || grade === undefined) return placed;
    const text = write(probe, state, prompt, grade.maxNewTokens);
    return { ...placed, score: gradeText(text, grade), isEmpty: text.trim() === "" };
  });
}

/** Logits of full attention, kept on the backend. */
interface FullLogits {
  readonly best: readonly number[];
  readonly nll: readonly number[];
  divergence(i: number, logits: Parameters<Parameters<Probe["step"]>[2]>[0]): number;
  free(): void;
}

function scoreFull(probe: Probe, exact: SequenceState, rest: readonly number[]): FullLogits {
  const { backend, model: { config: { vocab } } } = probe.loaded;
  const kept = backend.alloc([rest.length, vocab], "f32", "sequence");
  const [best, nll]: [number[], number[]] = [[], []];
  probe.decode([{ state: exact, tokens: rest }], (logits, _, i) => {
    const row = backend.read(logits) as Float32Array<ArrayBuffer>;
    backend.write(backend.view(kept, [1, vocab], i * vocab), row);
    best.push(argmax(row));
    nll.push(nllOf(row, rest[i + 1]));
  });
  return {
    best,
    nll,
    divergence(i, logits) {
      const out = backend.alloc([1], "f32", "step");
      backend.kernels.klDivergence(out, backend.view(kept, [1, vocab], i * vocab), logits);
      return backend.read(out)[0] as number;
    },
    free: () => backend.free(kept),
  };
}

function scoreText(probe: Probe, one: Gathered, state: SequenceState, rest: readonly number[], full: FullLogits): void {
  const to: Divergence & Record<keyof Divergence, number[]> = one.divergence;
  const stats = probe.decode([{ state, tokens: rest }], (logits, _, i) => {
    to.kl.push(full.divergence(i, logits));
    const row = probe.loaded.backend.read(logits) as Float32Array;
    to.sameTop.push(Number(argmax(row) === full.best[i]));
    if (i + 1 === rest.length) return;
    to.nll.push(nllOf(row, rest[i + 1]));
    to.nllFull.push(full.nll[i] as number);
  });
  one.stats.push(...stats);
}

function nllOf(row: Float32Array, next: number | undefined): number {
  return next === undefined ? 0 : logSumExp(row) - (row[next] as number);
}

function hashSample({ context, questions }: Sample): string {
  return hashOf(JSON.stringify([context, questions.map(({ prompt, answer }) => [prompt, answer])]));
}
