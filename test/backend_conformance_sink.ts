/**
 * Conformance: what a prompt's sampled queries look at.
 *
 * @module
 */
import type { PromptSink } from "../attention/policy.ts";
import type { KvLayer } from "../core/kv.ts";
import { type Bench, type Case, check, same } from "./backend_conformance.ts";
import { KV_TYPES, type KvType, randomCache, segmentOf } from "./backend_conformance_attention.ts";
import { Random } from "./backend_conformance_twin.ts";

interface Problem {
  readonly n: number;
  readonly length: number;
  readonly every: number;
  readonly k?: number;
  readonly kvHeads?: number;
  readonly group?: number;
  readonly headDim?: number;
  readonly window?: number;
  readonly softcap?: number;
  readonly cuts?: readonly number[];
  readonly start?: number;
}

interface Asked {
  readonly kv: KvLayer;
  readonly q: Float32Array<ArrayBuffer>;
  /** Logits of query i and head h, by position in the cache; NaN where a key is not seen. */
  readonly logits: (i: number, h: number) => Float64Array;
}

function ask(at: Bench, type: KvType, p: Problem): Asked {
  const { n, length, kvHeads = 2, group = 3, headDim = 64, window = 0, softcap = 0, cuts = [], start = 0 } = p;
  const heads = kvHeads * group;
  const keys = randomCache(7, type, kvHeads, length, headDim);
  const values = randomCache(8, type, kvHeads, length, headDim);
  const q = new Random(9).floats(n * heads * headDim, 2);
  const scale = 1 / Math.sqrt(headDim);
  const bounds = [0, ...cuts, length];
  const segments = bounds.slice(1).map((to, i) => {
    const from = bounds[i] as number;
    return segmentOf(at, type, keys, values, kvHeads, length, headDim, from, to, i % 2, start + from);
  });
  const shape = {
    heads,
    kvHeads,
    headDim,
    scale,
    ...(window > 0 ? { slidingWindow: window } : {}),
    ...(softcap > 0 ? { softcap } : {}),
  };
  const logits = (i: number, h: number) => {
    const position = length - n + i;
    return Float64Array.from({ length }, (_, t) => {
      if (t > position || (window > 0 && t <= position - window)) return NaN;
      let dot = 0;
      const row = (Math.floor(h / group) * length + t) * headDim;
      for (let j = 0; j < headDim; j++) {
        dot += (q[(i * heads + h) * headDim + j] as number) * (keys.values[row + j] as number);
      }
      return softcap > 0 ? softcap * Math.tanh(dot * scale / softcap) : dot * scale;
    });
  };
  return { kv: { shape, length, segments }, q, logits };
}

/** Best keys, scores and sums against their definition, and the output against that without a sink. */
function fill(at: Bench, type: KvType, p: Problem): void {
  const { n, length, every, k = 5, start = 0 } = p;
  const { kv, q, logits } = ask(at, type, p);
  const { heads, headDim } = kv.shape;
  const shape = [n, heads, headDim];
  const what = JSON.stringify({ type, ...p });
  const sampled = Array.from({ length: n }, (_, i) => i).filter((i) => (start + length - n + i) % every === 0);
  const tokens = at.tensor([sampled.length, heads, k], "i32", undefined, "sequence");
  const scores = at.floats([sampled.length, heads, k]);
  const capacity = start + length + 3;
  const before = new Random(10).floats(heads * capacity);
  const sums = at.floats([heads, capacity], before);
  const [plain, out] = [at.floats(shape), at.floats(shape)];
  at.backend.kernels.attendCausal(plain, at.floats(shape, q), kv);
  at.backend.kernels.attendCausal(out, at.floats(shape, q), kv, { every, tokens, scores, columnSums: sums });
  same(at.read(out), at.read(plain), `${what}: output`);
  const [gotTokens, gotScores, gotSums] = [at.read(tokens), at.read(scores), at.read(sums)];
  // Without sums a backend may find best keys in another way.
  const alone = {
    tokens: at.tensor([sampled.length, heads, k], "i32", undefined, "sequence"),
    scores: at.floats([sampled.length, heads, k]),
  };
  at.backend.kernels.attendCausal(out, at.floats(shape, q), kv, { every, ...alone });
  same(at.read(out), at.read(plain), `${what}: output beside best keys`);
  const ways = [[gotTokens, gotScores], [at.read(alone.tokens), at.read(alone.scores)]] as const;
  const wantSums = Float64Array.from(before);
  for (const [s, i] of sampled.entries()) {
    for (let h = 0; h < heads; h++) {
      const all = logits(i, h);
      const seen = [...all.keys()].filter((t) => !Number.isNaN(all[t]));
      const largest = Math.max(...seen.map((t) => all[t] as number));
      const total = seen.reduce((sum, t) => sum + Math.exp((all[t] as number) - largest), 0);
      for (const t of seen) {
        const to = h * capacity + start + t;
        wantSums[to] = (wantSums[to] as number) + Math.exp((all[t] as number) - largest) / total;
      }
      const best = seen.map((t) => all[t] as number).sort((a, b) => b - a);
      for (const [tokensOf, scoresOf] of ways) {
        const found = new Set<number>();
        for (let j = 0; j < k; j++) {
          const [token, score] = [
            tokensOf[(s * heads + h) * k + j] as number,
            scoresOf[(s * heads + h) * k + j] as number,
          ];
          if (j >= seen.length) {
            check(token === -1 && score === -Infinity, `${what}: key ${j} of ${seen.length} is ${token} with ${score}`);
            continue;
          }
          // The token's own score is right, and no better one is left out: keys closer than rounding may change places.
          const mine = all[token - start];
          check(
            mine !== undefined && Math.abs(mine - score) <= 1e-5 * (1 + Math.abs(score)),
            `${what}: token ${token} scores ${score}, truth ${mine}`,
          );
          check(
            Math.abs(score - (best[j] as number)) <= 1e-5 * (1 + Math.abs(score)),
            `${what}: score ${j} is ${score}, truth ${best[j]}`,
          );
          found.add(token);
        }
        check(found.size === Math.min(k, seen.length), `${what}: ${found.size} different keys of ${k}`);
      }
    }
  }
  for (const [i, want] of wantSums.entries()) {
    const got = gotSums[i] as number;
    check(Math.abs(got - want) <= 2e-5 * (1 + sampled.length), `${what}: sum ${i} is ${got}, truth ${want}`);
  }
}

