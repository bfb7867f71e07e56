/**
 * From text without special tokens to ids: byte-level BPE, BPE over characters with byte fallback, and SentencePiece's BPE
 * by scores. All three cut the text into smallest symbols and run the same merge loop ({@link Merger}).
 *
 * Why not `@huggingface/tokenizers`, whose semantics these follow (and which the tests compare them with): version
 * 0.2.0 was measured to take 112 ms to construct for SmolLM2 and 1.1 s for Gemma, after 48 and 470 ms of parsing a
 * tokenizer.json that would first have to be made from the GGUF file (2 s for Gemma, whose merges follow from its scores);
 * these take 55 and 35 ms in all, and llama.cpp's whole start 0.7 and 1.3 s. The library also has no way to leave special
 * tokens in text as text, and splits words at JavaScript's idea of whitespace.
 *
 * @module
 */
import { ModelFileError } from "../core/errors.ts";
import type { Pieces } from "./tokenizer_pieces.ts";
import { Merger, type Merges } from "./tokenizer_merge.ts";
import { splitWords } from "./tokenizer_split.ts";

/** Turns text that holds no special tokens into ids. */
export interface Encoder {
  /** Appends the ids of `text` to `out`. */
  encode(text: string, out: number[]): void;
}

/** Merges given as pairs of pieces, best first; a hash table in two typed arrays, as half a million pairs are usual. */
export class PairMerges implements Merges {
  merged: number = -1;
  /** Slots of four: left id + 1 (0 is empty), right id, rank, merged id. */
  readonly #slots: Int32Array;
  readonly #mask: number;
  #count = 0;

  /** Room for `capacity` merges. */
  constructor(capacity: number) {
    let size = 16;
    while (size < 2 * capacity) size *= 2;
    this.#slots = new Int32Array(4 * size);
    this.#mask = size - 1;
  }

