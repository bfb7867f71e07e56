/**
 * What is kept of scored keys, in float64: the best, a sample of a given size, a sample of a given error.
 *
 * @module
 */
import { drawBits } from "./draw.ts";

/** One row of hits. Positions are relative to the first scored key, ascending. */
export interface Kept {
  /** Index among the scored keys. */
  readonly keys: number[];
  /** −ln(inclusion probability) of each. */
  readonly bias: number[];
  /** Estimated relative L2 error of the output; NaN where unknown. */
  readonly error: number;
}

/** The k best of scores [n]; among equals those of lower position. */
export function best(scores: Float64Array, k: number): Kept {
  const { keys } = highest(scores, k);
  return { keys, bias: keys.map(() => 0), error: NaN };
}

/**
 * Priority sampling (Duffield, Lund, Thorup 2007, section 2): the k highest of s − ln u, whose inclusion probability given the
 * next one's priority is min(1, exp(s − next)). `key` and `from` say what is drawn.
 */
export function priority(scores: Float64Array, k: number, key: number, from: number): Kept {
  const priorities = scores.map((s, i) => s - Math.log((drawBits(key, from + i) + 1) * 2 ** -32));
  const { keys, next } = highest(priorities, k);
  return { keys, bias: keys.map((i) => Math.max(0, next - (scores[i] as number))), error: NaN };
}

/**
 * Threshold sampling shared by a group: key i is kept with p = min(1, max over the group's heads of exp(s_i) / (τ·Z)), Z being
 * the sum of exponentials of all keys and of what is attended anyway, and τ = error². scores: one [n] a head; exact: the
 * log-sum-exp of what each head attends anyway.
 */
export function threshold(
  scores: readonly Float64Array[],
  exact: readonly number[],
  error: number,
  key: number,
  from: number,
): Kept {
  const logTau = 2 * Math.log(error);
  const logSums = scores.map((s, g) => logSumExp(s, exact[g] as number));
  const squares = scores.map(() => 0);
  const keys: number[] = [];
  const bias: number[] = [];
  const n = scores[0]?.length ?? 0;
  for (let i = 0; i < n; i++) {
    let logP = -Infinity;
    scores.forEach((s, g) => logP = Math.max(logP, (s[i] as number) - (logSums[g] as number) - logTau));
    const p = error === 0 || logP >= 0 ? 1 : Math.exp(logP);
    if (drawBits(key, from + i) >= p * 2 ** 32) continue;
    keys.push(i);
    bias.push(p === 1 ? 0 : -logP);
    scores.forEach((s, g) => {
      const weight = Math.exp((s[i] as number) - (logSums[g] as number)) / p;
      squares[g] = (squares[g] as number) + (1 - p) * weight * weight;
    });
  }
  return { keys, bias, error: Math.sqrt(Math.max(0, ...squares)) };
}

/** ln(e^exact + Σ e^s) */
function logSumExp(scores: Float64Array, exact: number): number {
  let most = exact;
  for (const s of scores) most = Math.max(most, s);
  if (most === -Infinity) return most;
  let sum = Math.exp(exact - most);
  for (const s of scores) sum += Math.exp(s - most);
  return most + Math.log(sum);
}

/** Indices of the k highest values, of lower index among equals, ascending; and the value of the next one, −∞ without one. */
function highest(values: Float64Array, k: number): { keys: number[]; next: number } {
  const sorted = values.slice().sort();
  const least = sorted[Math.max(0, sorted.length - k)] ?? Infinity;
  const next = sorted[sorted.length - k - 1] ?? -Infinity;
  // As many as are above stay; the rest of the k are the first that equal the least.
  let equal = k;
  for (let i = sorted.length - 1; i >= 0 && (sorted[i] as number) > least; i--) equal--;
  const keys: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const v = values[i] as number;
    if (v > least || (v === least && equal-- > 0)) keys.push(i);
  }
  return { keys, next };
}
