/**
 * What published methods keep of one small layer, against the reference code and formulas of `golden/make_methods.py`: the same tokens.
 */
import { assert, assertEquals } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { pyramidBudget } from "../attention/pyramid.ts";
import { window } from "../attention/window.ts";
import { IndexRegistry } from "../index/mod.ts";
import { IndexBench } from "./index_conformance.ts";
import type { TestLayer } from "./index_conformance_fixture.ts";
import golden from "./golden/methods.json" with { type: "json" };

const { length, headDim, heads, kvHeads, kept, page } = golden;
const OLD = length - golden.window;
const SCALE = 1 / 32;

await prepareBackend("cpu");
let backend: Backend | undefined;
afterAll(() => backend?.[Symbol.dispose]());

/** Tokens that an index keeps for the last query, by query head; `indexed` of them are told to it, and all queries. */
function tokensOf(spec: string, budget: number, indexed = OLD): number[][] {
  backend ??= openBackend("cpu");
  const at = new IndexBench({ spec, types: new IndexRegistry(), backend });
  try {
    const layer = goldenLayer(at);
    const index = at.create(layer.filled());
    const queries = Float32Array.from(golden.queries, (x) => x * SCALE);
    if (index.observes === true) {
      index.observe?.({ start: 0, count: length, q: layer.lend([length, heads, headDim], queries) });
    }
    index.add({ start: 0, count: indexed });
    index.commit();
    const last = queries.slice((length - 1) * heads * headDim);
    return at.search(index, layer, last, { topk: budget, draw: 0 }).rows.map(({ tokens }) => tokens);
  } finally {
    at.clean();
  }
}

function goldenLayer(at: IndexBench): TestLayer {
  const edit = (keys: Float32Array) => golden.keys.forEach((x, i) => keys[i] = x * SCALE);
  return at.layer({ length, kvHeads, group: heads / kvHeads, headDim, type: "f32", edit });
}

describe("published methods keep the tokens that their reference code keeps", () => {
  it("SnapKV by groups, as KVPress", () => {
    const rows = tokensOf(`snap:observe=${golden.window},pool=${golden.pool},group=mean`, kept);
    assertEquals(rows, [0, 0, 1, 1].map((head) => golden.snapMean[head]));
  });

  it("SnapKV by heads, pooled by mean and by maximum", () => {
    const spec = `snap:observe=${golden.window},pool=${golden.pool}`;
    assertEquals(tokensOf(spec, kept), golden.snapHead);
    golden.snapMax.forEach((row, head) => assertEquals(tokensOf(`${spec},kind=max`, row.length)[head], row));
  });

  it("H2O: accumulated attention", () => {
    const share = (kept + 0.5) / length;
    assertEquals(tokensOf(`heavy:every=1,recent=0,share=${share}`, 4096), golden.heavySum);
    // KVPress divides by the number of queries; ours by head, theirs by group: what both heads keep, they keep.
    const rows = tokensOf(`heavy:every=1,recent=0,mean=true,share=${share}`, 4096);
    golden.heavyMean.forEach((group, i) => {
      const [a = [], b = []] = rows.slice(2 * i, 2 * i + 2);
      for (const token of a.filter((t) => b.includes(t))) assert(group.includes(token), `token ${token} of group ${i}`);
    });
  });

  it("Quest: pages", () => {
    assertEquals(tokensOf(`pages:size=${page}`, 3 * page, length), golden.quest);
  });

  it("StreamingLLM: sinks and window", () => {
    const layer = { layer: 0, layers: 1, kv: { shape: { heads, kvHeads, headDim, scale: 1 }, length, segments: [] } };
    const newIndex = () => {
      throw new Error("no index is asked for");
    };
    const policy = window.open({ ...layer, newIndex }, { sinks: 4, window: golden.streaming.length - 4 });
    const spans = policy?.spans(length) ?? [];
    const seen: number[] = [];
    for (let i = 0; i < spans.length; i += 2) {
      for (let p = spans[i] as number; p < (spans[i + 1] as number); p++) seen.push(p);
    }
    assertEquals(seen, golden.streaming);
  });

  it("PyramidKV: budgets of its layers, and their tokens", () => {
    const budgets = golden.pyramidBudgets.map((_, layer) => pyramidBudget(40, 4, { layer, layers: 5, tokens: 152 }));
    assertEquals(budgets, golden.pyramidBudgets);
    // Fewer of the same ranking: what a smaller budget keeps, a larger one keeps.
    const spec = `snap:observe=${golden.window},pool=${golden.pool},group=mean`;
    const [most, mean, least] = [40, kept, 10].map((budget) => tokensOf(spec, budget)) as [
      number[][],
      number[][],
      number[][],
    ];
    least.forEach((row, head) => assert(row.every((t) => mean[head]?.includes(t) && most[head]?.includes(t))));
  });
});
