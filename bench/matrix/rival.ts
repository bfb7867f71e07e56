/**
 * llama.cpp (node-llama-cpp) as rows of the matrix: the same tokens forced through it, its speed beside ours in one run.
 *
 *     npm install --prefix .tools/rival node-llama-cpp@3.22
 *     deno run -A bench/matrix/rival.ts MODEL --rival .tools/rival --lengths 2048,4096 --kv F16 --kv Q8_0 -o results.jsonl
 *
 * Only task `text`: divergence is from our full attention on the same weights, so that `F16` shows what is arithmetic, and
 * quantized caches what they lose beyond that. Programs are run, so this is no part of `kvasir bench matrix`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import denoJson from "../../deno.json" with { type: "json" };
import { LogitsFile } from "../../engine/logits_file.ts";
import { logSumExp } from "../answers.ts";
import { parseMethod, Probe } from "../probe.ts";
import { type Cell, cellKey, type CellSpec, SUITE_VERSION } from "./cell.ts";
import { workOf } from "./costs.ts";
import { commitOf, describeMachine } from "./machine.ts";
import { textQuality } from "./quality.ts";
import { ResultFile } from "./store.ts";
import { hashOf, matrixTasks, openHaystack, openTasks, type TaskPlace } from "./tasks.ts";

/** What is asked. */
interface RivalRun {
  readonly probe: Probe;
  readonly tasks: TaskPlace;
  readonly model: string;
  readonly rival: string;
  readonly weights: number;
  readonly steps: number;
}

const THREADS = 2;

async function execute(script: string, args: readonly string[], env: Record<string, string>, input?: string) {
  const path = new URL(script, import.meta.url).pathname;
  const child = new Deno.Command("node", { args: [path, ...args], env, stdin: "piped", stdout: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  if (input !== undefined) await writer.write(new TextEncoder().encode(`${input}\n`));
  await writer.close();
  const { success, stdout } = await child.output();
  if (!success) throw new Error(`Cannot measure llama.cpp: ${script} failed`);
  return JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1) as string);
}

/** Milliseconds a token of our full attention behind the text that was read. */
function oursMs({ probe, steps }: RivalRun, tokens: readonly number[]): number {
  using exact = probe.under(parseMethod("full"));
  const { length } = exact.cache;
  using fork = exact.fork(length, length + steps);
  const times = Array.from({ length: steps }, (_, i) => {
    const start = performance.now();
    probe.step(fork, tokens[i % tokens.length] as number, (logits) => probe.loaded.backend.read(logits));
    return performance.now() - start;
  });
  return times.toSorted((a, b) => a - b)[steps >> 1] as number;
}

async function cellOf(run: RivalRun, spec: CellSpec, kvType: string): Promise<Cell> {
  const { probe, tasks } = run;
  const { backend, model: { config } } = probe.loaded;
  const started = performance.now();
  const folder = Deno.makeTempDirSync();
  try {
    const sample = await matrixTasks.text?.make(tasks, spec.length, 0, spec.seed, 0);
    const tokens = sample?.context as readonly number[];
    const prefix = tokens.length - spec.questions;
    probe.read(tokens.slice(0, prefix));
    const nllFull: number[] = [];
    using exact = probe.under(parseMethod("full"));
    const work = workOf(exact, undefined);
    {
      using base = LogitsFile.open(`${folder}/base.kvlg`, config.vocab, "append");
      probe.decode([{ state: exact, tokens: tokens.slice(prefix, -1) }], (logits, _, i) => {
        const row = backend.read(logits) as Float32Array<ArrayBuffer>;
        const next = tokens[prefix + i + 1] as number;
        base.append(Int32Array.of(next), row);
        nllFull.push(logSumExp(row) - (row[next] as number));
      });
    }
    Deno.writeFileSync(`${folder}/tokens`, new Uint8Array(Int32Array.from(tokens).buffer));
    const args = [run.model, `${folder}/tokens`, `${folder}/base.kvlg`, `${prefix + 1}`, `${THREADS}`, kvType];
    const { kls, nlls, sames } = await execute("../rival_llama_cpp.mjs", args, { KVASIR_RIVAL: run.rival });
    const before = oursMs(run, tokens.slice(-64));
    const job = { kind: "decode", model: run.model, depth: spec.length, tokens: run.steps, runs: 1, warm: false };
    const asked = JSON.stringify({ ...job, threads: THREADS, flash: true, kvType });
    const { rates } = await execute("../rival/llama_cpp.mjs", [run.rival], {}, asked);
    const after = oursMs(run, tokens.slice(-64));
    const [exactMs, ownMs] = [(before + after) / 2, 1000 / (rates as [number])[0]];
    const rows = work.rowBytes / work.keys * prefix;
    return {
      kind: "cell",
      key: cellKey(spec),
      spec,
      machine: describeMachine(),
      commit: commitOf(),
      version: denoJson.version,
      at: new Date().toISOString(),
      seconds: Number(((performance.now() - started) / 1000).toFixed(3)),
      prompts: [hashOf(JSON.stringify(tokens))],
      quality: textQuality({ kl: kls, sameTop: sames, nll: nlls, nllFull }),
      headErrors: null,
      work,
      speed: {
        pairs: 1,
        exactMs,
        ownMs,
        ratio: [exactMs / ownMs, Math.min(before, after) / ownMs, Math.max(before, after) / ownMs],
        bandwidth: null,
        exactFloorMs: null,
        ownFloorMs: null,
      },
      memory: {
        weights: run.weights,
        cache: rows * (kvType === "Q8_0" ? 17 / 32 : kvType === "Q4_0" ? 9 / 32 : 1),
        index: 0,
      },
      build: { readMs: 1, readWithMs: 1, settleMs: 0, threadSeconds: 0, insertMs: 0 },
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  const { values, positionals: [model] } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      rival: { type: "string", default: ".tools/rival" },
      lengths: { type: "string", default: "2048" },
      kv: { type: "string", multiple: true, default: ["F16", "Q8_0"] },
      tokens: { type: "string", default: "128" },
      steps: { type: "string", default: "24" },
      seed: { type: "string", default: "42" },
      haystack: { type: "string" },
      output: { type: "string", short: "o" },
    },
  });
  if (model === undefined || values.output === undefined) {
    throw new RangeError("Cannot measure: give a model and -o FILE");
  }
  const lengths = values.lengths.split(",").map(Number);
  using probe = await Probe.open({ model });
  using results = new ResultFile(values.output);
  const weights = probe.loaded.backend.bytes;
  const tasks = openTasks(probe.loaded, openHaystack(Math.max(...lengths), values.haystack));
  const run = { probe, tasks, model, rival: await Deno.realPath(values.rival), weights, steps: Number(values.steps) };
  const { model: modelHash, tokenizer: tokenizerHash } = probe.loaded.identify();
  for (const length of lengths) {
    for (const kvType of values.kv) {
      const spec: CellSpec = {
        suiteVersion: SUITE_VERSION,
        backend: "llama.cpp",
        model: probe.loaded.file.replace(/.*\//, ""),
        modelHash,
        tokenizerHash,
        kv: kvType,
        method: `llama.cpp:kv=${kvType.toLowerCase()}`,
        policy: "rival:llama.cpp",
        index: "",
        task: "text",
        length,
        mode: "shared",
        seed: Number(values.seed),
        samples: 1,
        questions: Number(values.tokens),
        writes: false,
        haystackHash: tasks.haystack.hash,
      };
      if (!results.has(cellKey(spec))) results.append(await cellOf(run, spec, kvType));
      console.error(`${spec.method} at ${length}`);
    }
  }
}

if (import.meta.main) await main();
