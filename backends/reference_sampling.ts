/**
 * Full-vocabulary work of the reference backend: penalties, drawing, log probabilities, divergence.
 *
 * Drawing, exactly (every backend equals it): temperature 0 takes the largest logit, the lowest id among equals. Else
 * candidate i weighs `exp((logit_i − max) / temperature)`; candidates in falling order of logit, the lower id first
 * among equals; top-k keeps the first k; typical-p (Meister et al. 2023, section 4) then those whose surprise lies nearest to
 * the entropy of what is left, the likelier first among equals, until their sum reaches `typicalP` of all, at least one; top-p then the
 * shortest prefix whose sum reaches `topP` of their sum, at least one; min-p then drops what weighs less than `minP` of the first; the first whose running sum exceeds `uniform` of the
 * sum of what is left is drawn.
 *
 * @module
 */
import type { Penalties, SampleParams } from "./backend.ts";
import type { Tensor } from "../core/tensor.ts";
import { expect, floats, ints, type Resolve } from "./reference_layers.ts";

/** One row of logits [rows, vocab], sharing memory. */
function rowOf(live: Resolve, logits: Tensor, row: number): Float32Array {
  const data = floats(live, logits, "logits");
  const [rows, vocab] = logits.shape as readonly [number, number];
  if (!Number.isInteger(row) || row < 0 || row >= rows) {
    throw new RangeError(`Cannot use logits: row ${row} of ${rows}`);
  }
  return data.subarray(row * vocab, (row + 1) * vocab);
}

function checkId(id: number, vocab: number): void {
  if (id < 0 || id >= vocab) throw new RangeError(`Cannot use token ${id}: logits have ${vocab} entries`);
}

/** See `Kernels.addLogits`. */
export function addLogits(
  live: Resolve,
  logits: Tensor,
  row: number,
  ids: Int32Array,
  values: Float32Array,
): void {
  const data = rowOf(live, logits, row);
  if (ids.length !== values.length) {
    throw new RangeError(`Cannot add to logits: ${ids.length} ids, ${values.length} values`);
  }
  for (const id of ids) checkId(id, data.length);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    data[id] = (data[id] as number) + (values[i] as number);
  }
}

/** See `Kernels.penalize`. */
export function penalize(live: Resolve, logits: Tensor, row: number, penalties: Penalties): void {
  const data = rowOf(live, logits, row);
  const { tokens, counts, repetition, presence, frequency } = penalties;
  if (tokens.length !== counts.length) {
    throw new RangeError(`Cannot penalize: ${tokens.length} tokens, ${counts.length} counts`);
  }
  for (const id of tokens) checkId(id, data.length);
  for (let i = 0; i < tokens.length; i++) {
    const id = tokens[i] as number;
    const logit = data[id] as number;
    const scaled = logit > 0 ? logit / repetition : logit * repetition;
    data[id] = scaled - presence - (counts[i] as number) * frequency;
  }
}

/** See `Kernels.sample`. */
export function sample(live: Resolve, out: Tensor, logits: Tensor, params: readonly SampleParams[]): void {
  const to = ints(live, out, "sample out");
  const [rows] = logits.shape as readonly [number, number];
  expect(out, [rows], "sample out");
  if (params.length !== rows) throw new RangeError(`Cannot sample: ${rows} rows, ${params.length} parameters`);
  for (let i = 0; i < rows; i++) {
    to[i] = draw(rowOf(live, logits, i), params[i] as SampleParams, i);
  }
}

function draw(logits: Float32Array, p: SampleParams, row: number): number {
  checkParams(p);
  const { best, max } = largest(logits, row);
  if (p.temperature === 0) return best;
  // Equal to the largest weighs 1 even where both are infinite and their difference is not a number.
  const weigh = (logit: number) => logit === max ? 1 : Math.exp((logit - max) / p.temperature);
  let kept = ranked(logits, p.topK);
  let weights = Float64Array.from(kept, (id) => weigh(logits[id] as number));
  if (p.typicalP < 1) {
    const ranks = typical(weights, p.typicalP);
    kept = ranks.map((rank) => kept[rank] as number);
    weights = Float64Array.from(ranks, (rank) => weights[rank] as number);
  }
  if (p.topP < 1) kept = kept.subarray(0, prefix(weights, p.topP));
  let end = kept.length;
  while (end > 1 && (weights[end - 1] as number) < p.minP * (weights[0] as number)) end--;
  let total = 0;
  for (let i = 0; i < end; i++) total += weights[i] as number;
  let sum = 0;
  for (let i = 0; i < end; i++) {
    sum += weights[i] as number;
    if (sum > p.uniform * total) return kept[i] as number;
  }
  return kept[end - 1] as number;
}

function checkParams(p: SampleParams): void {
  const checks: [string, number, boolean][] = [
    ["temperature", p.temperature, p.temperature >= 0 && p.temperature < Infinity],
    ["top-k", p.topK, Number.isInteger(p.topK) && p.topK >= 0],
    ["typical-p", p.typicalP, p.typicalP >= 0 && p.typicalP <= 1],
    ["top-p", p.topP, p.topP >= 0 && p.topP <= 1],
    ["min-p", p.minP, p.minP >= 0 && p.minP <= 1],
    ["uniform", p.uniform, p.uniform >= 0 && p.uniform < 1],
  ];
  for (const [name, value, ok] of checks) {
    if (!ok) throw new RangeError(`Cannot sample: ${name} is ${value}`);
  }
}

