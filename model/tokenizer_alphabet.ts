/**
 * GPT-2's alphabet: its vocabularies write each byte as a printable character. Undone once at load, so that encoding and
 * decoding work on bytes.
 *
 * @module
 */
import type { MergeList } from "./tokenizer_encoder.ts";
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
  /** The merges as bytes. */
  readonly merges: MergeList;
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
  return { pieces, merges: new AlphabetMerges(merges), byteIds };
}

/** Merges written `left right` in the alphabet. */
class AlphabetMerges implements MergeList {
  readonly length: number;
  bytes = new Uint8Array(256);
  cut = 0;
  end = 0;

  constructor(readonly table: StringTable) {
    this.length = table.offsets.length - 1;
  }

  read(i: number): boolean {
    const { data, offsets } = this.table;
    const start = offsets[i] as number, end = offsets[i + 1] as number;
    if (end - start > this.bytes.length) this.bytes = new Uint8Array(2 * (end - start));
    let space = start + 1;
    while (space < end && data[space] !== 0x20) space++;
    if (space >= end) return false;
    this.cut = undoAlphabet(data, start, space, this.bytes, 0);
    this.end = this.cut <= 0 ? -1 : undoAlphabet(data, space + 1, end, this.bytes, this.cut);
    return this.end > this.cut;
  }
}
