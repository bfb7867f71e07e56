/**
 * Prompt sinks of the reference backend: what sampled queries of a prompt look at.
 *
 * @module
 */
import type { PromptSink } from "../attention/policy.ts";
import { expect, floats, ints, type Resolve } from "./reference_layers.ts";

/** A sink during one call of `attendCausal`: queries at positions `[position, position + n)`, keys from `start` to before `end`. */
export class SinkNotes {
  readonly #sink: PromptSink;
  readonly #start: number;
  readonly #position: number;
  readonly #heads: number;
  readonly #topk: number;
  readonly #tokens: Int32Array | undefined;
  readonly #scores: Float32Array | undefined;
  readonly #sums: Float32Array | undefined;
  readonly #stride: number;

  constructor(live: Resolve, sink: PromptSink, start: number, position: number, n: number, heads: number, end: number) {
    const { every, tokens, scores, columnSums } = sink;
    if (!Number.isInteger(every) || every < 1) {
      throw new RangeError(`Cannot fill prompt sink: every ${every}-th query, expected a whole number from 1 on`);
    }
    if (tokens === undefined && scores !== undefined) {
      throw new RangeError("Cannot fill prompt sink: scores of best keys without the keys");
    }
    this.#sink = sink;
    this.#start = start;
    this.#position = position;
    this.#heads = heads;
    this.#topk = tokens?.shape[2] ?? 0;
    const queries = Math.ceil((position + n) / every) - Math.ceil(position / every);
    if (tokens !== undefined) {
      expect(tokens, [queries, heads, this.#topk], "sink tokens");
      this.#tokens = ints(live, tokens, "sink tokens");
    }
    if (scores !== undefined) {
      expect(scores, [queries, heads, this.#topk], "sink scores");
      this.#scores = floats(live, scores, "sink scores");
    }
    this.#stride = columnSums?.shape[1] ?? 0;
    if (columnSums !== undefined) {
      expect(columnSums, [heads, Math.max(this.#stride, end)], "sink column sums");
      this.#sums = floats(live, columnSums, "sink column sums");
    }
  }

  /** Query `i` of `head` has logits at `[begin, end)`, number `t` of which belongs to position `start + first + t`. */
  note(i: number, head: number, logits: Float64Array, begin: number, end: number, first: number, lse: number): void {
    const { every } = this.#sink;
    const position = this.#position + i;
    if (position % every !== 0) return;
    const from = this.#start + first;
    if (this.#sums !== undefined) {
      for (let t = begin; t < end; t++) {
        const at = head * this.#stride + from + t;
        this.#sums[at] = (this.#sums[at] as number) + Math.exp((logits[t] as number) - lse);
      }
    }
    if (this.#tokens === undefined) return;
    const query = position / every - Math.ceil(this.#position / every);
    const to = (query * this.#heads + head) * this.#topk;
    const best = Array.from({ length: end - begin }, (_, j) => begin + j)
      .sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
    for (let j = 0; j < this.#topk; j++) {
      const t = best[j];
      this.#tokens[to + j] = t === undefined ? -1 : from + t;
      if (this.#scores !== undefined) this.#scores[to + j] = t === undefined ? -Infinity : logits[t] as number;
    }
  }
}
