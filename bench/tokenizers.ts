/**
 * Token ids of the corpus by Kvasir, by llama.cpp and by Hugging Face's `tokenizers`: differences, round trips, times. The
 * golden file of `test/tokenizer_golden_test.ts` is written by this (`--write`), and only when every difference is one of
 * those decided in docs/tokenizers.md.
 *
 *     npm install --prefix .tools/rival node-llama-cpp@3.22
 *     deno run -A bench/tokenizers.ts --rival .tools/rival [--python python3] [--write] smollm2.gguf gemma3.gguf
 *
 * Exits with 1 when ids differ that should not.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { openGguf } from "../model/gguf.ts";
import { loadTokenizer, type TextTokenizer } from "../model/tokenizer.ts";
import { CASES, goldenOf, type ModelRules, MODELS, PROSE } from "../test/tokenizer_golden.ts";
import { corpus } from "../test/tokenizer_corpus.ts";
import { tokenizerJsonOf } from "../test/tokenizer_json_of.ts";

const { values: flags, positionals } = parseArgs({
  options: { rival: { type: "string" }, python: { type: "string" }, write: { type: "boolean" } },
  allowPositionals: true,
});

async function idsFrom(command: string, args: readonly string[], texts: readonly string[]): Promise<number[][]> {
  const env = { KVASIR_RIVAL: flags.rival === undefined ? "" : Deno.realPathSync(flags.rival) };
  const child = new Deno.Command(command, { args: [...args], env, stdin: "piped", stdout: "piped", stderr: "inherit" })
    .spawn();
  const sent = new Blob([JSON.stringify(texts)]).stream().pipeTo(child.stdin);
  const { stdout, success } = await child.output();
  await sent;
  if (!success) throw new Error(`Cannot tokenize: ${command} failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Differences that no rule explains. */
function compare(
  rival: string,
  texts: readonly string[],
  ours: readonly (readonly number[])[],
  theirs: readonly (readonly number[])[],
  decided: (text: string) => boolean,
): number {
  const differs = texts.map((_, i) => i).filter((i) => ours[i]?.join() !== theirs[i]?.join());
  const open = differs.filter((i) => !decided(texts[i] as string));
  console.log(
    `  ${rival}: ${texts.length} texts, ${differs.length} differ, ${differs.length - open.length} of them as decided`,
  );
  for (const i of open.slice(0, 5)) {
    console.log(`    ${JSON.stringify(texts[i])}: ours ${ours[i]}, theirs ${theirs[i]}`);
  }
  return open.length;
}

function timed(tokenizer: TextTokenizer, texts: readonly string[], rules: ModelRules): number[][] {
  const began = performance.now();
  const ids = texts.map((text) => tokenizer.encode(text, { bos: false }));
  const ms = performance.now() - began, count = ids.reduce((n, list) => n + list.length, 0);
  const back = texts.filter((text, i) => tokenizer.decode(ids[i] as number[]) !== text);
  const lossy = back.filter((text) => !rules.lossy(text));
  console.log(
    `  ${count} ids in ${ms.toFixed(0)} ms, ${back.length} texts do not come back, ${lossy.length} unexpectedly`,
  );
  if (lossy.length > 0) throw new Error(`Cannot accept: ${JSON.stringify(lossy[0])} does not come back`);
  return ids;
}

const texts = [...corpus(Deno.readTextFileSync(PROSE)), ...CASES];
let open = 0;
for (const path of positionals) {
  const began = performance.now();
  using file = openGguf(path);
  const parsed = performance.now();
  const tokenizer = loadTokenizer({ kind: "gguf", metadata: file.metadata });
  const loaded = performance.now();
  const rules = MODELS.find((m) => m.vocab === tokenizer.vocab);
  if (rules === undefined) throw new Error(`Cannot compare: no rules for a vocabulary of ${tokenizer.vocab}`);
  console.log(`${rules.name}: header ${(parsed - began).toFixed(0)} ms, tokenizer ${(loaded - parsed).toFixed(0)} ms`);
  const ours = timed(tokenizer, texts, rules);
  if (flags.rival !== undefined) {
    const script = new URL("tokenizers_llama_cpp.mjs", import.meta.url).pathname;
    open += compare("llama.cpp", texts, ours, await idsFrom("node", [script, path], texts), rules.llamaCppDiffers);
  }
  if (flags.python !== undefined) {
    const json = Deno.makeTempFileSync({ suffix: ".json" });
    Deno.writeTextFileSync(json, JSON.stringify(tokenizerJsonOf(file.metadata)));
    const script = new URL("tokenizers_hf.py", import.meta.url).pathname;
    open += compare(
      "tokenizers",
      texts,
      ours,
      await idsFrom(flags.python, [script, json], texts),
      rules.libraryDiffers,
    );
    Deno.removeSync(json);
  }
  if (flags.write === true && open === 0) {
    const target = new URL(`../test/golden/tokenizer_${rules.name}.json`, import.meta.url);
    Deno.writeTextFileSync(target, JSON.stringify(await goldenOf(texts, ours)) + "\n");
  }
}
Deno.exit(open === 0 ? 0 : 1);
