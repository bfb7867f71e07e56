/**
 * Conformance: full-vocabulary work.
 *
 * @module
 */
import type { SampleParams } from "../backends/backend.ts";
import { NativeError } from "../core/errors.ts";
import { type Bench, type Case, check, once, same } from "./backend_conformance.ts";
import * as twin from "./backend_conformance_twin.ts";

const { exact, Random, single } = twin;

const GREEDY: SampleParams = { temperature: 0, topK: 0, typicalP: 1, topP: 1, minP: 0, uniform: 0 };
const VOCABS = [1, 3, 97, 129, 4099];

/** Logits as models give them: a bell, a few peaks, a few exact ties. */
function logitsOf(vocab: number, seed: number): Float32Array<ArrayBuffer> {
  const random = new Random(seed);
  const row = random.floats(vocab, 2);
  for (let i = 0; i < vocab / 16; i++) row[random.int(vocab)] = row[random.int(vocab)] as number;
  for (let i = 0; i < 3; i++) row[random.int(vocab)] = 6 + random.bell();
  return row;
}

/** The definition, slowly; undefined when the draw falls so near a border that rounding may decide. */
function draw(row: Float32Array, p: SampleParams): number | undefined {
  const order = Array.from(row, (_, i) => i).sort((a, b) => (row[b] as number) - (row[a] as number) || a - b);
  if (p.temperature === 0) return order[0] as number;
  const max = row[order[0] as number] as number;
  const weight = (id: number) => Math.exp(((row[id] as number) - max) / p.temperature);
  const sum = (ids: readonly number[]) => ids.reduce((s, id) => s + weight(id), 0);
  let near = false;
  const reaches = (a: number, b: number) => {
    if (Math.abs(a - b) < 1e-9 * Math.abs(b)) near = true;
    return a >= b;
  };
  let kept = p.topK > 0 ? order.slice(0, p.topK) : order;
  if (p.typicalP < 1) {
    const all = sum(kept);
    const surprise = new Map(kept.map((id) => [id, -Math.log(weight(id) / all)]));
    const of = (id: number) => surprise.get(id) as number;
    const entropy = kept.reduce((h, id) => weight(id) > 0 ? h + weight(id) / all * of(id) : h, 0);
    const distance = (id: number) => Math.abs(of(id) - entropy);
    const typical = [...kept].sort((a, b) => distance(a) - distance(b) || kept.indexOf(a) - kept.indexOf(b));
    let part = 0;
    const end = typical.findIndex((id) => reaches(part += weight(id), p.typicalP * all));
    const [last, next] = [typical[end], typical[end + 1]].map((id) => id === undefined ? Infinity : distance(id));
    if (
      Math.abs((last as number) - (next as number)) < 1e-9 &&
      row[typical[end] as number] !== row[typical[end + 1] as number]
    ) near = true;
    const chosen = new Set(typical.slice(0, end + 1));
    kept = kept.filter((id) => chosen.has(id));
  }
  if (p.topP < 1) {
    const all = sum(kept);
    let part = 0;
    const end = kept.findIndex((id) => reaches(part += weight(id), p.topP * all));
    kept = kept.slice(0, end + 1);
  }
  const first = weight(kept[0] as number);
  kept = kept.filter((id) => reaches(weight(id), p.minP * first));
  const all = sum(kept);
  let part = 0;
  const chosen = kept.find((id) => reaches(part += weight(id), p.uniform * all));
  return near ? undefined : chosen ?? kept.at(-1);
}

function sample(at: Bench, rows: readonly Float32Array[], params: readonly SampleParams[]): Int32Array {
  const vocab = (rows[0] as Float32Array).length;
  const flat = new Float32Array(rows.length * vocab);
  rows.forEach((row, i) => flat.set(row, i * vocab));
  const out = at.ints([rows.length]);
  at.backend.kernels.sample(out, at.floats([rows.length, vocab], flat), params);
  return at.read(out) as Int32Array;
}

