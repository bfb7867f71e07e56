/**
 * The pieces of a vocabulary as bytes, and the way back from bytes to ids.
 *
 * A hash table over the file's own bytes instead of a `Map` of strings: for Gemma's 262,144 pieces it is ready in a tenth of
 * the time (72 against 710 ms on a busy machine, best first runs of three; the whole tokenizer loads in 35 ms on a quiet one).
 *
 * @module
 */
import { ModelFileError } from "../core/errors.ts";

/** Strings side by side: string `i` is `data[offsets[i] … offsets[i + 1])`. */
export interface StringTable {
  /** All strings, UTF-8. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** One entry more than there are strings. */
  readonly offsets: Uint32Array<ArrayBuffer>;
}

/** Bytes ↔ ids; only ids that `findable` admits are found. */
export class Pieces {
  readonly #slots: Int32Array;
  readonly #mask: number;
  /** Number of ids, findable or not. */
  readonly length: number;

  /** `what` names the list in errors. Throws {@link ModelFileError} when two findable pieces are equal. */
  constructor(readonly table: StringTable, findable: (id: number) => boolean, what: string) {
    const { data, offsets } = table;
    this.length = offsets.length - 1;
    let size = 16;
    while (size < 2 * this.length) size *= 2;
    this.#mask = size - 1;
    this.#slots = new Int32Array(size);
    for (let id = 0; id < this.length; id++) {
      const start = offsets[id] as number, end = offsets[id + 1] as number;
      if (start === end || !findable(id)) continue;
      let slot = hash(data, start, end) & this.#mask;
      for (let other; (other = this.#slots[slot] as number) !== 0; slot = (slot + 1) & this.#mask) {
        if (this.#equals(other - 1, data, start, end)) {
          throw new ModelFileError(`Cannot load tokenizer: ${what} holds the same token at ${other - 1} and ${id}`);
        }
      }
      this.#slots[slot] = id + 1;
    }
  }

  /** The id of `bytes[start … end)`, or −1. */
  find(bytes: Uint8Array, start: number, end: number): number {
    for (let slot = hash(bytes, start, end) & this.#mask;; slot = (slot + 1) & this.#mask) {
      const id = (this.#slots[slot] as number) - 1;
      if (id < 0 || this.#equals(id, bytes, start, end)) return id;
    }
  }

  /** The bytes of piece `id`, a view. Throws `RangeError` when there is no such id. */
  bytes(id: number): Uint8Array<ArrayBuffer> {
    const start = this.table.offsets[id], end = this.table.offsets[id + 1];
    if (start === undefined || end === undefined) {
      throw new RangeError(`Cannot read token ${id}: the vocabulary has ${this.length}`);
    }
    return this.table.data.subarray(start, end);
  }

  #equals(id: number, bytes: Uint8Array, start: number, end: number): boolean {
    const { data, offsets } = this.table;
    let at = offsets[id] as number;
    if ((offsets[id + 1] as number) - at !== end - start) return false;
    for (let i = start; i < end; i++, at++) if (data[at] !== bytes[i]) return false;
    return true;
  }
}

/** FNV-1a with a final mix: its low bits alone cluster on short, similar pieces. */
function hash(bytes: Uint8Array, start: number, end: number): number {
  let h = 0x811c9dc5 | 0;
  for (let i = start; i < end; i++) h = Math.imul(h ^ (bytes[i] as number), 0x01000193);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return h ^ (h >>> 13);
}

/** A {@link StringTable} of `strings`. */
export function stringTable(strings: readonly string[]): StringTable {
  const encoder = new TextEncoder();
  const offsets = new Uint32Array(strings.length + 1);
  let room = 0;
  for (const s of strings) room += s.length;
  let data = new Uint8Array(2 * room + 64), at = 0;
  strings.forEach((s, i) => {
    if (at + 3 * s.length > data.length) {
      const grown = new Uint8Array(2 * data.length + 3 * s.length);
      grown.set(data);
      data = grown;
    }
    at += encoder.encodeInto(s, data.subarray(at)).written;
    offsets[i + 1] = at;
  });
  return { data: data.subarray(0, at), offsets };
}
