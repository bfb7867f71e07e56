// How far llama.cpp's CPU logits are from saved ones: the rival of bench/fidelity.ts, over node-llama-cpp.
//
//   KVASIR_RIVAL=/dir/with/node_modules node bench/rival_llama_cpp.mjs MODEL.gguf TOKENS BASE.kvlg PREFIX [THREADS [KV_TYPE]]
//
// Prefills PREFIX tokens in batches, then feeds the scored tokens one by one, and compares each next-token distribution
// with BASE (docs/logits_file.md). Prints one JSON line, with all rows when KV_TYPE (F16, Q8_0, Q4_0 …) is given. TOKENS is
// little-endian int32.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modelPath, tokensPath, basePath, prefixText, threadsText = "2", kvType] = process.argv.slice(2);
const root = process.env.KVASIR_RIVAL;
if (prefixText === undefined || root === undefined) {
  console.error("Usage: KVASIR_RIVAL=DIR node rival_llama_cpp.mjs MODEL.gguf TOKENS BASE.kvlg PREFIX [THREADS]");
  process.exit(2);
}
const resolve = createRequire(path.join(root, "package.json")).resolve;
const { getLlama } = await import(pathToFileURL(resolve("node-llama-cpp")));

const prefix = Number(prefixText);
const raw = fs.readFileSync(tokensPath);
const tokens = Array.from(new Int32Array(raw.buffer, raw.byteOffset, raw.length / 4));
const base = fs.readFileSync(basePath);
const vocab = base.readUInt32LE(8);
const rows = (base.length - 16) / (4 + 4 * vocab);

const llama = await getLlama({ gpu: false, logLevel: "error", build: "never", maxThreads: Number(threadsText) });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: prefix + rows + 8,
  batchSize: 512,
  threads: Number(threadsText),
  ...(kvType === undefined
    ? {}
    : { flashAttention: true, experimentalKvCacheKeyType: kvType, experimentalKvCacheValueType: kvType }),
});
const sequence = context.getSequence();

if (prefix > 1) await sequence.controlledEvaluate(tokens.slice(0, prefix - 1));
const [kls, nlls, sames] = [[], [], []];
let same = 0;
let nll = 0;
for (let row = 0; row < rows; row++) {
  const at = 16 + row * (4 + 4 * vocab);
  const target = base.readInt32LE(at);
  if (target !== tokens[prefix + row]) throw new Error(`row ${row} of the base predicts another text`);
  const logits = new Float32Array(base.buffer.slice(base.byteOffset + at + 4, base.byteOffset + at + 4 + 4 * vocab));
  const options = { generateNext: { probabilities: true, options: { temperature: 1, topK: 0, topP: 1 } } };
  const out = await sequence.controlledEvaluate([[tokens[prefix + row - 1], options]]);
  const q = out[0].next.probabilities;
  if (q.size !== vocab) throw new Error(`${q.size} probabilities of ${vocab}`);
  let best = 0;
  for (let i = 1; i < vocab; i++) if (logits[i] > logits[best]) best = i;
  let sum = 0;
  for (let i = 0; i < vocab; i++) sum += Math.exp(logits[i] - logits[best]);
  const lse = logits[best] + Math.log(sum);
  // Probabilities arrive as floats normalized in floats: renormalize, or their rounding is counted as divergence.
  let total = 0;
  let top = -1;
  for (const [token, p] of q) {
    total += p;
    if (top < 0 || p > q.get(top)) top = token;
  }
  let kl = 0;
  for (let i = 0; i < vocab; i++) {
    const p = Math.exp(logits[i] - lse);
    if (p > 1e-30) kl += p * (logits[i] - lse - Math.log(Math.max(q.get(i), 1e-45) / total));
  }
  kls.push(kl);
  nlls.push(-Math.log(q.get(target) / total));
  sames.push(Number(top === best));
  nll += nlls.at(-1);
  if (top === best) same++;
}
const sorted = kls.toSorted((a, b) => a - b);
const at = (share) => sorted[Math.min(rows - 1, Math.floor(share * rows))];
console.log(JSON.stringify({
  runtime: "llama.cpp (node-llama-cpp)",
  model: path.basename(modelPath),
  prefix,
  rows,
  mean: kls.reduce((a, b) => a + b, 0) / rows,
  p50: at(0.5),
  p99: at(0.99),
  sameTop: same / rows,
  perplexity: Math.exp(nll / rows),
  ...(kvType === undefined ? {} : { kls, nlls, sames }),
}));
process.exit(0);
