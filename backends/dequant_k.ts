/**
 * The super-block formats: 256 elements in sub-blocks of 16 or 32, whose small integer scales share one or two halves.
 *
 * @module
 */
import { halfAt } from "./half.ts";

const round = Math.fround;

/** 32 bytes of third bits, 64 of two low bits, 12 of sixteen 6-bit scales, d: d · (s − 32) · (q − 4). */
export function dequantQ3K(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 256, o += 110) {
    const d = halfAt(b, o + 108);
    for (let sub = 0; sub < 16; sub++) {
      const byte = b[o + 96 + (sub & 7)] as number;
      const low = sub < 8 ? byte & 15 : byte >> 4;
      const high = ((b[o + 104 + (sub & 3)] as number) >> (2 * (sub >> 2))) & 3;
      const scale = round(d * ((low | (high << 4)) - 32));
      // Sub-blocks run in pairs over 32 bytes; each pair takes two more bits of them, each half of eight its own bytes.
      const plane = sub >> 1;
      const shift = 2 * (plane & 3);
      const at = (sub & 1) * 16;
      const lows = o + 32 + (sub >> 3) * 32 + at;
      const to = i + sub * 16;
      for (let j = 0; j < 16; j++) {
        const third = ((b[o + at + j] as number) >> plane) & 1;
        out[to + j] = scale * ((((b[lows + j] as number) >> shift) & 3) - (third === 1 ? 0 : 4));
      }
    }
  }
}

/** Scale `sub` of eight: six bits each of scale and minimum in 12 bytes, the last four split over two places. */
function scaleAt(b: Uint8Array, o: number, sub: number): number {
  if (sub < 4) return (b[o + sub] as number) & 63;
  return ((b[o + sub + 4] as number) & 15) | (((b[o + sub - 4] as number) >> 6) << 4);
}

function minimumAt(b: Uint8Array, o: number, sub: number): number {
  if (sub < 4) return (b[o + sub + 4] as number) & 63;
  return ((b[o + sub + 4] as number) >> 4) | (((b[o + sub] as number) >> 6) << 4);
}

/** d, dmin, 12 bytes of scales and minima, 128 of nibbles: d · s · q − dmin · m. */
export function dequantQ4K(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 256, o += 144) {
    const d = halfAt(b, o);
    const dmin = halfAt(b, o + 2);
    for (let sub = 0; sub < 8; sub++) {
      const scale = round(d * scaleAt(b, o + 4, sub));
      const minimum = round(dmin * minimumAt(b, o + 4, sub));
      const shift = (sub & 1) * 4;
      const from = o + 16 + (sub >> 1) * 32;
      const to = i + sub * 32;
      for (let j = 0; j < 32; j++) out[to + j] = round(scale * (((b[from + j] as number) >> shift) & 15)) - minimum;
    }
  }
}

/** As Q4_K, with 32 bytes of fifth bits before the nibbles. */
export function dequantQ5K(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 256, o += 176) {
    const d = halfAt(b, o);
    const dmin = halfAt(b, o + 2);
    for (let sub = 0; sub < 8; sub++) {
      const scale = round(d * scaleAt(b, o + 4, sub));
      const minimum = round(dmin * minimumAt(b, o + 4, sub));
      const shift = (sub & 1) * 4;
      const from = o + 48 + (sub >> 1) * 32;
      const to = i + sub * 32;
      for (let j = 0; j < 32; j++) {
        const fifth = ((b[o + 16 + j] as number) >> sub) & 1;
        out[to + j] = round(scale * ((((b[from + j] as number) >> shift) & 15) | (fifth << 4))) - minimum;
      }
    }
  }
}

/** 128 bytes of four low bits, 64 of two high bits, 16 signed scales, d: d · s · (q − 32). */
export function dequantQ6K(out: Float32Array, b: Uint8Array, o: number, count: number): void {
  for (let i = 0; i < count; i += 256, o += 210) {
    const d = halfAt(b, o + 208);
    for (let sub = 0; sub < 16; sub++) {
      const scale = round(d * ((b[o + 192 + sub] as number) << 24 >> 24));
      // In each half of 128, quarters of 32 elements: low nibbles of 64 bytes, then their high ones; two bits of 32 bytes.
      const half = sub >> 3;
      const quarter = (sub >> 1) & 3;
      const at = (sub & 1) * 16;
      const lows = o + half * 64 + (quarter & 1) * 32 + at;
      const highs = o + 128 + half * 32 + at;
      const lowShift = (quarter >> 1) * 4;
      const highShift = quarter * 2;
      const to = i + sub * 16;
      for (let j = 0; j < 16; j++) {
        const q = (((b[lows + j] as number) >> lowShift) & 15) | ((((b[highs + j] as number) >> highShift) & 3) << 4);
        out[to + j] = scale * (q - 32);
      }
    }
  }
}
