/**
 * Tokenizers out of Hugging Face's tokenizer.json: byte-pair encoding over bytes (`ByteLevel`) or characters (`▁`, byte
 * fallback), which is what Llama, Mistral, Qwen, SmolLM and Gemma ship.
 *
 * The pipeline of the file is read into the same parts as a GGUF file's; a component that does not fit is `Unsupported` by
 * name.
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";
import { byteLevelPieces } from "./tokenizer_alphabet.ts";
import { ByteLevelEncoder, CharacterEncoder, type Encoder, type MergeList, pairMerges } from "./tokenizer_encoder.ts";
import { endTokens } from "./tokenizer_eog.ts";
import { asArray, asObject, fail, type Json, textOf } from "./tokenizer_fields.ts";
import { readNormalizer, readPreTokenizer, startsWithToken } from "./tokenizer_pipeline.ts";
import { Pieces, stringTable } from "./tokenizer_pieces.ts";
import type { TokenizerParts } from "./tokenizer.ts";
import { pieceBytes, TYPE } from "./tokenizer_types.ts";
import type { WholeToken } from "./tokenizer_special.ts";

const MAX_TOKENS = 1 << 24;

/** The files of a Hugging Face folder that describe a tokenizer, parsed. */
export interface JsonSource {
  /** tokenizer.json */
  readonly tokenizerJson: unknown;
  /** tokenizer_config.json: names BOS and EOS. */
  readonly tokenizerConfig?: unknown;
  /** special_tokens_map.json: names them where tokenizer_config.json does not. */
  readonly specialTokensMap?: unknown;
  /** generation_config.json: all ids that end a generation. */
  readonly generationConfig?: unknown;
}

/** Builds the parts of a tokenizer; throws `ModelFileError` naming the field that is wrong. */
export function tokenizerFromJson(source: JsonSource): TokenizerParts {
  const file = asObject(source.tokenizerJson, "tokenizer.json");
  const model = asObject(file.model, "model");
  // Files from before 2021 leave the type out.
  if (model.type !== undefined && model.type !== "BPE") {
    throw new Unsupported(
      `Cannot load tokenizer: model.type is ${textOf(model.type)} in tokenizer.json; "BPE" is supported`,
    );
  }
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[name] !== undefined && model[name] !== null && model[name] !== "") {
      throw new Unsupported(`Cannot load tokenizer: model.${name} is not supported in tokenizer.json`);
    }
  }
  const wholeTokens = addedTokens(file.added_tokens);
  const { tokens, ids } = vocabulary(model.vocab, wholeTokens);
  const types = new Uint8Array(tokens.length).fill(TYPE.NORMAL);
  for (const { id, control } of wholeTokens) types[id] = control ? TYPE.CONTROL : TYPE.USER_DEFINED;
  const pre = readPreTokenizer(file.pre_tokenizer);
  const normalizer = readNormalizer(file.normalizer);
  const family = pre.byteLevel
    ? byteLevel(model, tokens, types, pre.patterns)
    : characters(model, tokens, types, ids, normalizer.escapesSpaces || pre.escapesSpaces);
  const idOf = (name: string) => specialId(source, name, ids);
  const bos = idOf("bos_token");
  const start = startsWithToken(file.post_processor);
  const declaredBos = asObject(source.tokenizerConfig ?? {}, "tokenizer_config.json").add_bos_token;
  const first = start === undefined ? undefined : ids.get(start);
  return {
    ...family,
    wholeTokens,
    spacePrefix: pre.spacePrefix !== "never" ? pre.spacePrefix : normalizer.prependsSpace ? "always" : "never",
    prefixSkipsSpace: pre.spacePrefix !== "never",
    normalize: normalizer.form === undefined ? undefined : (text) => text.normalize(normalizer.form),
    bos: bos ?? first,
    eos: endTokens(declaredEnds(source, ids, tokens.length), wholeTokens),
    addBos: typeof declaredBos === "boolean" ? declaredBos && (bos ?? first) !== undefined : first !== undefined,
  };
}

type Family = Pick<TokenizerParts, "encoder" | "pieces" | "bytes">;

function byteLevel(model: Json, tokens: readonly string[], types: Uint8Array, patterns: readonly RegExp[]): Family {
  const merges = mergePairs(model.merges).map((pair) => pair.join(" "));
  const table = stringTable(tokens);
  const built = byteLevelPieces(table, (i) => types[i] === TYPE.NORMAL, stringTable(merges), "model.vocab");
  const { pieces, byteIds } = built;
  const parts = {
    pieces,
    merges: pairMerges(built.merges, pieces, "model.merges"),
    byteIds,
    unknown: unknownId(model, tokens),
  };
  const encoder: Encoder = new ByteLevelEncoder(parts, patterns, model.ignore_merges === true);
  return { encoder, pieces, bytes: (i) => pieces.bytes(i) };
}

function characters(
  model: Json,
  tokens: readonly string[],
  types: Uint8Array,
  ids: ReadonlyMap<string, number>,
  escapesSpaces: boolean,
): Family {
  if (!escapesSpaces) {
    throw new Unsupported('Cannot load tokenizer: no "ByteLevel" and no "▁" for spaces in tokenizer.json');
  }
  const byteIds = new Int32Array(256).fill(-1);
  if (model.byte_fallback === true) {
    for (let byte = 0; byte < 256; byte++) {
      const id = ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
      if (id === undefined) continue;
      byteIds[byte] = id;
      types[id] = TYPE.BYTE;
    }
  }
  const table = stringTable(tokens);
  const findable = (i: number) => types[i] === TYPE.NORMAL || types[i] === TYPE.USER_DEFINED;
  const pieces = new Pieces(table, findable, "model.vocab");
  const merges = pairMerges(new TextMerges(mergePairs(model.merges)), pieces, "model.merges");
  const parts = { pieces, merges, byteIds, unknown: unknownId(model, tokens) };
  const encoder = new CharacterEncoder(parts, model.ignore_merges === true);
  return { encoder, pieces, bytes: (i) => pieceBytes(pieces.bytes(i), types[i] as number) };
}

