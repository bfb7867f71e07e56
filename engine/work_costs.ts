/**
 * What methods take at lengths that were not measured, from all that was measured of a model on a machine.
 *
 * A decoded token takes a constant (weights, kernels, sinks and window), something for each byte of cached rows and something
 * for each byte of the index; how much of each is fitted to all cells at once. A method has a factor of its own, which follows
 * its measured lengths and stays beyond them. What it reads is counted, not timed, so that it is told from few lengths. Lengths at
 * which nothing was built say nothing about those at which something is, nor they about them.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { CostModel, type CostPoint, fitLine } from "./cost_model.ts";

/** One measured cell. */
export interface WorkPoint {
  /** Canonical policy and index. */
  readonly method: string;
  /** Tokens of the prompt. */
  readonly length: number;
  /** A decoded token under exact attention, measured beside. */
  readonly exactMs: number;
  /** Exact attention's time over the method's, of paired steps. */
  readonly ratio: number;
  /** Bytes of cached rows that a decoded token reads. */
  readonly rowBytes: number;
  /** Bytes of the index that it reads. */
  readonly readBytes: number;
  /** Structure built for the prompt. */
  readonly buildMs: number;
  /** Of the index's own. */
  readonly indexBytes: number;
  /** Whether anything was built: short prompts are scanned. */
  readonly isBuilt: boolean;
}

/** Milliseconds for a token, for a byte of rows, for a byte of the index. */
type Rates = readonly [constant: number, row: number, read: number];

/** One length of one method. */
interface Own extends CostPoint {
  readonly rowBytes: number;
  readonly readBytes: number;
  /** Measured over what the rates come to, as a logarithm. */
  readonly factor: number;
}

/** See the module's head. */
export class WorkCosts {
  readonly #exact: (length: number) => number;
  readonly #rates: Rates;
  readonly #methods = new Map<string, readonly Own[]>();
  /** The longest prompt that a method built nothing for. */
  readonly #scanned = new Map<string, number>();