function largest(logits: Float32Array, row: number): { best: number; max: number } {
  if (logits.length === 0) throw new RangeError("Cannot sample: the vocabulary is empty");
  let best = 0;
  let max = logits[0] as number;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i] as number;
    if (logit !== logit) throw new RangeError(`Cannot sample: logits hold NaN in row ${row}`);
    if (logit > max) {
      max = logit;
      best = i;
    }
  }
  return { best, max };
}

/** Ids in falling order of logit, lower ids first among equals; all, or the first `k` when it is not 0. */
function ranked(logits: Float32Array, k: number): Uint32Array {
  const order = (a: number, b: number) => {
    const x = logits[a] as number;
    const y = logits[b] as number;
    return x === y ? a - b : x > y ? -1 : 1;
  };
  if (k === 0 || k >= logits.length / 8) {
    const ids = Uint32Array.from(logits, (_, i) => i).sort(order);
    return k === 0 ? ids : ids.subarray(0, k);
  }
  // Keep the best k seen so far in order; most ids lose against the last of them.
  const best = new Uint32Array(k);
  let held = 0;
  for (let id = 0; id < logits.length; id++) {
    if (held === k && order(id, best[k - 1] as number) > 0) continue;
    let at = held < k ? held++ : k - 1;
    for (; at > 0 && order(id, best[at - 1] as number) < 0; at--) best[at] = best[at - 1] as number;
    best[at] = id;
  }
  return best;
}

/** Ranks of the candidates that typical-p keeps, in rising order. */
function typical(weights: Float64Array, share: number): Uint32Array {
  let total = 0;
  for (const w of weights) total += w;
  let entropy = 0;
  for (const w of weights) if (w > 0) entropy += w / total * (Math.log(total) - Math.log(w));
  const distances = weights.map((w) => Math.abs(Math.log(total) - Math.log(w) - entropy));
  const order = Uint32Array.from(weights, (_, i) => i).sort((a, b) => {
    const [x, y] = [distances[a] as number, distances[b] as number];
    return x === y ? a - b : x - y;
  });
  let sum = 0;
  let end = 0;
  while (end < order.length && (end === 0 || sum < share * total)) sum += weights[order[end++] as number] as number;
  return order.slice(0, end).sort();
}

/** Length of the shortest prefix whose sum is at least `share` of the whole; at least 1. */
function prefix(weights: Float64Array, share: number): number {
  let total = 0;
  for (const w of weights) total += w;
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i] as number;
    if (sum >= share * total) return i + 1;
  }
  return weights.length;
}

/** log Σ exp(logit) of one row. */
function logSumExp(row: Float32Array): number {
  let max = -Infinity;
  for (const x of row) if (x > max) max = x;
  if (!Number.isFinite(max)) return max;
  let sum = 0;
  for (const x of row) sum += Math.exp(x - max);
  return max + Math.log(sum);
}

/** See `Kernels.tokenLogprobs`. */
export function tokenLogprobs(live: Resolve, out: Tensor, logits: Tensor, tokens: Tensor): void {
  const to = floats(live, out, "tokenLogprobs out");
  const ids = ints(live, tokens, "tokenLogprobs tokens");
  const [rows, vocab] = logits.shape as readonly [number, number];
  expect(out, [rows], "tokenLogprobs out");
  expect(tokens, [rows], "tokenLogprobs tokens");
  for (const id of ids) checkId(id, vocab);
  for (let i = 0; i < rows; i++) {
    const row = rowOf(live, logits, i);
    to[i] = (row[ids[i] as number] as number) - logSumExp(row);
  }
}

/** See `Kernels.topLogprobs`. */
export function topLogprobs(live: Resolve, ids: Tensor, logprobs: Tensor, logits: Tensor): void {
  const tokens = ints(live, ids, "topLogprobs ids");
  const values = floats(live, logprobs, "topLogprobs logprobs");
  const [rows, vocab] = logits.shape as readonly [number, number];
  const k = ids.shape[1] as number;
  expect(ids, [rows, k], "topLogprobs ids");
  expect(logprobs, [rows, k], "topLogprobs logprobs");
  if (k > vocab) throw new RangeError(`Cannot take the ${k} best: logits have ${vocab} entries`);
  if (k === 0) return;
  for (let i = 0; i < rows; i++) {
    const row = rowOf(live, logits, i);
    largest(row, i);
    const sum = logSumExp(row);
    const best = ranked(row, k);
    for (let j = 0; j < k; j++) {
      tokens[i * k + j] = best[j] as number;
      values[i * k + j] = (row[best[j] as number] as number) - sum;
    }
  }
}

/** See `Kernels.klDivergence`. */
export function klDivergence(live: Resolve, out: Tensor, base: Tensor, logits: Tensor): void {
  const to = floats(live, out, "klDivergence out");
  const [rows] = logits.shape as readonly [number, number];
  expect(base, logits.shape, "klDivergence base");
  expect(out, [rows], "klDivergence out");
  for (let i = 0; i < rows; i++) {
    const p = rowOf(live, base, i);
    const q = rowOf(live, logits, i);
    const lp = logSumExp(p);
    const lq = logSumExp(q);
    let sum = 0;
    for (let j = 0; j < p.length; j++) {
      const logp = (p[j] as number) - lp;
      const weight = Math.exp(logp);
      if (weight > 0) sum += weight * (logp - ((q[j] as number) - lq));
    }
    to[i] = sum;
  }
}
