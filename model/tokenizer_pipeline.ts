/**
 * The parts of tokenizer.json around the model: normalizer, pre-tokenizer, post-processor.
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";
import { asArray, asObject, fail, type Json, textOf } from "./tokenizer_fields.ts";
import { preTokenizer, unicodePattern } from "./tokenizer_split.ts";

/** What a normalizer does to text. */
export interface NormalizerParts {
  /** Unicode normalization. */
  readonly form: "NFC" | "NFKC" | undefined;
  /** Spaces become `▁`. */
  readonly escapesSpaces: boolean;
  /** A space comes before text. */
  readonly prependsSpace: boolean;
}

/** What a pre-tokenizer does to text. */
export interface PreTokenizerParts {
  /** Applied one after the other. */
  readonly patterns: readonly RegExp[];
  /** Symbols are bytes, written in GPT-2's alphabet. */
  readonly byteLevel: boolean;
  /** Spaces become `▁`. */
  readonly escapesSpaces: boolean;
  /** Where a space is put before text. */
  readonly spacePrefix: "never" | "start" | "always";
}

const MAX_PATTERN = 4096;
const MAX_STEPS = 16;

/** Reads `normalizer`. */
export function readNormalizer(value: unknown): NormalizerParts {
  let form: NormalizerParts["form"], escapesSpaces = false, prependsSpace = false;
  for (const step of steps(value, "normalizer", "normalizers")) {
    if (step.type === "NFC" || step.type === "NFKC") form = step.type;
    else if (step.type === "Prepend" && step.prepend === "▁") prependsSpace = true;
    else if (step.type === "Replace" && literal(step.pattern) === " " && step.content === "▁") escapesSpaces = true;
    else unsupported("normalizer", step);
  }
  return { form, escapesSpaces, prependsSpace };
}

/** Reads `pre_tokenizer`. */
export function readPreTokenizer(value: unknown): PreTokenizerParts {
  const patterns: RegExp[] = [];
  let byteLevel = false, escapesSpaces = false;
  let spacePrefix: PreTokenizerParts["spacePrefix"] = "never";
  for (const step of steps(value, "pre_tokenizer", "pretokenizers")) {
    if (step.type === "ByteLevel") {
      byteLevel = true;
      if (step.add_prefix_space === true) unsupported("pre_tokenizer (add_prefix_space)", step);
      if (step.use_regex !== false) patterns.push(...preTokenizer("gpt-2").patterns);
    } else if (step.type === "Digits") {
      patterns.push(unicodePattern(step.individual_digits === true ? "\\p{N}" : "\\p{N}+"));
    } else if (step.type === "Split") {
      // Cutting at spaces after all spaces became ▁ (Gemma) cuts nothing.
      if (literal(step.pattern) === " " && step.behavior === "MergedWithPrevious") continue;
      patterns.push(splitPattern(step));
    } else if (step.type === "Metaspace" && (step.replacement ?? "▁") === "▁") {
      // One word a space would need merges that stop there; with merges across, `split: false`, the text is one word.
      if (step.split !== false) unsupported("pre_tokenizer (split)", step);
      escapesSpaces = true;
      const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? "never" : "always");
      spacePrefix = scheme === "first" ? "start" : scheme === "never" ? "never" : "always";
    } else {
      unsupported("pre_tokenizer", step);
    }
  }
  if (!byteLevel && patterns.length > 0) {
    throw new Unsupported("Cannot load tokenizer: pre_tokenizer has patterns but no ByteLevel, which is not supported");
  }
  return { patterns, byteLevel, escapesSpaces, spacePrefix };
}

/** The token that `post_processor` puts before a text, if any. */
export function startsWithToken(value: unknown): string | undefined {
  for (const step of steps(value, "post_processor", "processors")) {
    if (step.type !== "TemplateProcessing") continue;
    const first = asArray(step.single, "post_processor.single")[0];
    const special = asObject(first ?? {}, "post_processor.single").SpecialToken;
    if (special === undefined) continue;
    const id = asObject(special, "post_processor.single").id;
    return typeof id === "string" ? id : fail("post_processor.single", `begins with ${textOf(id)}`);
  }
  return undefined;
}

function splitPattern(step: Json): RegExp {
  if (step.behavior !== "Isolated" && !(step.behavior === "Removed" && step.invert === true)) {
    return unsupported("pre_tokenizer (behavior)", step);
  }
  const pattern = asObject(step.pattern, "pre_tokenizer.pattern");
  const source = pattern.Regex;
  if (typeof source !== "string") return unsupported("pre_tokenizer (pattern)", step);
  if (source.length > MAX_PATTERN) {
    fail("pre_tokenizer.pattern", `has ${source.length} characters, ${MAX_PATTERN} are allowed`);
  }
  try {
    return unicodePattern(source);
  } catch (error) {
    throw new Unsupported(
      `Cannot load tokenizer: pre_tokenizer.pattern ${textOf(source)} is not supported, ${(error as Error).message}`,
    );
  }
}

function steps(value: unknown, field: string, list: string): readonly Json[] {
  if (value === undefined || value === null) return [];
  const step = asObject(value, field);
  if (step.type !== "Sequence") return [step];
  const inner = asArray(step[list], `${field}.${list}`);
  if (inner.length > MAX_STEPS) fail(`${field}.${list}`, `has ${inner.length} entries, ${MAX_STEPS} are allowed`);
  return inner.map((entry) => asObject(entry, `${field}.${list} entry`));
}

/** The string of `{"String": s}`, or of a pattern given plainly. */
function literal(pattern: unknown): unknown {
  return typeof pattern === "object" && pattern !== null ? (pattern as Json).String : pattern;
}

function unsupported(field: string, step: Json): never {
  throw new Unsupported(`Cannot load tokenizer: ${field} ${textOf(step)} in tokenizer.json is not supported`);
}
