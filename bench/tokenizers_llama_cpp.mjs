// Token ids of texts by llama.cpp: the rival of bench/tokenizers.ts, over node-llama-cpp.
//
//   KVASIR_RIVAL=/dir/with/node_modules node bench/tokenizers_llama_cpp.mjs MODEL.gguf < TEXTS > IDS
//
// Reads a JSON array of strings, writes a JSON array of arrays; special tokens in the texts stay text.
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modelPath] = process.argv.slice(2);
const root = process.env.KVASIR_RIVAL;
if (modelPath === undefined || root === undefined) {
  console.error("Usage: KVASIR_RIVAL=DIR node tokenizers_llama_cpp.mjs MODEL.gguf < TEXTS > IDS");
  process.exit(2);
}
const resolve = createRequire(path.join(root, "package.json")).resolve;
const { getLlama } = await import(pathToFileURL(resolve("node-llama-cpp")));
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const texts = JSON.parse(Buffer.concat(chunks).toString("utf8"));
const llama = await getLlama({ gpu: false, logLevel: "error", build: "never" });
const model = await llama.loadModel({ modelPath, vocabOnly: true });
const ids = texts.map((text) => Array.from(model.tokenize(text, false)));
process.stdout.write(JSON.stringify(ids), () => process.exit(0));