  /** Throws `RangeError` without points, or for times that are not above zero. */
  constructor(points: readonly WorkPoint[]) {
    if (points.length === 0) throw new RangeError("Cannot fit costs: nothing was measured");
    if (points.some(({ exactMs, ratio }) => !(exactMs > 0 && ratio > 0))) {
      throw new RangeError("Cannot fit costs: a measured time is not above zero");
    }
    this.#exact = exactTimes(points);
    // Paired ratios are steadier than times: another minute may be twice as fast.
    const timed = points.map((point) => ({ ...point, msPerToken: this.#exact(point.length) / point.ratio }));
    this.#rates = fitRates(timed);
    for (const point of points) {
      if (point.isBuilt) continue;
      this.#scanned.set(point.method, Math.max(point.length, this.#scanned.get(point.method) ?? 0));
    }
    for (const [method, all] of Map.groupBy(timed, (point) => keyOf(point.method, point.isBuilt))) {
      const byLength = [...Map.groupBy(all, (point) => point.length)].sort(([a], [b]) => a - b);
      const own = byLength.map(([length, same]): Own => {
        const mid = (value: (point: typeof same[0]) => number) => median(same.map(value));
        const work = { rowBytes: mid((point) => point.rowBytes), readBytes: mid((point) => point.readBytes) };
        const msPerToken = mid((point) => point.msPerToken);
        return {
          length,
          msPerToken,
          buildMs: mid((point) => point.buildMs),
          indexBytes: mid((point) => point.indexBytes),
          ...work,
          factor: Math.log(msPerToken / apply(this.#rates, work)),
        };
      });
      this.#methods.set(method, own);
    }
  }

  /** Exact attention's time, milliseconds a token. */
  exactMs(length: number): number {
    return this.#exact(length);
  }

  /** Whether a method was measured at two lengths at which it did what it does at this one: so many it takes to tell it. */
  tells(method: string, length: number): boolean {
    return this.#own(method, length).length >= 2;
  }

  /** The prediction. Throws `RangeError` for methods that it cannot {@link tells | tell}. */
  at(method: string, length: number): CostPoint {
    const own = this.#own(method, length);
    const line = (key: "rowBytes" | "readBytes") =>
      new CostModel(own.map((point) => ({ ...point, msPerToken: point[key] }))).at(length).msPerToken;
    const rest = new CostModel(own).at(length);
    const work = { rowBytes: line("rowBytes"), readBytes: line("readBytes") };
    return { ...rest, msPerToken: apply(this.#rates, work) * Math.exp(factorAt(own, length)) };
  }

  /** Where nothing was ever built, nothing will be. */
  #own(method: string, length: number): readonly Own[] {
    const built = this.#methods.get(keyOf(method, true));
    const isBuilt = built !== undefined && length > (this.#scanned.get(method) ?? 0);
    return (isBuilt ? built : this.#methods.get(keyOf(method, false))) ?? [];
  }
}

function keyOf(method: string, isBuilt: boolean): string {
  return `${isBuilt} ${method}`;
}

/** Through the medians of each length, by a line: bandwidth changes from minute to minute. */
function exactTimes(points: readonly WorkPoint[]): (length: number) => number {
  const byLength = [...Map.groupBy(points, (point) => point.length)];
  const medians = byLength.map(([length, same]) => ({ length, value: median(same.map((point) => point.exactMs)) }));
  const [first] = medians;
  if (medians.length === 1 && first !== undefined) return () => first.value;
  const { constant, slope } = fitLine(medians);
  return (length) => constant + slope * length;
}

/** Least squares of relative errors, none of the rates below zero. */
function fitRates(points: readonly (WorkPoint & { readonly msPerToken: number })[]): Rates {
  let active = [0, 1, 2];
  for (;;) {
    const rows = points.map(({ rowBytes, readBytes, msPerToken }) => {
      const all = [1, rowBytes, readBytes];
      return active.map((i) => (all[i] as number) / msPerToken);
    });
    const found = solveLeastSquares(rows);
    const worst = found.indexOf(Math.min(...found));
    if ((found[worst] as number) >= 0 || active.length === 1) {
      const rates = [0, 0, 0];
      for (const [i, feature] of active.entries()) rates[feature] = Math.max(0, found[i] as number);
      return rates as unknown as Rates;
    }
    active = active.filter((_, i) => i !== worst);
  }
}

/** x with rows · x nearest to ones; what the rows say nothing about is 0. */
function solveLeastSquares(rows: readonly (readonly number[])[]): number[] {
  const n = (rows[0] as readonly number[]).length;
  const scale = Array.from({ length: n }, (_, j) => Math.hypot(...rows.map((row) => row[j] as number)) || 1);
  const matrix = Array.from({ length: n }, (_, i) =>
    Array.from({ length: n + 1 }, (_, j) => {
      let sum = 0;
      for (const row of rows) {
        sum += (row[i] as number) / (scale[i] as number) * (j === n ? 1 : (row[j] as number) / (scale[j] as number));
      }
      return sum;
    }));
  const isFree = new Array<boolean>(n).fill(true);
  for (let i = 0; i < n; i++) {
    const own = matrix[i] as number[];
    // Columns of the scaled matrix have length 1: what is left of one that others explain is rounding.
    if ((own[i] as number) < 1e-9) {
      isFree[i] = false;
      continue;
    }
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const other = matrix[k] as number[];
      const f = (other[i] as number) / (own[i] as number);
      for (let j = i; j <= n; j++) other[j] = (other[j] as number) - f * (own[j] as number);
    }
  }
  return matrix.map((row, i) => isFree[i] ? (row[n] as number) / (row[i] as number) / (scale[i] as number) : 0);
}

function apply([constant, row, read]: Rates, work: { readonly rowBytes: number; readonly readBytes: number }): number {
  return constant + row * work.rowBytes + read * work.readBytes;
}

/** Between two lengths by the logarithm of the length; beyond them that of the nearest. */
function factorAt(own: readonly Own[], length: number): number {
  const after = own.findIndex((point) => point.length >= length);
  const [a, b] = after <= 0 ? [own.at(after), own.at(after)] : [own[after - 1], own[after]];
  if (a === undefined || b === undefined) throw new RangeError("Cannot tell costs of a method that was not measured");
  if (a === b) return a.factor;
  return a.factor + (b.factor - a.factor) * Math.log(length / a.length) / Math.log(b.length / a.length);
}
