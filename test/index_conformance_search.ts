/**
 * Laws of one search: hits have their form, certificates are true, whatever the keys and the geometry are.
 *
 * @module
 */
import type { Goal, KvIndex } from "../index/index.ts";
import { check } from "./backend_conformance.ts";
import type { Found, IndexBench, Law } from "./index_conformance.ts";
import type { CacheOptions, TestLayer } from "./index_conformance_fixture.ts";
import { Random } from "./backend_conformance_twin.ts";

/** Scores in f32 of the rows themselves may differ from the oracle's by this much, relative to the largest. */
const SCORE_TOLERANCE = 1e-5;
/** How far the mean recall of a few queries may fall behind what was expected of it. */
const RECALL_SLACK = 0.1;

/** Goals of every kind. */
export function goals(draw: number): readonly Goal[] {
  return [
    { topk: 1, draw },
    { topk: 20, draw },
    { topk: 33, tail: "sample", draw },
    { error: 0.3, draw },
    { error: 0.05, draw },
  ];
}

/** Rows, counts, order, range and bias of what was found among tokens [from, to) of the layer. */
export function checkForm(found: Found, layer: TestLayer, goal: Goal, from = 0, to = layer.length): void {
  const { heads, kvHeads } = layer.shape;
  const rows = "error" in goal ? kvHeads : heads;
  check(found.rows.length === rows, `${found.rows.length} rows, expected ${rows}`);
  let kept = 0;
  for (const { tokens, bias } of found.rows) {
    kept += tokens.length;
    if ("topk" in goal) check(tokens.length <= goal.topk, `${tokens.length} keys, asked for ${goal.topk}`);
    tokens.forEach((token, i) => {
      check(token >= layer.start + from && token < layer.start + to, `position ${token} is not searchable`);
      check(i === 0 || token > (tokens[i - 1] as number), `position ${token} is not above the one before`);
      const b = bias[i] as number;
      check(b >= 0 && b < Infinity, `bias ${b}`);
      if ("topk" in goal && goal.tail === undefined) check(b === 0, `bias ${b} of a best key`);
    });
  }
  const { report } = found;
  check(report.keysKept === kept, `the report says ${report.keysKept} keys are kept, ${kept} are`);
  check(report.keysScored >= 0 && report.bytesRead >= 0, "the report counts less than nothing");
  const weak: readonly string[] = "error" in goal || goal.tail === "sample"
    ? ["unbiased", "none", ...(kept === rows * (to - from) ? ["exact"] : [])]
    : ["exact", "calibrated", "none"];
  check(weak.includes(report.certificate), `certificate "${report.certificate}" of goal ${JSON.stringify(goal)}`);
}

/** Share of the best keys' rows that were found, by score: keys that tie with the last count. */
export function recall(
  found: Found,
  layer: TestLayer,
  q: Float32Array,
  k: number,
  from = 0,
  to = layer.length,
): number {
  let hit = 0;
  let wanted = 0;
  found.rows.forEach(({ tokens }, head) => {
    const scores = layer.logits(q, head, from, to);
    const ordered = scores.slice().sort().reverse();
    const best = Math.min(k, ordered.length);
    const least = (ordered[best - 1] ?? 0) - SCORE_TOLERANCE * Math.max(...ordered.map(Math.abs), 0);
    const good = tokens.filter((t) => (scores[t - layer.start - from] as number) >= least).length;
    hit += Math.min(best, good);
    wanted += best;
  });
  return wanted === 0 ? 1 : hit / wanted;
}

/** What the certificate of a top-k search says is true, over some queries. */
export function checkTopk(
  at: IndexBench,
  index: KvIndex,
  layer: TestLayer,
  k: number,
  from = 0,
  to = layer.length,
): void {
  const TIMES = 4;
  let sum = 0;
  let expected = 0;
  for (let i = 0; i < TIMES; i++) {
    const q = layer.query();
    const found = at.search(index, layer, q, { topk: k, draw: i });
    checkForm(found, layer, { topk: k, draw: i }, from, to);
    const reached = recall(found, layer, q, k, from, to);
    const { certificate, expectedRecall } = found.report;
    if (certificate === "exact") {
      check(reached === 1, `recall ${reached} of an exact search for ${k}`);
      const count = Math.min(k, to - from);
      for (const row of found.rows) check(row.tokens.length === count, `${row.tokens.length} keys of ${count}`);
    }
    if (certificate === "calibrated") {
      check(expectedRecall >= 0 && expectedRecall <= 1, `expected recall ${expectedRecall}`);
      expected += expectedRecall;
    } else expected += certificate === "exact" ? 1 : 0;
    sum += reached;
  }
  check(sum >= expected - TIMES * RECALL_SLACK, `recall ${sum / TIMES}, promised ${expected / TIMES}`);
}