  /** Appends a merge, ranked after all before it; a pair given twice keeps its first rank. */
  add(left: number, right: number, merged: number): void {
    const at = this.#find(left, right);
    if (this.#slots[at] !== 0) return;
    this.#slots[at] = left + 1;
    this.#slots[at + 1] = right;
    this.#slots[at + 2] = this.#count++;
    this.#slots[at + 3] = merged;
  }

  rank(left: number, right: number): number {
    if (left < 0 || right < 0) return Infinity;
    const at = this.#find(left, right);
    if (this.#slots[at] === 0) return Infinity;
    this.merged = this.#slots[at + 3] as number;
    return this.#slots[at + 2] as number;
  }

  #find(left: number, right: number): number {
    let h = Math.imul(left ^ Math.imul(right, 0x9e3779b1), 0x85ebca6b);
    h ^= h >>> 15;
    for (let slot = h & this.#mask;; slot = (slot + 1) & this.#mask) {
      const at = 4 * slot, key = this.#slots[at] as number;
      if (key === 0 || (key === left + 1 && this.#slots[at + 1] === right)) return at;
    }
  }
}

/** Any two neighbours merge whose bytes together are a piece; the piece's score ranks them (SentencePiece's BPE). */
export class ScoreMerges implements Merges {
  merged: number = -1;

  /** `scores`: one a piece, larger is better. */
  constructor(readonly pieces: Pieces, readonly scores: ArrayLike<number>) {}

  rank(_left: number, _right: number, bytes: Uint8Array, start: number, end: number): number {
    this.merged = this.pieces.find(bytes, start, end);
    return this.merged < 0 ? Infinity : -(this.scores[this.merged] as number);
  }
}

/** What an {@link Encoder} over bytes or characters needs. */
export interface EncoderParts {
  /** What can come out. */
  readonly pieces: Pieces;
  /** What merges with what. */
  readonly merges: Merges;
  /** Id of each of the 256 bytes, −1 where the vocabulary lacks it. */
  readonly byteIds: Int32Array;
  /** Stands for what nothing else can; undefined drops it. */
  readonly unknown: number | undefined;
}

const utf8 = new TextEncoder();
const MAX_CACHED_WORDS = 1 << 15;
const MAX_CACHED_LENGTH = 48;

/** Byte-level BPE (GPT-2): words by patterns, symbols are bytes. Radford et al. 2019. */
export class ByteLevelEncoder implements Encoder {
  readonly #merger = new Merger();
  /** Ids of words met; text repeats its words. Emptied when full. */
  readonly #words = new Map<string, readonly number[]>();
  #buffer = new Uint8Array(256);

  /** `ignoreMerges`: a word that is a piece is that token. */
  constructor(readonly parts: EncoderParts, readonly patterns: readonly RegExp[], readonly ignoreMerges: boolean) {}

  encode(text: string, out: number[]): void {
    splitWords(text, this.patterns, (word) => {
      let ids = this.#words.get(word);
      if (ids === undefined) {
        ids = this.#encodeWord(word);
        if (word.length <= MAX_CACHED_LENGTH) {
          if (this.#words.size >= MAX_CACHED_WORDS) this.#words.clear();
          this.#words.set(word, ids);
        }
      }
      for (const id of ids) out.push(id);
    });
  }

  #encodeWord(word: string): readonly number[] {
    const { pieces, merges, byteIds, unknown } = this.parts;
    if (3 * word.length > this.#buffer.length) this.#buffer = new Uint8Array(6 * word.length);
    const bytes = this.#buffer, n = utf8.encodeInto(word, bytes).written;
    if (this.ignoreMerges) {
      const whole = pieces.find(bytes, 0, n);
      if (whole >= 0) return [whole];
    }
    this.#merger.clear();
    for (let i = 0; i < n; i++) this.#merger.add(byteIds[bytes[i] as number] as number, i, i + 1);
    const ids: number[] = [];
    this.#merger.run(bytes, merges, (id) => {
      if (id >= 0) ids.push(id);
      else if (unknown !== undefined) ids.push(unknown);
    });
    return ids;
  }
}

/**
 * BPE over characters, where `▁` (U+2581) stands for a space: SentencePiece. Characters outside the vocabulary become byte
 * tokens.
 *
 * A `▁` that is in the text itself is the same symbol as a space, as in SentencePiece: the one case that does not come back.
 */
export class CharacterEncoder implements Encoder {
  readonly #merger = new Merger();

  /** `ignoreMerges`: a text that is a piece is that token. */
  constructor(readonly parts: EncoderParts, readonly ignoreMerges: boolean = false) {}

  encode(text: string, out: number[]): void {
    const { pieces, merges, byteIds, unknown } = this.parts;
    const bytes = utf8.encode(text.replaceAll(" ", "▁"));
    const n = bytes.length;
    if (this.ignoreMerges) {
      const whole = pieces.find(bytes, 0, n);
      if (whole >= 0) return void out.push(whole);
    }
    this.#merger.clear();
    for (let i = 0; i < n;) {
      const lead = bytes[i] as number;
      const end = i + (lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4);
      this.#merger.add(pieces.find(bytes, i, end), i, end);
      i = end;
    }
    this.#merger.run(bytes, merges, (id, start, end) => {
      if (id >= 0) return void out.push(id);
      for (let i = start; i < end; i++) {
        const byte = byteIds[bytes[i] as number] as number;
        if (byte >= 0) out.push(byte);
        else if (unknown !== undefined) return void out.push(unknown);
      }
    });
  }
}

/** A list of merges, read one by one: the bytes of both tokens side by side. */
export interface MergeList {
  /** Number of merges. */
  readonly length: number;
  /** Both tokens of the merge that {@link read} read, in `bytes[0 … end)`; the left one is `bytes[0 … cut)`. */
  readonly bytes: Uint8Array;
  /** See {@link bytes}. */
  readonly cut: number;
  /** See {@link bytes}. */
  readonly end: number;
  /** Reads merge `i`; false when it is no pair of tokens. */
  read(i: number): boolean;
}

/** Fills {@link PairMerges} from `list`; `what` names the list in errors. */
export function pairMerges(list: MergeList, pieces: Pieces, what: string): PairMerges {
  const table = new PairMerges(list.length);
  for (let i = 0; i < list.length; i++) {
    if (!list.read(i)) throw new ModelFileError(`Cannot load tokenizer: ${what} entry ${i} is no pair of tokens`);
    const { bytes, cut, end } = list;
    const left = pieces.find(bytes, 0, cut), right = pieces.find(bytes, cut, end), merged = pieces.find(bytes, 0, end);
    if (left < 0 || right < 0 || merged < 0) {
      const which = left < 0 ? "left part" : right < 0 ? "right part" : "result";
      throw new ModelFileError(`Cannot load tokenizer: ${what} entry ${i} has a ${which} that is no token`);
    }
    table.add(left, right, merged);
  }
  return table;
}
