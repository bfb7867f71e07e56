/**
 * How far our logits are from those of transformers float32 on the same weights, token by token after a long prefix.
 *
 *     deno run -A bench/fidelity.ts tokens --model M --text FILE --count 4352 --out TOKENS
 *     python bench/fidelity.py M.gguf TOKENS BASE.kvlg 4096 256
 *     deno run -A bench/fidelity.ts score --model M --tokens TOKENS --base BASE.kvlg --prefix 4096 \
 *       --backend cpu --backend cpu:precision=fast [--kv f16] [--mode decode] [--rival DIR]
 *
 * Prints one row a backend: mean, p50 and p99 of KL(transformers ‖ ours) in nats and how often the best token is the same.
 * `--rival` names a folder with node-llama-cpp in its node_modules, and adds llama.cpp (bench/rival_llama_cpp.mjs).
 *
 * @module
 */
import { parseArgs } from "node:util";
import { Engine } from "../engine/engine.ts";
import { type Report, summarize } from "../cli/perplexity.ts";

interface Row {
  readonly runtime: string;
  readonly kl: NonNullable<Report["kl"]>;
  readonly perplexity: number;
  readonly seconds: number;
}

/** Little-endian ids of one file. */
function readTokens(path: string): Int32Array {
  const bytes = Deno.readFileSync(path);
  return new Int32Array(bytes.buffer, 0, Math.floor(bytes.length / 4));
}

async function writeTokens(model: string, text: string, count: number, out: string): Promise<void> {
  await using engine = await Engine.open({ model, ctxSize: 512 });
  const tokens = await engine.tokenize(await Deno.readTextFile(text));
  if (tokens.length < count) throw new RangeError(`Cannot write tokens: "${text}" has ${tokens.length}, not ${count}`);
  await Deno.writeFile(out, new Uint8Array(tokens.slice(0, count).buffer));
}

async function score(
  options: { model: string; backend: string; kv: "f16" | "f32" | "i8"; mode: "decode" | "prefill" },
  tokens: Int32Array,
  base: string,
  prefix: number,
): Promise<Row> {
  const { model, backend, kv, mode } = options;
  await using engine = await Engine.open({ model, backend, kvType: kv, ctxSize: tokens.length, parallel: 1 });
  const began = performance.now();
  const result = await engine.evaluate(tokens, { from: prefix, mode, klBase: base });
  const seconds = (performance.now() - began) / 1000;
  const same = Array.from(result.sameTop ?? []).reduce((sum, x) => sum + x, 0);
  const report = summarize(Array.from(result.logprobs, (x) => -x), Array.from(result.kl ?? []), same);
  if (report.kl === undefined) throw new Error("the engine compared nothing");
  const info = await engine.info();
  return { runtime: `${info.backend} · kv ${kv} · ${mode}`, kl: report.kl, perplexity: report.perplexity, seconds };
}

/** llama.cpp over the same tokens, in a process of its own. */
async function rival(folder: string, model: string, tokens: string, base: string, prefix: number): Promise<string> {
  const script = new URL("rival_llama_cpp.mjs", import.meta.url).pathname;
  const command = new Deno.Command("node", {
    args: [script, model, tokens, base, `${prefix}`],
    env: { KVASIR_RIVAL: folder },
    stderr: "inherit",
  });
  const { success, stdout } = await command.output();
  if (!success) throw new Error("the rival failed");
  const r = JSON.parse(new TextDecoder().decode(stdout));
  return format(r.runtime, r.mean, r.p50, r.p99, r.sameTop, r.perplexity);
}

function format(runtime: string, mean: number, p50: number, p99: number, sameTop: number, perplexity: number): string {
  const figures = [mean, p50, p99].map((x) => x.toExponential(2)).join(" | ");
  return `| ${runtime} | ${figures} | ${(100 * sameTop).toFixed(1)} % | ${perplexity.toFixed(4)} |`;
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      model: { type: "string" },
      text: { type: "string" },
      count: { type: "string", default: "4352" },
      out: { type: "string" },
      tokens: { type: "string" },
      base: { type: "string" },
      prefix: { type: "string", default: "4096" },
      rows: { type: "string", default: "256" },
      backend: { type: "string", multiple: true, default: ["cpu"] },
      kv: { type: "string", default: "f16" },
      mode: { type: "string", default: "decode" },
      rival: { type: "string" },
    },
  });
  const need = (name: "model" | "text" | "out" | "tokens" | "base"): string => {
    const value = values[name];
    if (value === undefined) throw new RangeError(`Cannot run: --${name} is missing`);
    return value;
  };
  const command = positionals[0];
  if (command === "tokens") {
    return await writeTokens(need("model"), need("text"), Number(values.count), need("out"));
  }
  if (command !== "score") throw new RangeError(`Cannot run "${command}": choose tokens or score`);
  const { kv, mode } = values;
  if (kv !== "f16" && kv !== "f32" && kv !== "i8") throw new RangeError(`Cannot run: "${kv}" is no --kv type`);
  if (mode !== "decode" && mode !== "prefill") throw new RangeError(`Cannot run: "${mode}" is no --mode`);
  const prefix = Number(values.prefix);
  const tokens = readTokens(need("tokens")).slice(0, prefix + Number(values.rows));
  console.log("| runtime | KL mean | p50 | p99 | same best | perplexity |\n|---|---|---|---|---|---|");
  for (const backend of values.backend) {
    const row = await score({ model: need("model"), backend, kv, mode }, tokens, need("base"), prefix);
    console.log(format(row.runtime, row.kl.mean, row.kl.p50, row.kl.p99, row.kl.sameTop, row.perplexity));
  }
  if (values.rival !== undefined) {
    console.log(await rival(values.rival, need("model"), need("tokens"), need("base"), prefix));
  }
}

if (import.meta.main) await main(Deno.args);