/** An error of 0 keeps every key, once, with weight 1. */
export function checkEverything(at: IndexBench, index: KvIndex, layer: TestLayer, from = 0, to = layer.length): void {
  const goal: Goal = { error: 0, draw: 1 };
  const found = at.search(index, layer, layer.query(), goal);
  checkForm(found, layer, goal, from, to);
  for (const { tokens, bias } of found.rows) {
    check(tokens.length === to - from, `error 0 keeps ${tokens.length} keys of ${to - from}`);
    check(bias.every((b) => b === 0), "error 0 gives a key a bias");
  }
}

/** Everything that holds of an index over the whole layer. */
export function checkSearch(at: IndexBench, index: KvIndex, layer: TestLayer, from = 0, to = layer.length): void {
  const exact = Array.from({ length: layer.shape.heads }, () => 1);
  for (const goal of goals(7)) checkForm(at.search(index, layer, layer.query(), goal, exact), layer, goal, from, to);
  checkTopk(at, index, layer, 20, from, to);
  checkEverything(at, index, layer, from, to);
}

function overKeys(name: string, edit: NonNullable<CacheOptions["edit"]>, more: Partial<CacheOptions> = {}): Law {
  return {
    name: `search: ${name}`,
    run(at) {
      const layer = at.layer({ length: 700, type: "f32", edit, ...more });
      checkSearch(at, at.built(layer), layer);
    },
  };
}