export const sinkCases: readonly Case[] = [
  ...KV_TYPES.flatMap((type): Case[] => [
    {
      name: `attendCausal with a sink: ${type}, lengths, groups, head dimensions`,
      run(at) {
        for (const group of [1, 3, 4, 8]) fill(at, type, { n: 21, length: 97, every: 4, group, kvHeads: 1 });
        for (const [n, length] of [[1, 1], [3, 3], [97, 97], [33, 200], [129, 300]] as const) {
          fill(at, type, { n, length, every: 8, k: 100, group: 2, kvHeads: 1 });
        }
        for (const headDim of [8, 33, 80, 96, 128]) {
          fill(at, type, { n: 17, length: 65, every: 3, headDim, kvHeads: 1, group: 2 });
        }
      },
    },
    {
      name: `attendCausal with a sink: ${type}, windows, soft caps, segments, every query`,
      run(at) {
        for (const window of [1, 9, 70]) fill(at, type, { n: 40, length: 129, every: 5, window, kvHeads: 1 });
        fill(at, type, { n: 40, length: 40, every: 1, softcap: 5, kvHeads: 1 });
        fill(at, type, { n: 60, length: 97, every: 7, cuts: [1, 33, 64, 96] });
        fill(at, type, { n: 30, length: 40, every: 6, cuts: [16], start: 1000, window: 20, kvHeads: 1 });
      },
    },
  ]),
  {
    name: "attendCausal with a sink: chunks of a prompt add up to the whole",
    run(at) {
      const { kv, q } = ask(at, "f16", { n: 90, length: 90, every: 4 });
      const { heads, headDim } = kv.shape;
      const segment = kv.segments[0] as KvLayer["segments"][number];
      const run = (cuts: readonly number[]) => {
        const columnSums = at.floats([heads, 90], new Float32Array(heads * 90));
        const found: number[] = [];
        for (const [i, to] of cuts.slice(1).entries()) {
          const from = cuts[i] as number;
          const shape = [to - from, heads, headDim];
          const queries = Math.ceil(to / 4) - Math.ceil(from / 4);
          const tokens = at.tensor([queries, heads, 3], "i32", undefined, "sequence");
          const part = { shape: kv.shape, length: to, segments: [{ ...segment, count: to }] };
          const rows = at.floats(shape, q.slice(from * heads * headDim, to * heads * headDim));
          at.backend.kernels.attendCausal(at.floats(shape), rows, part, { every: 4, tokens, columnSums });
          found.push(...at.read(tokens));
        }
        return { found, sums: at.read(columnSums) };
      };
      const [whole, chunks] = [run([0, 90]), run([0, 1, 33, 34, 90])];
      same(Int32Array.from(chunks.found), Int32Array.from(whole.found), "best keys");
      for (const [i, want] of whole.sums.entries()) {
        check(
          Math.abs((chunks.sums[i] as number) - want) <= 1e-5 * (1 + want),
          `sum ${i} is ${chunks.sums[i]}, whole ${want}`,
        );
      }
    },
  },
  {
    name: "attendCausal with a sink: what does not fit is refused",
    run(at) {
      const { kv, q } = ask(at, "f16", { n: 10, length: 20, every: 4 });
      const { heads, headDim } = kv.shape;
      const shape = [10, heads, headDim];
      const run = (sink: PromptSink) =>
        at.backend.kernels.attendCausal(at.floats(shape), at.floats(shape, q), kv, sink);
      const ids = (queries: number, k: number) => at.tensor([queries, heads, k], "i32", undefined, "sequence");
      run({ every: 4, tokens: ids(2, 3) });
      run({ every: 64, tokens: ids(0, 3) });
      for (const every of [0, -1, 0.5, NaN, 2 ** 31]) at.throws(() => run({ every, tokens: ids(2, 3) }), "");
      at.throws(() => run({ every: 4, tokens: ids(3, 3) }), "");
      at.throws(() => run({ every: 4, scores: at.floats([2, heads, 3]) }), "");
      at.throws(() => run({ every: 4, tokens: ids(2, 3), scores: at.floats([2, heads, 4]) }), "");
      at.throws(() => run({ every: 4, tokens: at.floats([2, heads, 3]) }), "");
      at.throws(() => run({ every: 4, columnSums: at.floats([heads, 19]) }), "");
      at.throws(() => run({ every: 4, columnSums: at.floats([heads + 1, 20]) }), "");
    },
  },
];