/** Row by row, log-softmax. */
function logprobs(flat: Float32Array, vocab: number, r: twin.Rounding): Float64Array {
  const out = new Float64Array(flat.length);
  for (let o = 0; o < flat.length; o += vocab) out.set(twin.logSoftmax(flat.subarray(o, o + vocab), r), o);
  return out;
}

/** Draws with each of `grid` from vocabularies of all sizes are the definition's; at least `least` of them must be clear. */
function draws(at: Bench, grid: readonly Partial<SampleParams>[], least: number): void {
  let compared = 0;
  for (const vocab of VOCABS) {
    for (let g = 0; g < grid.length; g++) {
      const uniforms = [0, 0.1, 0.5, 0.9, 0.999999];
      const rows = uniforms.map((_, i) => logitsOf(vocab, 10 * g + i));
      const params = uniforms.map((uniform) => ({ ...GREEDY, temperature: 1, ...grid[g], uniform }));
      const want = once(
        `draws ${vocab} ${JSON.stringify(grid[g])}`,
        () => rows.map((row, i) => draw(row, params[i] as SampleParams)),
      );
      const got = sample(at, rows, params);
      for (let i = 0; i < want.length; i++) {
        if (want[i] === undefined) continue;
        compared++;
        check(got[i] === want[i], `${JSON.stringify(params[i])} of ${vocab}: drew ${got[i]}, expected ${want[i]}`);
      }
    }
  }
  check(compared > least, `only ${compared} draws were clear`);
}

