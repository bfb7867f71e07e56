/**
 * Token ids of the golden prompts, for make_texts.py: `deno run -A test/golden/tokenize.ts MODEL.gguf NAME > IDS.json`.
 *
 * @module
 */
import { openModelFile } from "../../model/open.ts";
import { loadTokenizer } from "../../model/tokenizer.ts";
import { GOLDEN_PROMPTS } from "./prompts.ts";

const [path = "", name = ""] = Deno.args;
using opened = openModelFile(path);
const source = opened.tokenizerSource();
if (source.kind !== "gguf") throw new TypeError(`Cannot tokenize: "${path}" is no GGUF file`);
const tokenizer = loadTokenizer(source);
const ids = (GOLDEN_PROMPTS[name] ?? []).map((p) => [p.name, tokenizer.encode(p.text, { special: true })]);
console.log(JSON.stringify(Object.fromEntries(ids)));
