/**
 * Seeded random numbers of task generators: one stream a sample, so that adding a sample changes no other.
 *
 * @module
 */

/** xoshiro128** (Blackman and Vigna 2018), seeded by mixing the names of what the stream is for. */
export class Random {
  readonly #s = new Uint32Array(4);

  /** Equal ids give equal streams. */
  constructor(...ids: (number | string)[]) {
    let h = 0x9e3779b9;
    for (const byte of new TextEncoder().encode(ids.join("\0"))) {
      h = Math.imul(h ^ byte, 0x85ebca6b);
      h ^= h >>> 13;
    }
    for (let i = 0; i < 4; i++) {
      // Mulberry32: spreads one word over the state, which is then never all zero.
      h = (h + 0x6d2b79f5) | 0;
      let t = Math.imul(h ^ (h >>> 15), h | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      this.#s[i] = t ^ (t >>> 14);
    }
  }

  /** 32 random bits. */
  bits(): number {
    const s = this.#s;
    const [a, b, c, d] = s as unknown as [number, number, number, number];
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    const [nextC, nextD] = [c ^ a, d ^ b];
    s[1] = b ^ nextC;
    s[0] = a ^ nextD;
    s[2] = nextC ^ shifted;
    s[3] = rotate(nextD, 11);
    return result;
  }

  /** A whole number in `[0, n)`; by rejection, so that none is favoured. */
  below(n: number): number {
    if (!(Number.isInteger(n) && n > 0 && n <= 2 ** 32)) throw new RangeError(`Cannot draw below ${n}`);
    const most = 2 ** 32 - 2 ** 32 % n;
    for (;;) {
      const bits = this.bits();
      if (bits < most) return bits % n;
    }
  }

  /** Shuffles in place (Fisher and Yates). */
  shuffle<T>(values: T[]): T[] {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [values[i], values[j]] = [values[j] as T, values[i] as T];
    }
    return values;
  }

  /** `count` different values of `from`. Throws `RangeError` when there are fewer. */
  pick<T>(from: readonly T[], count: number): T[] {
    if (count > from.length) throw new RangeError(`Cannot pick ${count} of ${from.length}`);
    const pool = from.slice();
    for (let i = 0; i < count; i++) {
      const j = i + this.below(pool.length - i);
      [pool[i], pool[j]] = [pool[j] as T, pool[i] as T];
    }
    return pool.slice(0, count);
  }
}

function rotate(x: number, by: number): number {
  return (x << by) | (x >>> (32 - by));
}