export const searchLaws: readonly Law[] = [
  {
    name: "search: an empty index finds nothing",
    run(at) {
      const layer = at.layer({ length: 5 });
      const index = at.create(layer.filled(0));
      for (const goal of goals(1)) {
        const found = at.search(index, layer, layer.query(), goal);
        checkForm(found, layer, goal);
        check(found.report.keysKept === 0, "hits of nothing");
      }
      index.commit();
      check(at.search(index, layer, layer.query(), { error: 0, draw: 0 }).report.keysKept === 0, "hits of nothing");
    },
  },
  {
    name: "search: fewer keys than are asked for",
    run(at) {
      for (const length of [1, 3, 31, 97]) {
        const layer = at.layer({ length });
        const index = at.built(layer);
        checkSearch(at, index, layer);
        for (const tail of [{}, { tail: "sample" }] as const) {
          const { rows, report } = at.search(index, layer, layer.query(), { topk: 129, draw: 3, ...tail });
          // What vouches for nothing may want fewer.
          if (report.certificate === "calibrated" || report.certificate === "none") continue;
          for (const row of rows) {
            check(row.tokens.length === length, `${row.tokens.length} of ${length} keys`);
            check(row.bias.every((b) => b === 0), "a key that is sure has a bias");
          }
        }
      }
    },
  },
  {
    name: "search: groups of 1 to 8 heads",
    run(at) {
      for (const [group, kvHeads] of [[1, 3], [2, 1], [3, 2], [4, 1], [5, 1], [6, 1], [7, 1], [8, 1]] as const) {
        const layer = at.layer({ length: 513, group, kvHeads, headDim: group % 2 === 0 ? 64 : 32 });
        checkSearch(at, at.built(layer), layer);
      }
    },
  },
  {
    name: "search: heads of 64, 80, 96, 128, 256, and of 5 dimensions",
    run(at) {
      for (const headDim of [64, 80, 96, 128, 256, 5]) {
        const layer = at.layer({ length: 401, headDim, kvHeads: 1 });
        checkSearch(at, at.built(layer), layer);
      }
    },
  },
  ...(["f32", "f16", "i8"] as const).map((type): Law => ({
    name: `search: a cache of ${type} in segments, from a position on`,
    run(at) {
      const layer = at.layer({ length: 1100, type, start: 129, segmentRows: 97 });
      checkSearch(at, at.built(layer), layer);
    },
  })),
  {
    name: "search: a soft cap",
    run(at) {
      const layer = at.layer({ length: 700, softcap: 3 });
      checkSearch(at, at.built(layer), layer);
    },
  },
  {
    name: "search: some thousand keys",
    run(at) {
      const layer = at.layer({ length: 5000, kvHeads: 1, group: 3 });
      const index = at.built(layer);
      checkSearch(at, index, layer);
      checkTopk(at, index, layer, 400);
    },
  },
  overKeys("constant keys", (keys) => keys.fill(0.25)),
  overKeys("keys of zero", (keys) => keys.fill(0)),
  overKeys("every key twenty times", (keys, dim) => {
    for (let r = 0; r < keys.length / dim; r++) keys.copyWithin(r * dim, (r - r % 20) * dim, (r - r % 20 + 1) * dim);
  }),
  overKeys("huge and tiny norms among others", (keys, dim) => {
    for (let r = 0; r < keys.length / dim; r++) {
      const factor = r % 50 === 7 ? 1000 : r % 50 === 8 ? 1e-6 : 1;
      for (let j = 0; j < dim; j++) keys[r * dim + j] = (keys[r * dim + j] as number) * factor;
    }
  }),
  overKeys("one dimension far larger than the others", (keys, dim) => {
    const random = new Random(9);
    for (let r = 0; r < keys.length / dim; r++) keys[r * dim + 3] = 300 + random.bell();
  }),
  {
    name: "search: keys and queries that are not finite are refused, and nothing is added",
    run(at) {
      for (const bad of [NaN, Infinity, -Infinity]) {
        const layer = at.layer({ length: 64, type: "f32", edit: (keys, dim) => keys[(64 + 40) * dim + 2] = bad });
        const kv = layer.filled();
        const index = at.create(kv);
        layer.add(index, 0, 30);
        at.throws(() => layer.add(index, 30, 64), "not finite");
        layer.takeBack();
        const q = new Float32Array(10 * 4 * 64);
        q[777] = bad;
        const queries = layer.lend([10, 4, 64], q);
        if (index.observes === true) {
          at.throws(() => index.observe?.({ start: 30, count: 10, q: queries }), "not finite");
        }
        layer.add(index, 30, 40);
        index.commit();
        index.settle();
        checkEverything(at, index, layer, 0, 40);
        const query = layer.query();
        query[70] = bad;
        at.throws(() => at.search(index, layer, query, { topk: 3, draw: 1 }), "not finite");
        if (bad === -Infinity) continue;
        at.throws(() => at.search(index, layer, layer.query(), { topk: 3, draw: 1 }, [1, 1, bad, 1]), "log-sum-exp");
      }
    },
  },
  {
    name: "search: what is no goal, and what does not fit, is refused",
    run(at) {
      const layer = at.layer({ length: 20 });
      const index = at.built(layer);
      const bad: readonly (readonly [Goal, string])[] = [
        [{ error: -0.1, draw: 0 }, "error"],
        [{ error: 1.1, draw: 0 }, "error"],
        [{ error: NaN, draw: 0 }, "error"],
        [{ topk: 0, draw: 0 }, "topk"],
        [{ topk: 2.5, draw: 0 }, "topk"],
        [{ topk: 5000, draw: 0 }, "topk"],
        [{ topk: 5, draw: -1 }, "draw"],
        [{ topk: 5, draw: 0.5 }, "draw"],
        [{ topk: 5, draw: 2 ** 32 }, "draw"],
      ];
      for (const [goal, text] of bad) at.throws(() => at.search(index, layer, layer.query(), goal), text);
      const { hits } = at;
      const [q, lse] = [layer.lend([4, 64], layer.query()), layer.lend([4], new Float32Array(4))];
      const goal: Goal = { topk: 3, draw: 0 };
      index.search(hits, q, goal, lse);
      index.search(hits, layer.lend([1, 4, 64], layer.query()), goal, layer.lend([1, 4], new Float32Array(4)));
      at.throws(() => index.search(hits, layer.lend([4, 32], new Float32Array(128)), goal, lse), "query");
      at.throws(() => index.search(hits, q, goal, layer.lend([2], new Float32Array(2))), "log-sum-exp");
    },
  },
];
