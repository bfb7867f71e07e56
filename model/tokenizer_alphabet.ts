/**
 * GPT-2's alphabet: its vocabularies write each byte as a printable character. Undone once at load, so that encoding and
 * decoding work on bytes.
 *
 * @module
 */
import { Pieces, type StringTable } from "./tokenizer_pieces.ts";

/** Byte of each code point of the alphabet, −1 elsewhere; the alphabet ends at U+0143. */
const BYTE_OF = (() => {
  const bytes = new Int16Array(0x144).fill(-1);
  let spare = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    bytes[printable ? byte : spare++] = byte;
  }
  return bytes;
})();

/** Undoes the alphabet in `bytes[start … end)`, UTF-8, into `out` from `at`; the new end, or −1 when a character is foreign. */
export function undoAlphabet(bytes: Uint8Array, start: number, end: number, out: Uint8Array, at: number): number {
  for (let i = start; i < end;) {
    const lead = bytes[i] as number;
    let code = lead;
    if (lead >= 0xc2 && lead <= 0xc5 && i + 1 < end) code = ((lead & 31) << 6) | ((bytes[i + 1] as number) & 63);
    else if (lead >= 0x80) return -1;
    const byte = BYTE_OF[code] ?? -1;
    if (byte < 0) return -1;
    out[at++] = byte;
    i += lead < 0x80 ? 1 : 2;
  }
  return at;
}

/** A byte-level vocabulary with the alphabet undone. */
export interface ByteLevelPieces {
  /** The pieces as bytes. */
  readonly pieces: Pieces;
  /** The merges as pairs of byte strings; views that the next call overwrites. */
  readonly pairs: { readonly length: number; pair(i: number): readonly [Uint8Array, Uint8Array] | undefined };
  /** Id of each byte as a piece, −1 where there is none. */
  readonly byteIds: Int32Array;
}

/**
 * Undoes the alphabet in the tokens that `normal` admits, and in `merges` (`left right`). Other tokens, and those with
 * characters outside the alphabet, keep their text and are not found by encoding. `what` names the list in errors.
 */
export function byteLevelPieces(
  tokens: StringTable,
  normal: (id: number) => boolean,
  merges: StringTable,
  what: string,
): ByteLevelPieces {
  const n = tokens.offsets.length - 1;
  const data = new Uint8Array(tokens.data.length), offsets = new Uint32Array(n + 1);
  const foreign = new Uint8Array(n);
  let at = 0;
  for (let i = 0; i < n; i++) {
    const start = tokens.offsets[i] as number, end = tokens.offsets[i + 1] as number;
    const done = normal(i) ? undoAlphabet(tokens.data, start, end, data, at) : -1;
    if (done < 0) {
      foreign[i] = 1;
      data.set(tokens.data.subarray(start, end), at);
      at += end - start;
    } else {
      at = done;
    }
    offsets[i + 1] = at;
  }
  const pieces = new Pieces({ data: data.subarray(0, at), offsets }, (i) => foreign[i] === 0, what);
  const byteIds = new Int32Array(256);
  const one = new Uint8Array(1);
  for (let byte = 0; byte < 256; byte++) {
    one[0] = byte;
    byteIds[byte] = pieces.find(one, 0, 1);
  }
  let left = new Uint8Array(256), right = new Uint8Array(256);
  const pairs = {
    length: merges.offsets.length - 1,
    pair(i: number): readonly [Uint8Array, Uint8Array] | undefined {
      const start = merges.offsets[i] as number, end = merges.offsets[i + 1] as number;
      if (end - start > left.length) {
        [left, right] = [new Uint8Array(2 * (end - start)), new Uint8Array(2 * (end - start))];
      }
      const space = merges.data.indexOf(0x20, start + 1);
      if (space < 0 || space >= end) return undefined;
      const l = undoAlphabet(merges.data, start, space, left, 0);
      const r = undoAlphabet(merges.data, space + 1, end, right, 0);
      return l <= 0 || r <= 0 ? undefined : [left.subarray(0, l), right.subarray(0, r)];
    },
  };
  return { pieces, pairs, byteIds };
}
