/**
 * What indexes cost while tokens come, and what they are worth after.
 *
 *     deno run -A bench/growth.ts prefill MODEL --text FILE [--length 8192] [--rounds 3]
 *     deno run -A bench/growth.ts insert  MODEL --text FILE [--from 4096] [--to 16384] [--rounds 3] [--rope-freq-base 1000000]
 *     deno run -A bench/growth.ts quality MODEL --text FILE [--prompt 512] [--length 7016] [--tokens 256]
 *     deno run -A bench/growth.ts together MODEL --text FILE [--length 6144] [--sequences 3]
 *
 * `prefill`: time of a prompt with its index beside that without, in turns. `insert`: decode steps while keys leave the window
 * and join the index, beside what the steps would take without that. `quality`: divergence from full attention at a length
 * that a short prompt grew to, and at the same length as a prompt. `together`: several sequences build and decode in shared
 * steps. `--method` is PRESET[:key=value,…][@INDEX]. One JSON object goes to standard output.
 *
 * @module
 */
import { median } from "../core/median.ts";
import process from "node:process";
import { parseArgs } from "node:util";
import type { Tensor } from "../core/tensor.ts";
import { parseMethod } from "../attention/method.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward, type ForwardPart } from "../engine/forward.ts";
import { load } from "../engine/load.ts";
import { planAttention } from "../engine/plan.ts";
import { timeInserting } from "./insert_clock.ts";

const CHUNK = 512;

const { positionals, values } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    text: { type: "string" },
    method: { type: "string", default: "kvasir" },
    length: { type: "string" },
    from: { type: "string", default: "4096" },
    to: { type: "string", default: "16384" },
    prompt: { type: "string", default: "512" },
    tokens: { type: "string", default: "256" },
    rounds: { type: "string", default: "3" },
    sequences: { type: "string", default: "3" },
    backend: { type: "string" },
    "rope-freq-base": { type: "string" },
  },
});
const [what, model] = positionals;
if (model === undefined || values.text === undefined) {
  console.error("Usage: bench/growth.ts prefill|insert|quality|together MODEL --text FILE");
  Deno.exit(2);
}
const options = {
  model,
  ...(values.backend === undefined ? {} : { backend: values.backend }),
  ...(values["rope-freq-base"] === undefined ? {} : { rope: { freqBase: Number(values["rope-freq-base"]) } }),
};
using loaded = await load(options, {
  backends: {},
  progress: () => {},
  notice: (text) => console.error(text),
  signal: { aborted: false },
});
const { backend } = loaded;
const forward = new Forward(loaded.model, new Ops(backend), CHUNK);
const text = loaded.tokenizer.encode(await Deno.readTextFile(values.text));

const commands: Readonly<Record<string, () => object>> = {
  prefill: () => prefill(Number(values.length ?? 8192), Number(values.rounds)),
  insert: () => insert(Number(values.from), Number(values.to), Number(values.rounds)),
  quality: () => quality(Number(values.prompt), Number(values.length ?? 7016), Number(values.tokens)),
  together: () => together(Number(values.length ?? 6144), Number(values.sequences), Number(values.tokens)),
};
const command = commands[what ?? ""];
if (command === undefined) throw new RangeError(`Cannot measure "${what}": expected one of ${Object.keys(commands)}`);
console.log(JSON.stringify({ what, method: values.method, backend: backend.spec, ...command() }));

function open(length: number, method: string): SequenceState {
  if (text.length < length) throw new RangeError(`Cannot measure: the text has ${text.length} tokens of ${length}`);
  const { plan } = planAttention({ ...options, ...parseMethod(method).options }, backend);
  return new SequenceState(backend, loaded.model.config.layers, "f16", length, plan);
}

/** Logits behind the last part's last token, valid until the step ends in `visit`'s wake. */
function step(parts: readonly Omit<ForwardPart, "tokens" | "numLogits">[], visit?: (logits: Tensor) => void): void {
  try {
    const all = parts.map((p) => ({ ...p, tokens: text, numLogits: p.numTokens === 1 ? 1 : 0 }));
    const logits = forward.run(all) as Tensor;
    visit?.(logits);
  } finally {
    backend.endStep();
  }
}

function read(state: SequenceState, from: number, to: number): void {
  for (let start = from; start < to; start += CHUNK) {
    step([{ state, start, numTokens: Math.min(CHUNK, to - start) }]);
  }
}

/** One token; waits for it. */
function decode(state: SequenceState, at: number, visit: (logits: Tensor) => void = (x) => backend.read(x)): void {
  step([{ state, start: at, numTokens: 1 }], visit);
}

/**
 * Two prompts are read side by side, chunk by chunk and in changing order: what the machine does meanwhile meets both alike.
 */
