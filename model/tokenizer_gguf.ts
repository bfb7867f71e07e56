/**
 * Tokenizers out of GGUF metadata: `tokenizer.ggml.model` `gpt2` (byte-level BPE) and `llama` (SentencePiece's BPE).
 *
 * @module
 */
import { ModelFileError, Unsupported } from "../core/errors.ts";
import { byteLevelPieces } from "./tokenizer_alphabet.ts";
import { ByteLevelEncoder, CharacterEncoder, type Encoder, pairMerges, ScoreMerges } from "./tokenizer_encoder.ts";
import { endsGeneration, endTokens } from "./tokenizer_eog.ts";
import { Pieces, type StringTable } from "./tokenizer_pieces.ts";
import { preTokenizer } from "./tokenizer_split.ts";
import type { TokenizerParts } from "./tokenizer.ts";
import { pieceBytes, TYPE } from "./tokenizer_types.ts";
import type { WholeToken } from "./tokenizer_special.ts";

const P = "tokenizer.ggml.";
const MAX_TOKENS = 1 << 24;

/** Builds the parts of a tokenizer from `metadata`; throws {@link ModelFileError} naming the key that is wrong. */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, unknown>): TokenizerParts {
  const model = metadata.get(P + "model");
  if (model === undefined) fail(`${P}model`, "is missing");
  if (model !== "gpt2" && model !== "llama") {
    const name = typeof model === "string" ? JSON.stringify(model.slice(0, 60)) : typeof model;
    throw new Unsupported(`Cannot load tokenizer: ${P}model is ${name}; "gpt2" and "llama" are supported`);
  }
  const tokens = strings(metadata, "tokens");
  if (tokens === undefined) fail(`${P}tokens`, "is missing");
  const n = tokens.offsets.length - 1;
  if (n === 0 || n > MAX_TOKENS) fail(`${P}tokens`, `has ${n} entries, 1 to ${MAX_TOKENS} are possible`);
  const types = tokenTypes(metadata, n);
  const wholeTokens = wholes(tokens, types);
  const { encoder, pieces, bytes, addBos } = model === "gpt2"
    ? byteLevel(metadata, tokens, types)
    : sentencePiece(metadata, tokens, types);
  const bos = id(metadata, "bos_token_id", n) ?? (model === "llama" && n > 2 ? 1 : undefined);
  const declared = ["eos", "eot", "eom"].map((name) => id(metadata, `${name}_token_id`, n));
  if (declared[0] === undefined && model === "llama" && n > 2) declared[0] = 2;
  const prefix = flag(metadata, "add_space_prefix") ?? true;
  return {
    pieces,
    bytes,
    encoder,
    wholeTokens,
    // Byte-level vocabularies have no such space, whatever the key says.
    spacePrefix: model === "llama" && prefix ? "always" : "never",
    prefixSkipsSpace: false,
    normalize: undefined,
    bos,
    eos: endTokens(declared.filter((e) => e !== undefined), wholeTokens),
    addBos: (flag(metadata, "add_bos_token") ?? addBos) &&
      (bos !== undefined || fail(`${P}bos_token_id`, "is missing")),
  };
}

type Family = Pick<TokenizerParts, "encoder" | "pieces" | "bytes" | "addBos">;

function byteLevel(metadata: ReadonlyMap<string, unknown>, tokens: StringTable, types: Uint8Array): Family {
  const name = metadata.get(P + "pre") ?? "default";
  if (typeof name !== "string") fail(`${P}pre`, "is no string");
  const pre = preTokenizer(name);
  const merges = strings(metadata, "merges");
  if (merges === undefined) fail(`${P}merges`, "is missing, byte-pair encoding needs it");
  const built = byteLevelPieces(tokens, (i) => types[i] === TYPE.NORMAL, merges, `${P}tokens`);
  const { pieces, byteIds } = built;
  const parts = { pieces, merges: pairMerges(built.merges, pieces, `${P}merges`), byteIds, unknown: undefined };
  const encoder: Encoder = new ByteLevelEncoder(parts, pre.patterns, pre.ignoreMerges);
  return { encoder, pieces, bytes: (i) => pieces.bytes(i), addBos: pre.addBos };
}

