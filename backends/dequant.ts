/**
 * Block-quantized weights back to numbers, bit for bit as the formats define them: every product and sum is rounded to
 * float32 once. Layouts: GGUF's; the super-block formats are in `dequant_k.ts`.
 *
 * @module
 */
import type { BlockType } from "../core/tensor.ts";
import { dequantQ3K, dequantQ4K, dequantQ5K, dequantQ6K } from "./dequant_k.ts";
import { halfAt } from "./half.ts";

/** Writes `out[0 … count)` from whole blocks that start at byte `offset`; `count` is a multiple of the block. */
export type Dequantize = (out: Float32Array, blocks: Uint8Array, offset: number, count: number) => void;

const round = Math.fround;

/** d, 16 bytes of nibbles: d · (q − 8); byte j holds elements j (low) and j + 16 (high). */
function dequantQ40(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 18) {
    const d = halfAt(b, o);
    for (let j = 0; j < 16; j++) {
      const q = b[o + 2 + j] as number;
      out[i + j] = d * ((q & 15) - 8);
      out[i + j + 16] = d * ((q >> 4) - 8);
    }
  }
}

/** d, m, 16 bytes of nibbles: d · q + m. */
function dequantQ41(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 20) {
    const d = halfAt(b, o);
    const m = halfAt(b, o + 2);
    for (let j = 0; j < 16; j++) {
      const q = b[o + 4 + j] as number;
      out[i + j] = round(d * (q & 15)) + m;
      out[i + j + 16] = round(d * (q >> 4)) + m;
    }
  }
}

/** The 32 fifth bits, element j in bit j. */
function highBits(b: Uint8Array, o: number): number {
  return (b[o] as number) | ((b[o + 1] as number) << 8) | ((b[o + 2] as number) << 16) | ((b[o + 3] as number) << 24);
}

/** d, 32 fifth bits, 16 bytes of nibbles: d · (q − 16). */
function dequantQ50(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 22) {
    const d = halfAt(b, o);
    const high = highBits(b, o + 2);
    for (let j = 0; j < 16; j++) {
      const q = b[o + 6 + j] as number;
      out[i + j] = d * (((q & 15) | (((high >>> j) & 1) << 4)) - 16);
      out[i + j + 16] = d * (((q >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16);
    }
  }
}

/** d, m, 32 fifth bits, 16 bytes of nibbles: d · q + m. */
function dequantQ51(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 24) {
    const d = halfAt(b, o);
    const m = halfAt(b, o + 2);
    const high = highBits(b, o + 4);
    for (let j = 0; j < 16; j++) {
      const q = b[o + 8 + j] as number;
      out[i + j] = round(d * ((q & 15) | (((high >>> j) & 1) << 4))) + m;
      out[i + j + 16] = round(d * ((q >> 4) | (((high >>> (j + 16)) & 1) << 4))) + m;
    }
  }
}

/** d, 32 signed bytes: d · q. */
function dequantQ80(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 34) {
    const d = halfAt(b, o);
    for (let j = 0; j < 32; j++) out[i + j] = d * ((b[o + 2 + j] as number) << 24 >> 24);
  }
}

/** The sixteen levels of IQ4_NL, denser near zero. */
const LEVELS = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** d, 16 bytes of nibbles that name levels: d · level[q]. */
function dequantIq4Nl(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 32, o += 18) {
    const d = halfAt(b, o);
    for (let j = 0; j < 16; j++) {
      const q = b[o + 2 + j] as number;
      out[i + j] = d * (LEVELS[q & 15] as number);
      out[i + j + 16] = d * (LEVELS[q >> 4] as number);
    }
  }
}

/** One entry a format. */
export const DEQUANTIZE: Readonly<Record<BlockType, Dequantize>> = {
  q4_0: dequantQ40,
  q4_1: dequantQ41,
  q5_0: dequantQ50,
  q5_1: dequantQ51,
  q8_0: dequantQ80,
  q3_k: dequantQ3K,
  q4_k: dequantQ4K,
  q5_k: dequantQ5K,
  q6_k: dequantQ6K,
  iq4_nl: dequantIq4Nl,
};