function prefill(length: number, rounds: number): object {
  const kinds = ["without", "with"] as const;
  const ratios: number[] = [];
  const sums = { without: 0, with: 0, advance: 0 };
  const cpu = { without: 0, with: 0 };
  for (let round = -1; round < rounds; round++) {
    using without = open(length + 1, "full");
    using with_ = open(length + 1, values.method);
    const states = { without, with: with_ };
    const clock = timeInserting(with_);
    const ms = { without: 0, with: 0 };
    for (let start = 0; start < length; start += CHUNK) {
      const isOdd = (start / CHUNK + round) % 2 !== 0;
      for (const kind of isOdd ? kinds.toReversed() : kinds) {
        const [before, used] = [performance.now(), process.cpuUsage()];
        read(states[kind], start, Math.min(length, start + CHUNK));
        ms[kind] += performance.now() - before;
        const { user, system } = process.cpuUsage(used);
        if (round >= 0) cpu[kind] += (user + system) / 1000;
      }
    }
    if (round < 0) continue;
    ratios.push(ms.with / ms.without);
    for (const kind of kinds) sums[kind] += ms[kind] / rounds;
    sums.advance += clock() / rounds;
  }
  return {
    length,
    withoutMs: sums.without,
    withMs: sums.with,
    ratio: median(ratios),
    ratios,
    // Of all threads: what others do on the machine does not count.
    cpuRatio: cpu.with / cpu.without,
    // Inside of one run, by the clock.
    indexShare: sums.advance / sums.with,
  };
}

/**
 * Copies of one sequence take each step one after the other. They do the same work: the least of their times is the work's, what is
 * above it is the machine's.
 */
function insert(from: number, to: number, copies: number): object {
  using prompt = open(to, values.method);
  read(prompt, 0, from);
  using stack = new DisposableStack();
  const states = Array.from({ length: copies }, () => stack.use(prompt.fork(from, to)));
  const clocks = states.map(timeInserting);
  const inserting: number[] = [], rest: number[] = [], one: number[] = [];
  for (let at = from; at < to; at++) {
    const own: number[] = [], others: number[] = [];
    for (const [i, state] of states.entries()) {
      const clock = clocks[i] as () => number;
      const [before, start] = [clock(), performance.now()];
      decode(state, at);
      own.push(clock() - before);
      others.push(performance.now() - start - (own[i] as number));
    }
    inserting.push(Math.min(...own));
    rest.push(Math.min(...others));
    one.push(own[0] as number);
  }
  const reach = 64;
  // A step beside what steps around it take: the length grows meanwhile, and others use the machine.
  const beside = (times: readonly number[], isExtra: boolean) => {
    const ratios: { at: number; ratio: number }[] = [];
    for (let i = reach; i < times.length - reach; i++) {
      const near = median(rest.slice(i - reach, i + reach));
      ratios.push({ at: from + i, ratio: (times[i] as number) / near + (isExtra ? 1 : 0) });
    }
    return ratios.sort((a, b) => b.ratio - a.ratio);
  };
  const slowest = beside(inserting, true);
  return {
    from,
    to,
    copies,
    meanMs: mean(inserting) + mean(rest),
    meanRatio: 1 + mean(inserting) / mean(rest),
    slowestByInserting: slowest[0]?.ratio,
    slowestSteps: slowest.slice(0, 8),
    // Of one copy, with whatever the machine did just then.
    slowestByInsertingOnce: beside(one, true)[0]?.ratio,
    slowestOtherwise: beside(rest, false)[0]?.ratio,
    stats: states[0]?.stats(),
  };
}

function quality(prompt: number, length: number, tokens: number): object {
  const { vocab } = loaded.model.config;
  const start = length - tokens;
  const base = backend.alloc([tokens, vocab], "f32", "sequence");
  {
    using state = open(length, "full");
    read(state, 0, start);
    for (let i = 0; i < tokens; i++) {
      decode(state, start + i, (x) => backend.write(base, backend.read(x), i));
    }
  }
  const report: Record<string, unknown> = { prompt, length, tokens };
  for (const [name, from] of [["asPrompt", start], ["grown", prompt]] as const) {
    using state = open(length, values.method);
    read(state, 0, from);
    for (let at = from; at < start; at++) decode(state, at, () => {});
    const kl: number[] = [];
    for (let i = 0; i < tokens; i++) {
      decode(state, start + i, (x) => {
        const out = backend.alloc([1], "f32", "step");
        backend.kernels.klDivergence(out, backend.view(base, [1, vocab], i * vocab), x);
        kl.push(backend.read(out)[0] as number);
      });
    }
    const error = Math.sqrt(kl.reduce((sum, x) => sum + (x - mean(kl)) ** 2, 0) / (kl.length - 1) / kl.length);
    const { queries, retrieved } = state.stats();
    report[name] = {
      kl: mean(kl),
      interval: [mean(kl) - 1.96 * error, mean(kl) + 1.96 * error],
      rows: retrieved / queries,
    };
  }
  backend.free(base);
  return report;
}

function together(length: number, count: number, tokens: number): object {
  const states = Array.from({ length: count }, () => open(length + tokens, values.method));
  try {
    for (const state of states) read(state, 0, length);
    const alone: number[] = [];
    const shared: number[] = [];
    const time = (parts: readonly SequenceState[], at: number, to: number[]) => {
      const start = performance.now();
      step(parts.map((state) => ({ state, start: at, numTokens: 1 })), (x) => backend.read(x));
      to.push(performance.now() - start);
    };
    for (let i = 0; i < tokens; i++) time(states, length + i, shared);
    {
      using state = open(length + tokens, values.method);
      read(state, 0, length);
      for (let i = 0; i < tokens; i++) time([state], length + i, alone);
    }
    const [one, all] = [median(alone), median(shared)];
    return {
      length,
      sequences: count,
      aloneMs: one,
      sharedMs: all,
      slowestShared: Math.max(...shared) / all,
      ratio: all / one,
    };
  } finally {
    for (const state of states) state[Symbol.dispose]();
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