function sentencePiece(metadata: ReadonlyMap<string, unknown>, tokens: StringTable, types: Uint8Array): Family {
  const n = types.length;
  const scores = metadata.get(P + "scores");
  if (scores === undefined) fail(`${P}scores`, "is missing, SentencePiece needs it");
  if (!(scores instanceof Float32Array)) fail(`${P}scores`, "is no array of 32-bit floats");
  if (scores.length !== n) fail(`${P}scores`, `has ${scores.length} entries, ${P}tokens has ${n}`);
  for (let i = 0; i < n; i++) {
    if (Number.isNaN(scores[i])) fail(`${P}scores`, `entry ${i} is not a number`);
  }
  const pieces = new Pieces(tokens, (i) => types[i] === TYPE.NORMAL || types[i] === TYPE.UNUSED, `${P}tokens`);
  const byteIds = new Int32Array(256).fill(-1);
  for (let i = 0; i < n; i++) {
    if (types[i] !== TYPE.BYTE) continue;
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(latin(pieces.bytes(i)));
    if (byte === null) fail(`${P}tokens`, `entry ${i} is a byte token but not of the form <0xNN>`);
    byteIds[parseInt(byte[1] as string, 16)] = i;
  }
  const unknown = id(metadata, "unknown_token_id", n) ?? 0;
  const encoder = new CharacterEncoder({ pieces, merges: new ScoreMerges(pieces, scores), byteIds, unknown });
  return { encoder, pieces, bytes: (i) => pieceBytes(pieces.bytes(i), types[i] as number), addBos: true };
}

function wholes(tokens: StringTable, types: Uint8Array): WholeToken[] {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const found: WholeToken[] = [];
  const seen = new Map<string, number>();
  for (let i = 0; i < types.length; i++) {
    const type = types[i];
    if (type !== TYPE.CONTROL && type !== TYPE.USER_DEFINED && type !== TYPE.UNKNOWN) continue;
    const text = decoder.decode(tokens.data.subarray(tokens.offsets[i], tokens.offsets[i + 1]));
    const other = seen.get(text);
    if (other !== undefined) fail(`${P}tokens`, `holds the same token at ${other} and ${i}`);
    seen.set(text, i);
    // Old converters left ends of turns as user-defined tokens; `</s>` alone is also HTML's.
    const control = type !== TYPE.USER_DEFINED || (endsGeneration(text) && text !== "</s>");
    found.push({ id: i, text, control });
  }
  return found;
}

function tokenTypes(metadata: ReadonlyMap<string, unknown>, n: number): Uint8Array {
  const raw = metadata.get(P + "token_type");
  const types = new Uint8Array(n).fill(TYPE.NORMAL);
  if (raw === undefined) return types;
  if (!(raw instanceof Int32Array || raw instanceof Uint32Array)) {
    fail(`${P}token_type`, "is no array of 32-bit integers");
  }
  if (raw.length !== n) fail(`${P}token_type`, `has ${raw.length} entries, ${P}tokens has ${n}`);
  for (let i = 0; i < n; i++) {
    const type = raw[i] as number;
    if (type < 0 || type > TYPE.BYTE) fail(`${P}token_type`, `entry ${i} is ${type}, 0 to ${TYPE.BYTE} are known`);
    types[i] = type;
  }
  return types;
}

function strings(metadata: ReadonlyMap<string, unknown>, name: string): StringTable | undefined {
  const value = metadata.get(P + name);
  if (value === undefined) return undefined;
  const table = value as Partial<StringTable> | null;
  if (!(table?.data instanceof Uint8Array && table.offsets instanceof Uint32Array && table.offsets.length > 0)) {
    fail(P + name, "is no array of strings");
  }
  return table as StringTable;
}

function id(metadata: ReadonlyMap<string, unknown>, name: string, n: number): number | undefined {
  const value = metadata.get(P + name);
  if (value === undefined) return undefined;
  // Converters write −1, as a u32, for "none".
  if (value === 0xffffffff || value === -1) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value >= n) {
    fail(P + name, `is ${String(value)}, ${P}tokens has ${n} entries`);
  }
  return value;
}

function flag(metadata: ReadonlyMap<string, unknown>, name: string): boolean | undefined {
  const value = metadata.get(P + name);
  if (value === undefined || typeof value === "boolean") return value;
  return fail(P + name, "is no boolean");
}

function latin(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 16));
}

function fail(field: string, state: string): never {
  throw new ModelFileError(`Cannot load tokenizer: ${field} ${state}`);
}