class TextMerges implements MergeList {
  readonly length: number;
  readonly #utf8 = new TextEncoder();
  bytes = new Uint8Array(256);
  cut = 0;
  end = 0;

  constructor(readonly pairs: readonly (readonly [string, string])[]) {
    this.length = pairs.length;
  }

  read(i: number): boolean {
    const [left, right] = this.pairs[i] as readonly [string, string];
    const most = 3 * (left.length + right.length);
    if (most > this.bytes.length) this.bytes = new Uint8Array(2 * most);
    this.cut = this.#utf8.encodeInto(left, this.bytes).written;
    this.end = this.cut + this.#utf8.encodeInto(right, this.bytes.subarray(this.cut)).written;
    return this.cut > 0 && this.end > this.cut;
  }
}

/** Merges of both formats, `"a b"` and `["a", "b"]`. */
function mergePairs(value: unknown): (readonly [string, string])[] {
  return asArray(value, "model.merges").map((merge, i) => {
    const pair = typeof merge === "string" ? splitMerge(merge) : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string" || typeof pair[1] !== "string") {
      fail(`model.merges entry ${i}`, "is no pair of tokens");
    }
    return pair as [string, string];
  });
}

function splitMerge(merge: string): string[] {
  const space = merge.indexOf(" ", 1);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function vocabulary(value: unknown, added: readonly WholeToken[]): { tokens: string[]; ids: Map<string, number> } {
  const vocab = asObject(value, "model.vocab");
  const ids = new Map<string, number>();
  let top = -1;
  const take = (text: string, id: unknown, field: string) => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0) {
      fail(`${field} ${textOf(text)}`, `has id ${textOf(id)}`);
    }
    ids.set(text, id);
    top = Math.max(top, id);
  };
  for (const text in vocab) take(text, vocab[text], "model.vocab entry");
  for (const { text, id } of added) take(text, id, "added_tokens entry");
  // Ids may have gaps, but an id far beyond the number of tokens is a mistake that would cost memory.
  if (top + 1 > Math.min(MAX_TOKENS, 2 * ids.size + 4096)) {
    fail("model.vocab", `has id ${top} among ${ids.size} tokens`);
  }
  const tokens = new Array<string>(top + 1).fill("");
  const taken = new Uint8Array(top + 1);
  for (const [text, id] of ids) {
    if (taken[id] === 1) fail("model.vocab", `gives id ${id} to ${textOf(tokens[id])} and ${textOf(text)}`);
    taken[id] = 1;
    tokens[id] = text;
  }
  return { tokens, ids };
}

function addedTokens(value: unknown): WholeToken[] {
  return asArray(value ?? [], "added_tokens").map((entry, i) => {
    const token = asObject(entry, `added_tokens entry ${i}`);
    const { id, content, special, lstrip, rstrip, single_word } = token;
    if (typeof content !== "string") fail(`added_tokens entry ${i}`, "has no content");
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0) {
      fail(`added_tokens entry ${i}`, `has id ${textOf(id)}`);
    }
    if (single_word === true) {
      throw new Unsupported(`Cannot load tokenizer: single_word of added token ${textOf(content)} is not supported`);
    }
    return { id, text: content, control: special === true, stripLeft: lstrip === true, stripRight: rstrip === true };
  });
}

function unknownId(model: Json, tokens: readonly string[]): number | undefined {
  const { unk_token: unknown } = model;
  if (unknown === undefined || unknown === null) return undefined;
  const id = typeof unknown === "string" ? tokens.indexOf(unknown) : -1;
  return id >= 0 ? id : fail("model.unk_token", `is ${textOf(unknown)}, which is no token`);
}

/** The id of a token named in tokenizer_config.json or special_tokens_map.json: a string or an object with `content`. */
function specialId(source: JsonSource, name: string, ids: ReadonlyMap<string, number>): number | undefined {
  for (const file of [source.tokenizerConfig, source.specialTokensMap]) {
    const value = asObject(file ?? {}, "tokenizer_config.json")[name];
    if (value === undefined || value === null) continue;
    const text = typeof value === "string" ? value : asObject(value, name).content;
    const id = typeof text === "string" ? ids.get(text) : undefined;
    return id ?? fail(name, `is ${textOf(text)}, which is no token`);
  }
  return undefined;
}

function declaredEnds(source: JsonSource, ids: ReadonlyMap<string, number>, n: number): number[] {
  const ends = new Set<number>();
  const eos = specialId(source, "eos_token", ids);
  if (eos !== undefined) ends.add(eos);
  const declared = asObject(source.generationConfig ?? {}, "generation_config.json").eos_token_id;
  for (const id of Array.isArray(declared) ? declared : declared === undefined || declared === null ? [] : [declared]) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= n) {
      fail("eos_token_id of generation_config.json", `is ${textOf(id)}, the vocabulary has ${n} entries`);
    }
    ends.add(id);
  }
  return [...ends];
}
