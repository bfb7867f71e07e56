/**
 * Half-precision and bfloat16 numbers as bits. A table widens halves, since a typed-array read of one may cost a call.
 *
 * @module
 */

/** Value of each of the 65,536 half-precision bit patterns. */
export const HALF: Float32Array = new Float32Array(
  new Float16Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer),
);

/** The half-precision number at byte `o`, little-endian. */
export function halfAt(b: Uint8Array, o: number): number {
  return HALF[(b[o] as number) | ((b[o + 1] as number) << 8)] as number;
}

const bits = new Uint32Array(1);
const asFloat = new Float32Array(bits.buffer);

/** The number behind bfloat16 bits. */
export function fromBfloat(pattern: number): number {
  bits[0] = pattern << 16;
  return asFloat[0] as number;
}

/** Bfloat16 bits nearest to `value`, ties to even; NaN stays NaN. */
export function toBfloat(value: number): number {
  asFloat[0] = value;
  const b = bits[0] as number;
  if ((b & 0x7fffffff) > 0x7f800000) return (b >>> 16) | 0x40;
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff;
}
