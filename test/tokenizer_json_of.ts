/**
 * Writes the tokenizer.json that a GGUF file's tokenizer was converted from, as far as it can be known: the true pipeline of
 * SmolLM2 (each digit alone, then GPT-2's pattern) and of Gemma, whose merges follow from the scores.
 *
 * @module
 */
import type { StringTable } from "../model/tokenizer_pieces.ts";
import { TYPE } from "../model/tokenizer_types.ts";

function texts(table: StringTable): string[] {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return Array.from(
    { length: table.offsets.length - 1 },
    (_, i) => decoder.decode(table.data.subarray(table.offsets[i], table.offsets[i + 1])),
  );
}

/** Every split of a piece into two pieces is a merge; the better the piece, the earlier. */
function mergesFromVocabulary(vocab: ReadonlyMap<string, number>, types: ArrayLike<number>): [string, string][] {
  const merges: [string, string][] = [];
  for (const [piece, id] of vocab) {
    if (types[id] !== TYPE.NORMAL) continue;
    const pairs: [string, string][] = [];
    for (let cut = 1; cut < piece.length; cut++) {
      const left = piece.slice(0, cut), right = piece.slice(cut);
      if (vocab.has(left) && vocab.has(right)) pairs.push([left, right]);
    }
    const rank = ([left, right]: [string, string]) =>
      (vocab.get(left) as number) * 2 ** 20 + (vocab.get(right) as number);
    merges.push(...pairs.sort((a, b) => rank(a) - rank(b)));
  }
  return merges;
}

/** An entry of `added_tokens`. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** tokenizer.json as an object, from GGUF metadata whose pieces stand in the order of their scores. */
export function tokenizerJsonOf(
  metadata: ReadonlyMap<string, unknown>,
): Record<string, unknown> & { added_tokens: readonly AddedToken[] } {
  const tokens = texts(metadata.get("tokenizer.ggml.tokens") as StringTable);
  const types = metadata.get("tokenizer.ggml.token_type") as Int32Array;
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  const added_tokens = tokens.flatMap((content, id) => {
    if (types[id] !== TYPE.CONTROL && types[id] !== TYPE.USER_DEFINED) return [];
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    return [{ id, content, ...flags, special: types[id] === TYPE.CONTROL }];
  });
  const common = { version: "1.0", truncation: null, padding: null, added_tokens, post_processor: null };
  const model = {
    type: "BPE",
    dropout: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    ignore_merges: false,
    vocab: Object.fromEntries(vocab),
  };
  if (metadata.get("tokenizer.ggml.model") === "gpt2") {
    const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
    return {
      ...common,
      normalizer: null,
      pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, level] },
      decoder: level,
      model: {
        ...model,
        unk_token: null,
        fuse_unk: false,
        byte_fallback: false,
        merges: texts(metadata.get("tokenizer.ggml.merges") as StringTable),
      },
    };
  }
  const space = { String: " " };
  return {
    ...common,
    normalizer: { type: "Replace", pattern: space, content: "▁" },
    pre_tokenizer: { type: "Split", pattern: space, behavior: "MergedWithPrevious", invert: false },
    decoder: {
      type: "Sequence",
      decoders: [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, {
        type: "Fuse",
      }],
    },
    model: {
      ...model,
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      merges: mergesFromVocabulary(vocab, types),
    },
  };
}
