// llama.cpp by node-llama-cpp, behind the same job list as ours: reads JSON lines of jobs on standard input, answers each
// by one JSON line. Run by node with the folder that holds node_modules as its first argument.
//
//   {"model": "m.gguf", "kind": "prefill", "tokens": 512, "runs": 3, "threads": 2, "batch": 512, "flash": true}
//   {"model": "m.gguf", "kind": "decode", "depth": 8192, "tokens": 64, ...}        -> {"rates": [tokens per second]}
//   {"model": "m.gguf", "kind": "first"}                                          -> {"ms": since the process started}
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/x.js`);
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 0 });

let loaded;
async function modelOf(path) {
  if (loaded?.path !== path) {
    await loaded?.model.dispose();
    loaded = {
      path,
      model: await llama.loadModel({ modelPath: path, useMmap: true, defaultContextFlashAttention: true }),
    };
  }
  return loaded.model;
}

const promptTokens = (n) => Array.from({ length: n }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 8) & 0xff);

async function rates(job) {
  const model = await modelOf(job.model);
  const depth = job.kind === "decode" ? Math.max(1, job.depth) : job.tokens;
  const context = await model.createContext({
    contextSize: depth + (job.kind === "decode" ? job.tokens + 8 : 8),
    batchSize: job.batch ?? 512,
    threads: job.threads ?? 2,
    flashAttention: job.flash ?? true,
    ...(job.kvType === undefined
      ? {}
      : { experimentalKvCacheKeyType: job.kvType, experimentalKvCacheValueType: job.kvType }),
  });
  const result = [];
  try {
    const sequence = context.getSequence();
    for (let run = job.warm === false ? 0 : -1; run < job.runs; run++) {
      await sequence.clearHistory();
      let start = performance.now();
      let rate;
      if (job.kind === "prefill") {
        await sequence.evaluateWithoutGeneratingNewTokens(promptTokens(job.tokens));
        rate = job.tokens / (performance.now() - start);
      } else {
        if (depth > 1) await sequence.evaluateWithoutGeneratingNewTokens(promptTokens(depth - 1));
        let count = 0;
        for await (const _ of sequence.evaluate([7], { temperature: 0, yieldEogToken: true })) {
          if (count === 0) start = performance.now();
          if (++count > job.tokens) break;
        }
        rate = (count - 1) / (performance.now() - start);
      }
      if (run >= 0) result.push(1000 * rate);
    }
  } finally {
    await context.dispose();
  }
  return { rates: result };
}

// Loads a model and evaluates one token: what a process pays until its first token.
async function first(job) {
  const model = await modelOf(job.model);
  const context = await model.createContext({ contextSize: 512, threads: job.threads ?? 2 });
  const sequence = context.getSequence();
  for await (const _ of sequence.evaluate([7], { temperature: 0, yieldEogToken: true })) break;
  const ms = performance.now();
  return { ms };
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === "") continue;
  const job = JSON.parse(line);
  const run = { prefill: rates, decode: rates, first }[job.kind];
  process.stdout.write(`${JSON.stringify(await run(job))}\n`);
}
process.exit(0);
