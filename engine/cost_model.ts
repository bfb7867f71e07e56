/**
 * What a method takes at a length, fitted to lengths that were measured on the same machine and model.
 *
 * Decode time is a constant (weights, kernels' overhead, sinks and window) and something for every key of the cache (rows or
 * codes that are read), so it is a straight line wherever a method does the same at both ends; so are bytes. Structure is built
 * by a power of the length. Between two measured lengths the line joins them; beyond the longest, and before the shortest, it is
 * fitted to those near that end by least squares of relative errors.
 *
 * @module
 */

/** What was measured, or is predicted, at one length. */
export interface CostPoint {
  /** Tokens of the prompt. */
  readonly length: number;
  /** A decoded token. */
  readonly msPerToken: number;
  /** Structure built for the prompt. */
  readonly buildMs: number;
  /** Of the index's own. */
  readonly indexBytes: number;
}

/** Points from this share of the longest one on say how it goes on; those up to as many times the shortest, how it began. */
const TAIL = 1 / 4;

/** See the module's head. */
export class CostModel {
  readonly #points: readonly CostPoint[];

  /** Several points of one length count as their median. Throws `RangeError` for fewer than two lengths. */
  constructor(points: readonly CostPoint[]) {
    const byLength = Map.groupBy(points, (point) => point.length);
    this.#points = [...byLength.values()].map(medianPoint).sort((a, b) => a.length - b.length);
    if (this.#points.length < 2) {
      throw new RangeError(`Cannot fit costs: ${this.#points.length} measured lengths, two at least are needed`);
    }
  }

  /** The longest length that was measured. */
  get longest(): number {
    return (this.#points.at(-1) as CostPoint).length;
  }

  /** The prediction; nothing is negative. */
  at(length: number): CostPoint {
    const after = this.#points.findIndex((point) => point.length >= length);
    const isOutside = after < 0 || (after === 0 && length < (this.#points[0] as CostPoint).length);
    const pair = after <= 0 ? this.#points.slice(0, 2) : this.#points.slice(after - 1, after + 1);
    const line = (key: "msPerToken" | "indexBytes") =>
      Math.max(
        0,
        isOutside ? outside(after < 0 ? this.#tail() : this.#head(), key, length) : between(pair, key, length),
      );
    return {
      length,
      msPerToken: line("msPerToken"),
      indexBytes: line("indexBytes"),
      buildMs: after < 0 ? this.#buildBeyond(length) : Math.max(0, between(pair, "buildMs", length)),
    };
  }

  #head(): readonly CostPoint[] {
    const [shortest] = this.#points as [CostPoint];
    const head = this.#points.filter((point) => point.length * TAIL <= shortest.length);
    return head.length >= 2 ? head : this.#points.slice(0, 2);
  }

  #tail(): readonly CostPoint[] {
    const tail = this.#points.filter((point) => point.length >= TAIL * this.longest);
    return tail.length >= 2 ? tail : this.#points.slice(-2);
  }

  #buildBeyond(length: number): number {
    const [a, b] = this.#points.slice(-2) as [CostPoint, CostPoint];
    if (a.buildMs <= 0 || b.buildMs <= 0) return b.buildMs * length / b.length;
    const power = Math.log(b.buildMs / a.buildMs) / Math.log(b.length / a.length);
    return b.buildMs * (length / b.length) ** Math.min(2, Math.max(0, power));
  }
}

/** constant + slope · length by least squares of relative errors. More keys never take less: a slope below zero is noise, and 0. */
export function fitLine(
  points: readonly { readonly length: number; readonly value: number }[],
): { readonly constant: number; readonly slope: number } {
  let [w, x, y, xx, xy] = [0, 0, 0, 0, 0];
  for (const { length, value } of points) {
    const weight = value === 0 ? 1 : 1 / value ** 2;
    w += weight;
    x += weight * length;
    y += weight * value;
    xx += weight * length ** 2;
    xy += weight * length * value;
  }
  const slope = Math.max(0, (w * xy - x * y) / (w * xx - x * x));
  return { constant: (y - slope * x) / w, slope };
}

function outside(points: readonly CostPoint[], key: "msPerToken" | "indexBytes", length: number): number {
  const { constant, slope } = fitLine(points.map((point) => ({ length: point.length, value: point[key] })));
  return constant + slope * length;
}

function between(pair: readonly CostPoint[], key: "msPerToken" | "indexBytes" | "buildMs", length: number): number {
  const [a, b] = pair as readonly [CostPoint, CostPoint];
  return a[key] + (b[key] - a[key]) * (length - a.length) / (b.length - a.length);
}

function medianPoint(points: readonly CostPoint[]): CostPoint {
  const mid = (key: keyof CostPoint) => points.map((point) => point[key]).toSorted((a, b) => a - b)[points.length >> 1];
  const [{ length }] = points as [CostPoint];
  return {
    length,
    msPerToken: mid("msPerToken") as number,
    buildMs: mid("buildMs") as number,
    indexBytes: mid("indexBytes") as number,
  };
}
