/**
 * llama.cpp (node-llama-cpp) and transformers as rows of the matrix: the same tokens forced through them, their speed beside ours
 * in one run.
 *
 *     npm install --prefix .tools/rival node-llama-cpp@3.22
 *     deno run -A bench/matrix/rival.ts MODEL --llama-cpp .tools/rival --kv F16 --kv Q8_0 --lengths 2048,4096 -o results.jsonl
 *     deno run -A bench/matrix/rival.ts MODEL --transformers python3 --lengths 2048 -o results.jsonl
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
import { llamaCpp } from "./rivals/llama_cpp.ts";
import type { Rival } from "./rivals/rival.ts";
import { transformers } from "./rivals/transformers.ts";
import { ResultFile } from "./store.ts";
import { hashOf, matrixTasks, openHaystack, openTasks, type TaskPlace } from "./tasks.ts";

/** What is asked. */
interface RivalRun {
  readonly probe: Probe;
  readonly tasks: TaskPlace;
  readonly model: string;
  readonly weights: number;
  readonly steps: number;
}

/** Milliseconds a token of our full attention behind the text that was read. */
async function oursMs({ probe, steps }: RivalRun, tokens: readonly number[]): Promise<number> {
  using exact = await probe.under(parseMethod("full"));
  const { length } = exact.cache;
  using fork = exact.fork(length, length + steps);
  const times = Array.from({ length: steps }, (_, i) => {
    const start = performance.now();
    probe.step(fork, tokens[i % tokens.length] as number, (logits) => probe.loaded.backend.read(logits));
    return performance.now() - start;
  });
  return times.toSorted((a, b) => a - b)[steps >> 1] as number;
}

async function cellOf(run: RivalRun, spec: CellSpec, rival: Rival): Promise<Cell> {
  const { probe, tasks } = run;
  const { backend, model: { config } } = probe.loaded;
  const started = performance.now();
  const folder = Deno.makeTempDirSync();
  try {
    const sample = await matrixTasks.text?.make(tasks, spec.length, 0, spec.seed, 0);
    const tokens = sample?.context as readonly number[];
    const prefix = tokens.length - spec.questions;
    await probe.read(tokens.slice(0, prefix));
    const nllFull: number[] = [];
    using exact = await probe.under(parseMethod("full"));
    const work = workOf(exact, undefined);
    const text = {
      model: run.model,
      folder,
      tokens,
      tokensFile: `${folder}/tokens`,
      baseFile: `${folder}/base.kvlg`,
      prefix: prefix + 1,
      count: tokens.length - prefix - 1,
      vocab: config.vocab,
      steps: run.steps,
    };
    {
      using base = LogitsFile.open(text.baseFile, config.vocab, "append");
      probe.decode([{ state: exact, tokens: tokens.slice(prefix, -1) }], (logits, _, i) => {
        const row = backend.read(logits) as Float32Array<ArrayBuffer>;
        const next = tokens[prefix + i + 1] as number;
        base.append(Int32Array.of(next), row);
        nllFull.push(logSumExp(row) - (row[next] as number));
      });
    }
    Deno.writeFileSync(text.tokensFile, new Uint8Array(Int32Array.from(tokens).buffer));
    const answer = await rival.score(text);
    const before = await oursMs(run, tokens.slice(-64));
    const ownMs = await rival.msPerToken(text);
    const after = await oursMs(run, tokens.slice(-64));
    const exactMs = (before + after) / 2;
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
      quality: textQuality({ ...answer, nllFull }),
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
        weights: run.weights * rival.weightShare,
        cache: rows * rival.cacheShare,
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
      "llama-cpp": { type: "string" },
      transformers: { type: "string" },
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
  const folder = values["llama-cpp"];
  const rivals = [
    ...(folder === undefined ? [] : values.kv.map((kvType) => llamaCpp(Deno.realPathSync(folder), kvType))),
    ...(values.transformers === undefined ? [] : [transformers(values.transformers)]),
  ];
  if (rivals.length === 0) {
    throw new RangeError("Cannot measure: name a rival by --llama-cpp FOLDER or --transformers PYTHON");
  }
  const lengths = values.lengths.split(",").map(Number);
  using probe = await Probe.open({ model });
  using results = new ResultFile(values.output);
  const weights = probe.loaded.backend.bytes;
  const tasks = openTasks(probe.loaded, openHaystack(Math.max(...lengths), values.haystack));
  const run = { probe, tasks, model, weights, steps: Number(values.steps) };
  const { model: modelHash, tokenizer: tokenizerHash } = probe.loaded.identify();
  for (const length of lengths) {
    for (const rival of rivals) {
      const { program, kvType } = rival;
      const spec: CellSpec = {
        suiteVersion: SUITE_VERSION,
        backend: program,
        model: probe.loaded.file.replace(/.*\//, ""),
        modelHash,
        tokenizerHash,
        kv: kvType,
        method: `${program}:kv=${kvType.toLowerCase()}`,
        policy: `rival:${program}`,
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
      if (!results.has(cellKey(spec))) results.append(await cellOf(run, spec, rival));
      console.error(`${spec.method} at ${length}`);
    }
  }
}

if (import.meta.main) await main();
