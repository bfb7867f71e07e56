/**
 * Uniform numbers of the draws, the same as those of `native/index/draw.h`: functions of what is drawn, so that equal seeds,
 * histories and positions repeat.
 *
 * @module
 */

/** lowbias32 (Wellons, "Prospecting for hash functions"): a bijection of 32 bits that avalanche. */
export function lowbias32(x: number): number {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  x ^= x >>> 16;
  return x >>> 0;
}

/** What the positions of one KV head are hashed with in one draw. */
export function drawKey(draw: number, kvHead: number): number {
  return lowbias32(draw + Math.imul(0x9e3779b9, kvHead + 1));
}

/** 32 uniform bits of a position: kept when bits < p · 2³². */
export function drawBits(key: number, position: number): number {
  return lowbias32(position ^ key);
}
