/**
 * Pre-tokenizers: how text is cut into words before byte-pair encoding, by the names that GGUF files carry in
 * `tokenizer.ggml.pre`.
 *
 * Each is a list of patterns as in the model's own tokenizer.json; every pattern cuts what the earlier ones left, and what it
 * does not match stays a word of its own. `\s` is Unicode's White_Space here: JavaScript's own adds U+FEFF and misses U+0085.
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";

/** How one family of models cuts text. */
export interface PreTokenizer {
  /** Applied one after the other, each to what the earlier ones cut. */
  readonly patterns: readonly RegExp[];
  /** A word that is in the vocabulary is one token, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Prompts start with BOS unless the file says otherwise. */
  readonly addBos: boolean;
}

const ENDINGS = "'s|'t|'re|'ve|'m|'ll|'d";
const ENDINGS_ANY_CASE = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const SPACES = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
const GPT2 = String.raw`${ENDINGS}| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
/** cl100k and its children differ in how many digits stay together, and in what a letter is. */
const cl100k = (digits: string, letters = String.raw`\p{L}`) =>
  String.raw`(?:${ENDINGS_ANY_CASE})|[^\r\n\p{L}\p{N}]?${letters}+|${digits}| ?[^\s${
    letters.startsWith("[") ? letters.slice(1, -1) : letters
  }\p{N}]+[\r\n]*|${SPACES}`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
/** o200k and Tekken: words by case. */
const o200k = (digits: string, endings: string) =>
  String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+${endings}|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*${endings}|${digits}` +
  String.raw`| ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`;
const DEEPSEEK3 = String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~][A-Za-z]+` +
  String.raw`|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|${SPACES}`;

interface Family {
  readonly names: string;
  readonly patterns: readonly string[];
  readonly ignoreMerges?: true;
  readonly addBos?: true;
}

const FAMILIES: readonly Family[] = [
  {
    names: "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    patterns: [cl100k(String.raw`\p{N}{1,3}`)],
    ignoreMerges: true,
    addBos: true,
  },
  { names: "dbrx smaug-bpe glm4 chatglm-bpe", patterns: [cl100k(String.raw`\p{N}{1,3}`)] },
  {
    names: "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2",
    patterns: [cl100k(String.raw`\p{N}`)],
  },
  { names: "qwen35", patterns: [cl100k(String.raw`\p{N}`, String.raw`[\p{L}\p{M}]`)] },
  {
    names: "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    patterns: [String.raw`\p{N}`, GPT2],
  },
  {
    names: "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert",
    patterns: [GPT2],
  },
  { names: "default", patterns: [String.raw`[\p{P}$+<=>^~|]+`, GPT2, String.raw`\p{N}+`, "[0-9][0-9][0-9]"] },
  { names: "falcon", patterns: [String.raw`[\p{P}$+<=>^~|${"`"}]+`, GPT2, "[0-9][0-9][0-9]"] },
  { names: "tekken", patterns: [o200k(String.raw`\p{N}`, "")], ignoreMerges: true, addBos: true },
  {
    names: "gpt-4o llama4 kanana2 minimax-m2",
    patterns: [o200k(String.raw`\p{N}{1,3}`, `(?:${ENDINGS_ANY_CASE})?`)],
  },
  {
    names: "deepseek-coder",
    patterns: ["[\r\n]", String.raw`\s?\p{L}+`, String.raw`\s?\p{P}+`, "[一-龥ࠀ-一가-퟿]+", String.raw`\p{N}`],
  },
  {
    names: "deepseek-v3 hunyuan-dense joyai-llm",
    patterns: [String.raw`\p{N}{1,3}`, "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
  },
  { names: "poro-chat bloom gpt3-finnish", patterns: [String.raw` ?[^(\s|.,!?…。，、।۔،)]+`] },
  { names: "viking", patterns: [String.raw` ?[^(\s|.,!?…。，、।۔،)]+`, String.raw`\p{N}`] },
  {
    names: "seed-coder",
    patterns: [
      String.raw`(?:${ENDINGS_ANY_CASE})|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|${SPACES}`,
    ],
  },
  {
    names: "bailingmoe bailingmoe2 llada-moe",
    patterns: [
      String.raw`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*` +
      String.raw`|\s*[\r\n]|\s+(?!\S)|\s+`,
    ],
  },
];

/** Names that {@link preTokenizer} knows. */
export const PRE_TOKENIZERS: readonly string[] = FAMILIES.flatMap((family) => family.names.split(" "));

/** The pre-tokenizer called `name`; throws {@link Unsupported} listing the known names. */
export function preTokenizer(name: string): PreTokenizer {
  const family = FAMILIES.find((f) => f.names.split(" ").includes(name));
  if (family === undefined) {
    const known = PRE_TOKENIZERS.join(", ");
    throw new Unsupported(
      `Cannot load tokenizer: pre-tokenizer ${JSON.stringify(name.slice(0, 60))} (tokenizer.ggml.pre) is not known; ` +
        `known are ${known}`,
    );
  }
  const { patterns, ignoreMerges = false, addBos = false } = family;
  return { patterns: patterns.map(unicodePattern), ignoreMerges, addBos };
}

/** Compiles a tokenizer pattern: Oniguruma's classes in JavaScript's words. Throws `SyntaxError`. */
export function unicodePattern(source: string): RegExp {
  const translated = source.replace(/\\(?:([sSdDhHwW])|p\{Han\}|[^])/g, (escape, letter?: string) => {
    if (escape === "\\p{Han}") return "\\p{Script=Han}";
    if (letter === "s") return "\\p{White_Space}";
    if (letter === "S") return "\\P{White_Space}";
    if (letter === "d") return "\\p{Nd}";
    if (letter === "D") return "\\P{Nd}";
    if (letter !== undefined) throw new SyntaxError(`class \\${letter} is not supported`);
    // Unicode mode allows no escapes that escape nothing, such as \' or \".
    return /^\\['"`#%&,:;<=>@_~ !]$/.test(escape) ? escape.slice(1) : escape;
  });
  return new RegExp(translated, "gu");
}

/** Hands the words of `text` to `emit`, in order; together they are `text`. */
export function splitWords(text: string, patterns: readonly RegExp[], emit: (word: string) => void, from = 0): void {
  const pattern = patterns[from];
  if (pattern === undefined) return emit(text);
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    const word = match[0];
    if (word === "") continue;
    if (match.index > at) splitWords(text.slice(at, match.index), patterns, emit, from + 1);
    splitWords(word, patterns, emit, from + 1);
    at = match.index + word.length;
  }
  if (at < text.length) splitWords(at === 0 ? text : text.slice(at), patterns, emit, from + 1);
}
