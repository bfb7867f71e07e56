// What llama.cpp gains by batching: the rival of bench/server_batching.ts, over node-llama-cpp, without a server.
//
//   KVASIR_RIVAL=/dir/with/node_modules node bench/rival_batching.mjs MODEL.gguf [TOKENS [THREADS]]
//
// Tokens a second (drawn ones, prompts' time included) of 8 prompts of 512 tokens one after another and at once, f16 cache,
// flash attention; each alone and then together, three times.
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modelPath, tokensText = "512", threadsText = "2"] = process.argv.slice(2);
const root = process.env.KVASIR_RIVAL;
if (modelPath === undefined || root === undefined) {
  console.error("Usage: KVASIR_RIVAL=DIR node rival_batching.mjs MODEL.gguf [TOKENS [THREADS]]");
  process.exit(2);
}
const resolve = createRequire(path.join(root, "package.json")).resolve;
const { getLlama } = await import(pathToFileURL(resolve("node-llama-cpp")));

const CLIENTS = 8;
const PROMPT = 512;
const maxTokens = Number(tokensText);
const threads = Number(threadsText);
const llama = await getLlama({ gpu: false, logLevel: "error", build: "never", maxThreads: threads });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: PROMPT + maxTokens + 32,
  sequences: CLIENTS,
  batchSize: 512,
  threads,
  flashAttention: true,
});
const sequences = Array.from({ length: CLIENTS }, () => context.getSequence());

let seed = 0;
/** Ids that no other prompt begins with. */
function fresh() {
  let state = ++seed;
  return Array.from({ length: PROMPT }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return 300 + state % 20000;
  });
}

async function answer(sequence) {
  await sequence.clearHistory();
  let drawn = 0;
  for await (const _ of sequence.evaluate(fresh(), { temperature: 0, yieldEogToken: true })) {
    if (++drawn === maxTokens) break;
  }
}

async function seconds(run) {
  const start = performance.now();
  await run();
  return (performance.now() - start) / 1000;
}

const together = () => Promise.all(sequences.map(answer));
await together();
for (let round = 0; round < 3; round++) {
  const one = await seconds(async () => {
    for (const sequence of sequences) await answer(sequence);
  });
  const all = await seconds(together);
  const rate = (time) => (CLIENTS * maxTokens / time).toFixed(1);
  console.log(
    `one after another ${rate(one)} tokens/s, ${CLIENTS} at once ${rate(all)} tokens/s, ${
      (one / all).toFixed(2)
    } times`,
  );
}
process.exit(0);
