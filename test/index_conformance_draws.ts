/**
 * Laws of the draws: equal draws repeat, different ones differ, and their mean is what full attention gives, numerator and
 * denominator apart.
 *
 * @module
 */
import type { Goal, KvIndex } from "../index/index.ts";
import { check } from "./backend_conformance.ts";
import type { IndexBench, Law } from "./index_conformance.ts";
import type { TestLayer } from "./index_conformance_fixture.ts";

/** Draws of a statistical test, and how many standard errors its mean may be off. */
const DRAWS = 2000;
const SIGMAS = 4;

/** Mean and standard error, by Welford. */
class Mean {
  #count = 0;
  #squares = 0;
  mean = 0;

  add(x: number): void {
    this.#count++;
    const off = x - this.mean;
    this.mean += off / this.#count;
    this.#squares += off * (x - this.mean);
  }

  get error(): number {
    return Math.sqrt(this.#squares / (this.#count - 1) / this.#count);
  }
}

/** Of one query head: weights e^(logit − best) of all keys, and what its estimates should be in the mean. */
interface Truth {
  readonly weights: Float64Array;
  /** Σ w, Σ w·v₀, Σ w·v₁ */
  readonly sums: readonly number[];
  readonly values: readonly Float64Array[];
}

function truthOf(layer: TestLayer, q: Float32Array, head: number): Truth {
  const { heads, kvHeads, headDim } = layer.shape;
  const logits = layer.logits(q, head, 0, layer.length);
  const best = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((s) => Math.exp(s - best));
  const rows = Math.floor(head / (heads / kvHeads)) * layer.length;
  const values = [0, 1].map((j) => logits.map((_, i) => layer.values[(rows + i) * headDim + j] as number));
  const all = [weights.map(() => 1), ...values];
  return { weights, values: all, sums: all.map((v) => v.reduce((sum, x, i) => sum + x * (weights[i] as number), 0)) };
}

/** Fails unless numerator and denominator of `goal`'s estimates have the right mean over draws. */
export function checkUnbiased(at: IndexBench, index: KvIndex, layer: TestLayer, goal: Goal, draws = DRAWS): void {
  const { heads, kvHeads } = layer.shape;
  const group = heads / kvHeads;
  // Not sharp: were most of the mass in a few keys that are sure, a wrong weight of the others would not show.
  const q = layer.query(1, 0.5);
  const truths = Array.from({ length: heads }, (_, h) => truthOf(layer, q, h));
  const means = truths.map(({ sums }) => sums.map(() => new Mean()));
  // Half of the mass is attended anyway, so that samples are small.
  const exact = truths.map(({ sums }, h) => {
    const best = layer.logits(q, h, 0, layer.length).reduce((a, b) => Math.max(a, b), -Infinity);
    return best + Math.log(sums[0] as number);
  });
  for (let i = 0; i < draws; i++) {
    const found = at.search(index, layer, q, { ...goal, draw: (0x2545f491 * (i + 1)) >>> 0 }, exact);
    if (found.report.certificate === "none") return;
    for (let h = 0; h < heads; h++) {
      const { tokens, bias } = found
        .rows[found.rows.length === heads ? h : Math.floor(h / group)] as typeof found.rows[number];
      const { weights, values } = truths[h] as Truth;
      values.forEach((value, v) => {
        let sum = 0;
        for (let j = 0; j < tokens.length; j++) {
          const t = (tokens[j] as number) - layer.start;
          sum += (weights[t] as number) * (value[t] as number) * Math.exp(bias[j] as number);
        }
        means[h]?.[v]?.add(sum);
      });
    }
  }
  truths.forEach(({ sums }, h) =>
    sums.forEach((want, v) => {
      const { mean, error } = means[h]?.[v] as Mean;
      const what = v === 0 ? "denominator" : `numerator ${v}`;
      const limit = SIGMAS * error + 1e-4 * (sums[0] as number);
      check(
        Math.abs(mean - want) <= limit,
        `${what} of head ${h} under ${
          JSON.stringify(goal)
        }: mean ${mean} of ${draws} draws, expected ${want} ± ${limit}`,
      );
      check(error > 0 || goalKeepsAll(goal), `${what} of head ${h} never varies`);
    })
  );
}

function goalKeepsAll(goal: Goal): boolean {
  return "error" in goal && goal.error === 0;
}

function unbiased(name: string, goal: Goal, length: number): Law {
  return {
    name: `draws: ${name} are unbiased`,
    run(at) {
      const layer = at.layer({ length, kvHeads: 1, group: 2 });
      checkUnbiased(at, at.built(layer), layer, goal);
    },
  };
}

export const drawLaws: readonly Law[] = [
  {
    name: "draws: equal draws repeat, in another index too; others differ",
    run(at) {
      const layer = at.layer({ length: 900 });
      const [a, b] = [at.built(layer), at.built(layer)];
      const q = layer.query();
      for (const goal of [{ error: 0.2 }, { topk: 40, tail: "sample" }] as const) {
        const found = [a, b, a].map((index) => at.search(index, layer, q, { ...goal, draw: 5 }).rows);
        check(JSON.stringify(found[0]) === JSON.stringify(found[1]), "two indexes answer one draw differently");
        check(JSON.stringify(found[0]) === JSON.stringify(found[2]), "an index answers one draw differently");
        const other = at.search(a, layer, q, { ...goal, draw: 6 }).rows;
        check(JSON.stringify(found[0]) !== JSON.stringify(other), "two draws are the same");
      }
    },
  },
  {
    name: "draws: a smaller error keeps more, what is attended anyway less",
    run(at) {
      const layer = at.layer({ length: 900 });
      const index = at.built(layer);
      const q = layer.query();
      const kept = (error: number, exact = -Infinity) =>
        at.search(index, layer, q, { error, draw: 5 }, Array(4).fill(exact)).report.keysKept;
      const counts = [1, 0.3, 0.1, 0.03, 0].map((error) => kept(error));
      check(counts.every((c, i) => i === 0 || c >= (counts[i - 1] as number)), `kept ${counts} as the error falls`);
      check((counts[4] as number) > 3 * (counts[0] as number), `kept ${counts} as the error falls`);
      check(kept(0.1, 50) < kept(0.1) / 2, "much that is attended anyway changes nothing");
    },
  },
  unbiased("samples by error, of some hundred keys,", { error: 0.12, draw: 0 }, 300),
  unbiased("samples of a budget, of some hundred keys,", { topk: 60, tail: "sample", draw: 0 }, 300),
  unbiased("samples by error, of some thousand keys,", { error: 0.1, draw: 0 }, 2500),
  unbiased("samples of a budget, of some thousand keys,", { topk: 100, tail: "sample", draw: 0 }, 2500),
];