export const samplingCases: readonly Case[] = [
  {
    name: "sample: greedy takes the best, the lowest id among equals",
    run(at) {
      for (const vocab of VOCABS) {
        const rows = [1, 2, 3].map((seed) => logitsOf(vocab, seed));
        same(
          sample(at, rows, rows.map(() => GREEDY)),
          rows.map((row) => draw(row, GREEDY) as number),
          `vocab ${vocab}`,
        );
        const ties = new Float32Array(vocab).fill(-3);
        same(sample(at, [ties], [GREEDY]), [0], "all equal");
        if (vocab > 90) ties[80] = ties[17] = ties[90] = 1;
        same(sample(at, [ties], [GREEDY]), [vocab > 90 ? 17 : 0], "three equal");
      }
    },
  },
  {
    name: "sample: filters and draws follow the definition",
    run(at) {
      draws(at, [
        {},
        { temperature: 0.3 },
        { temperature: 3 },
        { topK: 1 },
        { topK: 5 },
        { topK: 1_000_000 },
        { topP: 0.5 },
        { topP: 0.95 },
        { topP: 0 },
        { minP: 0.1 },
        { minP: 1 },
        { topK: 40, topP: 0.9, minP: 0.05, temperature: 0.8 },
        { topK: 3, topP: 0.99 },
        { topP: 0.7, minP: 0.3, temperature: 1.7 },
      ], 250);
    },
  },
  {
    name: "sample: typical-p follows the definition",
    run(at) {
      draws(at, [
        { typicalP: 0.5 },
        { typicalP: 0 },
        { typicalP: 0.95, temperature: 2 },
        { typicalP: 0.9, topK: 40, topP: 0.9, minP: 0.2 },
        { typicalP: 0.3, minP: 0.9 },
      ], 90);
    },
  },
  {
    name: "sample: draws from a large vocabulary",
    run(at) {
      const vocab = 50_021;
      const row = once("large row", () => logitsOf(vocab, 77));
      const params = [
        { temperature: 1, uniform: 0.7 },
        { temperature: 5, uniform: 0.31 },
        { temperature: 2, topP: 0.9, uniform: 0.83 },
        { temperature: 1, topK: 40, topP: 0.95, uniform: 0.5 },
        { temperature: 1.5, topK: 20_000, uniform: 0.97 },
        { temperature: 2, minP: 0.02, uniform: 0.6 },
      ].map((p) => ({ ...GREEDY, ...p }));
      const want = once("large draws", () => params.map((p) => draw(row, p)));
      check(want.every((id) => id !== undefined), "draws are clear");
      same(sample(at, params.map(() => row), params), want as number[], "draws");
    },
  },
  {
    name: "sample: infinite logits, rows with parameters of their own, a large vocabulary",
    run(at) {
      const row = new Float32Array(50_000).fill(-Infinity);
      row[49_999] = 3;
      row[31] = 2;
      const hot = { ...GREEDY, temperature: 1, uniform: 0.9 };
      same(sample(at, [row, row, row], [GREEDY, hot, { ...hot, topK: 1 }]), [49_999, 31, 49_999], "rows");
      same(sample(at, [new Float32Array(3).fill(-Infinity)], [GREEDY]), [0], "nothing possible");
    },
  },
  {
    name: "sample: NaN and senseless parameters are refused",
    run(at) {
      for (const vocab of [1, 33, 4099]) {
        for (const index of [0, vocab >> 1, vocab - 1]) {
          const row = logitsOf(vocab, 1);
          row[index] = NaN;
          for (const p of [GREEDY, { ...GREEDY, temperature: 1 }]) {
            at.throws(() => sample(at, [row], [p]), "logits hold NaN", [RangeError, NativeError]);
          }
        }
      }
      const row = logitsOf(33, 1);
      for (const bad of [{ temperature: -1 }, { temperature: NaN }, { temperature: Infinity }]) {
        at.throws(() => sample(at, [row], [{ ...GREEDY, ...bad }]), "");
      }
      at.throws(() => sample(at, [row], []), "");
      at.throws(() => at.backend.kernels.sample(at.ints([2]), at.floats([1, 33], row), [GREEDY]), "");
    },
  },
  {
    name: "addLogits and penalize: one row only, as defined",
    run(at) {
      for (const vocab of [3, 97, 4099]) {
        const flat = Float32Array.of(...logitsOf(vocab, 1), ...logitsOf(vocab, 2));
        const want = Float64Array.from(flat);
        const logits = at.floats([2, vocab], flat);
        const ids = Int32Array.of(0, vocab - 1);
        at.backend.kernels.addLogits(logits, 1, ids, Float32Array.of(1.5, -100));
        want[vocab] = (want[vocab] as number) + 1.5;
        want[2 * vocab - 1] = (want[2 * vocab - 1] as number) - 100;
        const tokens = Int32Array.of(0, 1, vocab - 1);
        const penalties = { tokens, counts: Int32Array.of(1, 2, 3), repetition: 1.3, presence: 0.25, frequency: 0.5 };
        at.backend.kernels.penalize(logits, 0, penalties);
        tokens.forEach((id, i) => {
          const x = want[id] as number;
          want[id] = (x > 0 ? x / 1.3 : x * 1.3) - 0.25 - 0.5 * (i + 1);
        });
        at.near(logits, want, want.map(single), `vocab ${vocab}`, 2 ** -23);
        const none = new Int32Array(0);
        at.backend.kernels.addLogits(logits, 0, none, new Float32Array(0));
        at.backend.kernels.penalize(logits, 0, { ...penalties, tokens: none, counts: none });
        for (const id of [-1, vocab]) {
          at.throws(() => at.backend.kernels.addLogits(logits, 0, Int32Array.of(id), Float32Array.of(1)), "");
          const bad = { ...penalties, tokens: Int32Array.of(id), counts: Int32Array.of(1) };
          at.throws(() => at.backend.kernels.penalize(logits, 0, bad), "");
        }
        for (const row of [-1, 2, NaN]) {
          at.throws(() => at.backend.kernels.addLogits(logits, row, ids, Float32Array.of(1, 1)), "");
          at.throws(() => at.backend.kernels.penalize(logits, row, penalties), "");
        }
        at.throws(() => at.backend.kernels.addLogits(logits, 0, ids, Float32Array.of(1)), "");
      }
    },
  },
  {
    name: "tokenLogprobs: log-softmax",
    run(at) {
      for (const vocab of VOCABS) {
        for (const rows of [0, 1, 3]) {
          const flat = Float32Array.from(Array.from({ length: rows }, (_, i) => Array.from(logitsOf(vocab, i))).flat());
          const tokens = Int32Array.from({ length: rows }, (_, i) => (i * 41 + vocab - 1) % vocab);
          const out = at.floats([rows]);
          at.backend.kernels.tokenLogprobs(out, at.floats([rows, vocab], flat), at.ints([rows], tokens));
          const pick = (all: Float64Array) => Float64Array.from(tokens, (t, i) => all[i * vocab + t] as number);
          at.near(
            out,
            pick(logprobs(flat, vocab, exact)),
            pick(logprobs(flat, vocab, single)),
            `${rows} of ${vocab}`,
            2 ** -22,
          );
        }
      }
      const out = at.floats([1]);
      const logits = at.floats([1, 5], logitsOf(5, 1));
      for (const id of [-1, 5]) {
        at.throws(() => at.backend.kernels.tokenLogprobs(out, logits, at.ints([1], Int32Array.of(id))), "");
      }
    },
  },
  {
    name: "topLogprobs: the best first, the lowest id among equals",
    run(at) {
      for (const vocab of VOCABS) {
        for (const k of [0, 1, 3, 20].filter((k) => k <= vocab)) {
          const rows = [logitsOf(vocab, 1), new Float32Array(vocab).fill(2)];
          const flat = Float32Array.of(...rows[0] as Float32Array, ...rows[1] as Float32Array);
          const [ids, values] = [at.ints([2, k]), at.floats([2, k])];
          at.backend.kernels.topLogprobs(ids, values, at.floats([2, vocab], flat));
          const want = rows.flatMap((row, i) => {
            const order = Array.from(row, (_, id) => id).sort((a, b) =>
              (row[b] as number) - (row[a] as number) || a - b
            );
            return order.slice(0, k).map((id) => ({ id, at: i * vocab + id }));
          });
          same(at.read(ids), want.map((w) => w.id), `${k} of ${vocab}`);
          const pick = (all: Float64Array) => Float64Array.from(want, (w) => all[w.at] as number);
          at.near(
            values,
            pick(logprobs(flat, vocab, exact)),
            pick(logprobs(flat, vocab, single)),
            `${k} of ${vocab}`,
            2 ** -22,
          );
        }
      }
      at.throws(
        () => at.backend.kernels.topLogprobs(at.ints([1, 4]), at.floats([1, 4]), at.floats([1, 3], logitsOf(3, 1))),
        "",
      );
    },
  },
  {
    name: "klDivergence: of the base, in nats",
    run(at) {
      for (const vocab of VOCABS) {
        const base = Float32Array.of(...logitsOf(vocab, 1), ...logitsOf(vocab, 2));
        const noise = new Random(9).floats(2 * vocab, 0.3);
        const logits = base.map((x, i) => x + (noise[i] as number));
        const out = at.floats([2]);
        at.backend.kernels.klDivergence(out, at.floats([2, vocab], base), at.floats([2, vocab], logits));
        const kl = (r: twin.Rounding) => {
          const [p, q] = [logprobs(base, vocab, r), logprobs(logits, vocab, r)];
          const sums = new Float64Array(2);
          p.forEach((x, i) => {
            const o = Math.floor(i / vocab);
            sums[o] = r((sums[o] as number) + r(r(Math.exp(x)) * r(x - (q[i] as number))));
          });
          return sums;
        };
        // A difference of two sums near the logits' size: it cannot be better than their rounding.
        at.near(out, kl(exact), kl(single).map((x) => x + 1e-6), `vocab ${vocab}`, 2 ** -22);
        at.backend.kernels.klDivergence(out, at.floats([2, vocab], base), at.floats([2, vocab], base));
        const itself = at.read(out);
        check(itself.every((x) => Math.abs(x) < 1e-12), `of itself: ${itself}`);
      }
    },
  },
];
