/**
 * Decode attention of the reference backend in parts: spans and retrieved tokens, merged by log-sum-exp.
 *
 * @module
 */
import type { AttentionPart } from "./backend.ts";
import type { Hits } from "../index/index.ts";
import type { Spans } from "../attention/policy.ts";
import type { KvLayer } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import { gather } from "./reference_attention.ts";
import { dot, expect, floats, ints, type Resolve } from "./reference_layers.ts";

/** Sums of e^logit and of e^logit · value, with a running maximum (Milakov & Gimelshein 2018, algorithm 3). */
class Softmax {
  readonly #values: Float64Array;
  #best = -Infinity;
  #total = 0;

  constructor(headDim: number) {
    this.#values = new Float64Array(headDim);
  }

  /** One more term: `weight` · values[at …]. */
  add(logit: number, values: Float32Array, at: number, weight = 1): void {
    if (logit > this.#best) {
      const shrink = Math.exp(this.#best - logit);
      this.#total *= shrink;
      for (let j = 0; j < this.#values.length; j++) this.#values[j] = (this.#values[j] as number) * shrink;
      this.#best = logit;
    }
    const w = Math.exp(logit - this.#best);
    this.#total += w;
    for (let j = 0; j < this.#values.length; j++) {
      this.#values[j] = (this.#values[j] as number) + w * weight * (values[at + j] as number);
    }
  }

  /** Writes the mean, returns the log of the sum; nothing at all is 0 and −∞. */
  write(to: Float32Array, at: number): number {
    for (let j = 0; j < this.#values.length; j++) {
      to[at + j] = this.#total === 0 ? 0 : (this.#values[j] as number) / this.#total;
    }
    return this.#best + Math.log(this.#total);
  }
}

/** What both kernels resolve first. */
function open(live: Resolve, out: AttentionPart, q: Tensor, kv: KvLayer, what: string) {
  const [n, heads, headDim] = q.shape as readonly [number, number, number];
  const { kvHeads, scale, softcap } = kv.shape;
  if (q.shape.length !== 3 || heads % kvHeads !== 0 || headDim !== kv.shape.headDim) {
    throw new RangeError(`Cannot attend: queries [${q.shape.join(", ")}] do not fit ${kvHeads} heads of ${headDim}`);
  }
  expect(out.o, q.shape, `${what} o`);
  expect(out.lse, [n, heads], `${what} lse`);
  const length = kv.segments.reduce((sum, s) => sum + s.count, 0);
  if (length !== kv.length) throw new RangeError(`Cannot attend: length ${kv.length}, segments of ${length}`);
  const queries = floats(live, q, `${what} q`);
  const begin = kv.segments[0]?.start ?? 0;
  return {
    n,
    heads,
    headDim,
    group: heads / kvHeads,
    begin,
    end: begin + length,
    o: floats(live, out.o, `${what} o`),
    lse: floats(live, out.lse, `${what} lse`),
    /** Logit of query row `row` with keys[at …]. */
    logit(row: number, keys: Float32Array, at: number): number {
      const logit = scale * dot(queries, row * headDim, keys, at, headDim);
      return softcap === undefined ? logit : softcap * Math.tanh(logit / softcap);
    },
    /** All rows of one head: [length, headDim]. */
    rows(head: number, which: "keys" | "values"): Float32Array {
      const rows = new Float32Array(length * headDim);
      gather(live, rows, kv, 0, head, headDim, which);
      return rows;
    },
  };
}

/** See `Kernels.attendWindow`. */
export function attendWindow(live: Resolve, out: AttentionPart, q: Tensor, kv: KvLayer, spans: Spans): void {
  const { n, heads, headDim, group, begin, end, o, lse, logit, rows } = open(live, out, q, kv, "attendWindow");
  if (spans.length % 2 !== 0) throw new RangeError(`Cannot attend: spans of ${spans.length} numbers, expected pairs`);
  for (let i = 0, least = begin; i < spans.length; i += 2) {
    const [from, to] = [spans[i] as number, spans[i + 1] as number];
    if (from < least || to < from || to > end) {
      throw new RangeError(
        `Cannot attend: span ${i / 2} is ${from} to ${to}, expected ascending positions in ${least} to ${end}`,
      );
    }
    least = to;
  }
  for (let head = 0; head < kv.shape.kvHeads; head++) {
    const [keys, values] = [rows(head, "keys"), rows(head, "values")];
    for (let i = 0; i < n * group; i++) {
      const row = Math.floor(i / group) * heads + head * group + i % group;
      const softmax = new Softmax(headDim);
      for (let s = 0; s < spans.length; s += 2) {
        for (let p = spans[s] as number; p < (spans[s + 1] as number); p++) {
          const at = (p - begin) * headDim;
          softmax.add(logit(row, keys, at), values, at);
        }
      }
      lse[row] = softmax.write(o, row * headDim);
    }
  }
}

/** See `Kernels.attendTopk`. */
export function attendTopk(live: Resolve, out: AttentionPart, q: Tensor, kv: KvLayer, hits: Hits): void {
  const { n, heads, headDim, group, begin, end, o, lse, logit, rows } = open(live, out, q, kv, "attendTopk");
  if (n !== 1) throw new RangeError(`Cannot attend to hits: ${n} queries, expected 1`);
  const { kvHeads } = kv.shape;
  const lists = listsOf(live, hits.tokens, hits.counts, heads, kvHeads, "hits");
  if (hits.bias !== undefined) expect(hits.bias, hits.tokens.shape, "attendTopk bias");
  const bias = hits.bias === undefined ? undefined : floats(live, hits.bias, "attendTopk bias");
  for (let head = 0; head < kvHeads; head++) {
    const [keys, values] = [rows(head, "keys"), rows(head, "values")];
    for (let h = head * group; h < (head + 1) * group; h++) {
      const softmax = new Softmax(headDim);
      const list = lists(h);
      for (let i = list.from; i < list.to; i++) {
        const token = list.ids[i] as number;
        if (token < begin || token >= end) {
          throw new RangeError(`Cannot attend: a hit is position ${token}, the cache holds ${begin} to ${end}`);
        }
        const b = bias === undefined ? 0 : bias[i] as number;
        if (!Number.isFinite(b)) throw new RangeError(`Cannot attend: the bias of position ${token} is ${b}`);
        const at = (token - begin) * headDim;
        softmax.add(logit(h, keys, at) + b, values, at);
      }
      lse[h] = softmax.write(o, h * headDim);
    }
  }
}

/** Rows of ids: those of a query head, or of its KV head. */
function listsOf(live: Resolve, tokens: Tensor, counts: Tensor, heads: number, kvHeads: number, what: string) {
  const [rows = 0, capacity = 0] = tokens.shape;
  if (tokens.shape.length !== 2 || (rows !== heads && rows !== kvHeads)) {
    throw new RangeError(
      `Cannot use ${what}: shape [${tokens.shape.join(", ")}], expected [${kvHeads} or ${heads}, capacity]`,
    );
  }
  expect(counts, [rows], `${what} counts`);
  const ids = ints(live, tokens, what);
  const filled = ints(live, counts, `${what} counts`);
  return (head: number) => {
    const row = Math.floor(head / (heads / rows));
    const count = filled[row] as number;
    if (count < 0 || count > capacity) {
      throw new RangeError(`Cannot attend: row ${row} has ${count} ${what}, its capacity is ${capacity}`);
    }
    return { ids, from: row * capacity, to: row * capacity + count };
  };
}

/** See `Kernels.merge`, and with `lse` `Kernels.mergeParts`. */
export function merge(live: Resolve, out: Tensor, parts: readonly AttentionPart[], lse?: Tensor): void {
  const [n = 0, heads = 0, headDim = 0] = out.shape;
  if (out.shape.length !== 3 || parts.length === 0) {
    throw new RangeError(`Cannot merge: ${parts.length} parts to [${out.shape.join(", ")}]`);
  }
  const to = floats(live, out, "merge out");
  if (lse !== undefined) expect(lse, [n, heads], "merged lse");
  const sums = lse === undefined ? undefined : floats(live, lse, "merged lse");
  const from = parts.map(({ o, lse }) => {
    expect(o, out.shape, "merge o");
    expect(lse, [n, heads], "merge lse");
    return { o: floats(live, o, "merge o"), lse: floats(live, lse, "merge lse") };
  });
  const mean = new Float64Array(headDim);
  for (let row = 0; row < n * heads; row++) {
    const best = from.reduce((most, { lse }) => Math.max(most, lse[row] as number), -Infinity);
    let total = 0;
    mean.fill(0);
    for (const { o, lse } of from) {
      // Parts may all be empty.
      const w = best === -Infinity ? 0 : Math.exp((lse[row] as number) - best);
      if (w === 0) continue;
      total += w;
      for (let j = 0; j < headDim; j++) mean[j] = (mean[j] as number) + w * (o[row * headDim + j] as number);
    }
    for (let j = 0; j < headDim; j++) to[row * headDim + j] = total === 0 ? 0 : (mean[j] as number) / total;
    if (sums !== undefined) sums[row] = best + Math.log(total);
  }
}
