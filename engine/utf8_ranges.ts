/**
 * Sets of characters as sequences of byte ranges, which is what UTF-8 readers see of them.
 *
 * @module
 */

/** Code points `[low, high]`, both included. */
export type CodeRange = readonly [number, number];
/** Bytes `[low, high]`, both included. */
export type ByteRange = readonly [number, number];

const LAST = 0x10ffff;
/** What UTF-8 cannot hold. */
const SURROGATES: CodeRange = [0xd800, 0xdfff];
/** Last code points of 1, 2 and 3 bytes. */
const LENGTHS = [0x7f, 0x7ff, 0xffff];

/** All characters that are in none of `ranges`. */
export function complement(ranges: readonly CodeRange[]): CodeRange[] {
  const sorted = ranges.toSorted((a, b) => a[0] - b[0]);
  const out: CodeRange[] = [];
  let from = 0;
  for (const [low, high] of sorted) {
    if (low > from) out.push([from, low - 1]);
    from = Math.max(from, high + 1);
  }
  if (from <= LAST) out.push([from, LAST]);
  return out;
}

/**
 * The UTF-8 texts of the characters in `ranges`, each once: sequences of one to four byte ranges, any byte of each range with any of the
 * others (R. Cox, "Regular Expression Matching with a Trigram Index"; utf8-ranges). Surrogates are left out.
 */
export function utf8Sequences(ranges: readonly CodeRange[]): ByteRange[][] {
  const out: ByteRange[][] = [];
  // Disjoint and in order: the complement's complement.
  for (const [low, high] of complement(complement(ranges))) {
    if (low < SURROGATES[0]) split(low, Math.min(high, SURROGATES[0] - 1), out);
    if (high > SURROGATES[1]) split(Math.max(low, SURROGATES[1] + 1), high, out);
  }
  return out;
}

function split(low: number, high: number, out: ByteRange[][]): void {
  for (const last of LENGTHS) {
    if (low <= last && high > last) {
      split(low, last, out);
      return split(last + 1, high, out);
    }
  }
  const tail = LENGTHS.filter((last) => high > last).length;
  // Ranges whose last bytes run over all of theirs, or are one lead's alone, are products of byte ranges.
  for (let i = 1; i <= tail; i++) {
    const mask = (1 << 6 * i) - 1;
    if ((low & ~mask) === (high & ~mask)) continue;
    if ((low & mask) !== 0) {
      split(low, low | mask, out);
      return split((low | mask) + 1, high, out);
    }
    if ((high & mask) !== mask) {
      split(low, (high & ~mask) - 1, out);
      return split(high & ~mask, high, out);
    }
  }
  const [first, last] = [encode(low, tail), encode(high, tail)];
  out.push(first.map((byte, i) => [byte, last[i] as number]));
}

function encode(code: number, tail: number): number[] {
  const bytes: number[] = [];
  for (let i = 0; i < tail; i++) {
    bytes.unshift(0x80 | code & 0x3f);
    code >>= 6;
  }
  return [([0, 0xc0, 0xe0, 0xf0][tail] as number) | code, ...bytes];
}
