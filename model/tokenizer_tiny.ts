/**
 * Tokenizers of a few hundred tokens for tests: as metadata of a GGUF file, byte-level and SentencePiece.
 *
 * @module
 */
import { type StringTable, stringTable } from "./tokenizer_pieces.ts";
import { TYPE } from "./tokenizer_types.ts";

type Metadata = Map<string, unknown>;
type Changes = Readonly<Record<string, unknown>>;

/** GPT-2's alphabet: the character of each byte. */
export function alphabet(): string[] {
  let spare = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : spare++);
  });
}

/** Strings as GGUF metadata holds them. */
export function strings(list: readonly string[]): StringTable {
  return stringTable(list);
}

/** Byte-level BPE: `<|endoftext|>`, `<|im_start|>`, `<|im_end|>`, `<tool>` (user-defined), 256 bytes, 6 merges. */
export function tinyMetadata(changes: Changes = {}): Metadata {
  const merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġ Ġ"];
  const tokens = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool>",
    ...alphabet(),
    ...merges.map((m) => m.replace(" ", "")),
  ];
  const types = Int32Array.from(tokens, (_, i) => i < 3 ? TYPE.CONTROL : i === 3 ? TYPE.USER_DEFINED : TYPE.NORMAL);
  return changed({
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": strings(tokens),
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.merges": strings(merges),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 2,
  }, changes);
}

/** SentencePiece BPE: `<unk>`, `<s>`, `</s>`, 256 bytes, and the pieces of "hello world". */
export function tinySentencePiece(changes: Changes = {}): Metadata {
  const pieces = ["▁", ..."helowrd", "he", "ll", "hell", "hello", "▁hello", "▁w", "▁wo", "rl", "▁▁"];
  const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...pieces];
  const types = Int32Array.from(
    tokens,
    (_, i) => i === 0 ? TYPE.UNKNOWN : i < 3 ? TYPE.CONTROL : i < 259 ? TYPE.BYTE : TYPE.NORMAL,
  );
  return changed({
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": strings(tokens),
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.scores": Float32Array.from(tokens, (_, i) => -i),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
  }, changes);
}

/** `undefined` in `changes` removes a key. */
function changed(metadata: Changes, changes: Changes): Metadata {
  return new Map(Object.entries({ ...metadata, ...changes }).filter(([, value]) => value !== undefined));
}
