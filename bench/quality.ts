/**
 * Quality of ways to attend, beside full attention in the same program.
 *
 *     deno run -A bench/quality.ts kl MODEL --text FILE… [--length 8192] [--tokens 512] [--seeds 8] [--method M…]
 *     deno run -A bench/quality.ts tasks MODEL --text FILE [--task T…] [--length 4096…] [--contexts 20] [--questions 20] [--method M…]
 *
 * A method is `PRESET[:key=value,…][@INDEX]`, `kvasir:error=0.025` or `exact-topk@flat:codes=f16`. `kl` forces the tokens of
 * each text on the model one by one and reports the divergence of its predictions from those of full attention; `tasks`
 * asks what can be answered by looking back (bench/tasks). Indexes are built first. One JSON object a cell goes to standard output.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { summarizeKl, summarizeTask } from "./quality_table.ts";
import type { SequenceState } from "../attention/state.ts";
import { material, parseMethod, Probe } from "./probe.ts";
import { Random } from "./tasks/random.ts";
import { type Answer, answerAll, argmax } from "./answers.ts";
import { tasks } from "./tasks/mod.ts";
import type { Material, Task } from "./tasks/sample.ts";

/** Raised when a generator changes, so that figures of different questions are not compared. */
const SUITE = 1;

/** Sees sinks and window alone: a task that it can do says nothing. */
const NEAR = "streaming-llm:window=512";
/** What stands so many tokens before a context's end is out of its sight. */
const WINDOW_REACH = 640;

const { positionals, values } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    text: { type: "string", multiple: true },
    length: { type: "string", multiple: true },
    method: { type: "string", multiple: true },
    task: { type: "string", multiple: true },
    tokens: { type: "string", default: "512" },
    seeds: { type: "string", default: "8" },
    seed: { type: "string", default: "42" },
    contexts: { type: "string", default: "20" },
    questions: { type: "string", default: "20" },
    threads: { type: "string" },
    "rope-freq-base": { type: "string" },
  },
});
const [what, model] = positionals;
if (model === undefined || (what !== "kl" && what !== "tasks") || values.text === undefined) {
  console.error("Usage: bench/quality.ts kl|tasks MODEL --text FILE [--method PRESET:key=value@INDEX]");
  Deno.exit(2);
}
const methods = values.method ?? ["kvasir"];
const lengths = (values.length ?? ["8192"]).map(Number);
using probe = await Probe.open({
  model,
  ctxSize: Math.max(...lengths) + 2048,
  ...(values.threads === undefined ? {} : { backend: `cpu:threads=${values.threads}` }),
  ...(values["rope-freq-base"] === undefined ? {} : { rope: { freqBase: Number(values["rope-freq-base"]) } }),
});
const texts = values.text.map((file) => ({ file, text: Deno.readTextFileSync(file) }));
if (what === "kl") { for (const length of lengths) await runKl(length); }
else for (const length of lengths) await runTasks(length);

/** Divergence from full attention, forced through the last tokens of each text. */
async function runKl(length: number): Promise<void> {
  const { backend, model, tokenizer } = probe.loaded;
  const { vocab } = model.config;
  const numTokens = Number(values.tokens);
  const cells = new Map<string, { kl: number[][]; same: number[]; rows: number[]; share: number[]; error: number[] }>();
  for (const { file, text } of texts) {
    const tokens = tokenizer.encode(text).slice(0, length);
    if (tokens.length < length) throw new RangeError(`Cannot score "${file}": ${tokens.length} tokens of ${length}`);
    const rest = tokens.slice(length - numTokens);
    await probe.read(tokens.slice(0, length - numTokens));
    const base = backend.alloc([numTokens, vocab], "f32", "sequence");
    try {
      const best = new Int32Array(numTokens);
      {
        using full = await probe.under(parseMethod("full"));
        probe.decode([{ state: full, tokens: rest }], (logits, _, i) => {
          const values = backend.read(logits) as Float32Array<ArrayBuffer>;
          backend.write(backend.view(base, [1, vocab], i * vocab), values);
          best[i] = argmax(values);
        });
      }
      for (const name of methods) {
        const cell = cells.get(name) ?? { kl: [], same: [], rows: [], share: [], error: [] };
        cells.set(name, cell);
        const repeats = parseMethod(name).draws ? Number(values.seeds) : 1;
        const perSeed = Array.from({ length: repeats }, () => new Float64Array(numTokens));
        const same = new Float64Array(repeats);
        using stack = new DisposableStack();
        const runs: { state: SequenceState; tokens: number[] }[] = [];
        for (let seed = 0; seed < repeats; seed++) {
          const state = stack.use(await probe.under(parseMethod(name, { seed: String(seed) })));
          state.settle();
          runs.push({ state, tokens: rest });
        }
        const stats = probe.decode(runs, (logits, run, i) => {
          const out = backend.alloc([1], "f32", "step");
          backend.kernels.klDivergence(out, backend.view(base, [1, vocab], i * vocab), logits);
          (perSeed[run] as Float64Array)[i] = backend.read(out)[0] as number;
          if (argmax(backend.read(logits) as Float32Array) === best[i]) {
            same[run] = (same[run] as number) + 1 / numTokens;
          }
        });
        cell.same.push(...same);
        for (const seen of stats) {
          if (seen === undefined) continue;
          cell.rows.push(seen.retrieved / seen.queries);
          cell.share.push(seen.retrieved / seen.tokens);
          cell.error.push(seen.estimatedError / Math.max(1, seen.queries - seen.dense));
        }
        // Seeds of one token share its difficulty: their mean is one observation.
        cell.kl.push(Array.from({ length: numTokens }, (_, i) => mean(perSeed.map((kl) => kl[i] as number))));
      }
    } finally {
      backend.free(base);
    }
  }
  for (const [method, cell] of cells) console.log(JSON.stringify({ kind: "kl", length, ...summarizeKl(method, cell) }));
}

async function runTasks(length: number): Promise<void> {
  const prose = material(probe.loaded, texts[0]?.text ?? "");
  for (const name of values.task ?? tasks.map((task) => task.name)) {
    const task = tasks.find((task) => task.name === name);
    if (task === undefined) throw new RangeError(`Cannot run task "${name}": try ${tasks.map((task) => task.name)}`);
    const { answers, isFar } = await ask(task, prose, length);
    const [full, near] = [answers.get("full") as Answer[][], answers.get(NEAR) as Answer[][]];
    for (const [method, own] of answers) {
      const line = summarizeTask({ task, method, length, full, near, own, isFar });
      console.log(JSON.stringify({ kind: "task", suite: SUITE, ...line }));
    }
  }
}

async function ask(
  task: Task,
  prose: Material,
  length: number,
): Promise<{ answers: Map<string, Answer[][]>; isFar: boolean[][] }> {
  const all = ["full", NEAR, ...methods];
  const answers = new Map(all.map((name) => [name, [] as Answer[][]]));
  const isFar: boolean[][] = [];
  for (let index = 0; index < Number(values.contexts); index++) {
    const random = new Random(SUITE, task.name, length, index, values.seed);
    const { context, questions } = task.make(random, prose, length, Number(values.questions));
    await probe.read(context);
    isFar.push(questions.map(({ depth }) => depth * length < length - WINDOW_REACH));
    for (const name of all) {
      using state = await probe.under(parseMethod(name, { seed: String(index) }));
      state.settle();
      answers.get(name)?.push(answerAll(probe, state, questions));
    }
  }
  return { answers, isFar };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
