/**
 * How published methods fail, each on a few made keys: what their papers or others' measurements say of them, and that what fails
 * there works elsewhere.
 */
import { assert, assertEquals } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import type { Goal, KvIndex } from "../index/index.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { IndexRegistry } from "../index/mod.ts";
import { pyramidBudget } from "../attention/pyramid.ts";
import { window } from "../attention/window.ts";
import { Random } from "./backend_conformance_twin.ts";
import { type Found, IndexBench } from "./index_conformance.ts";
import { recall } from "./index_conformance_search.ts";
import type { TestLayer } from "./index_conformance_fixture.ts";

const DIM = 64;
const TOKENS = 1024;

await prepareBackend("cpu");
const backend: Backend = openBackend("cpu");
afterAll(() => backend[Symbol.dispose]());

const directions = new Map<number, readonly number[]>();

/** A direction of length 8 that no other name has. */
function direction(name: number): readonly number[] {
  const known = directions.get(name) ?? makeDirection(name);
  directions.set(name, known);
  return known;
}

function makeDirection(name: number): number[] {
  const random = new Random(1000 + name);
  const x = Array.from({ length: DIM }, () => random.bell());
  const norm = Math.hypot(...x);
  return x.map((v) => 8 * v / norm);
}

/** A head over `TOKENS` keys: noise, and `edit`'s. */
class Head implements Disposable {
  readonly #at: IndexBench;
  readonly layer: TestLayer;
  readonly index: KvIndex;

  /** `asked` gives the direction that the prompt's query at a position asks for. */
  constructor(
    spec: string,
    edit: (key: (token: number, values: readonly number[]) => void) => void,
    options: {
      readonly asked?: (position: number) => readonly number[];
      readonly noise?: number;
      readonly group?: number;
    } = {},
  ) {
    const { asked, noise = 0.3, group = 1 } = options;
    this.#at = new IndexBench({ spec, types: new IndexRegistry(), backend });
    const random = new Random(5);
    this.layer = this.#at.layer({
      length: TOKENS,
      kvHeads: 1,
      group,
      headDim: DIM,
      type: "f32",
      edit(keys) {
        for (let i = 0; i < keys.length; i++) keys[i] = noise * random.bell();
        edit((token, values) => keys.set(values, token * DIM));
      },
    });
    this.index = this.#at.create(this.layer.filled());
    if (asked !== undefined && this.index.observes === true) {
      const q = new Float32Array(TOKENS * group * DIM);
      for (let row = 0; row < TOKENS * group; row++) q.set(asked(Math.floor(row / group)), row * DIM);
      this.index.observe?.({ start: 0, count: TOKENS, q: this.layer.lend([TOKENS, group, DIM], q) });
    }
    this.index.add({ start: 0, count: TOKENS });
    this.index.commit();
    this.index.settle();
  }

  search(q: readonly number[], goal: Goal): Found {
    return this.#at.search(this.index, this.layer, Float32Array.from(q), goal);
  }

  /** Whether the best keys of a budget hold a token. */
  finds(q: readonly number[], token: number, topk: number): boolean {
    return this.search(q, { topk, draw: 0 }).rows[0]?.tokens.includes(token) === true;
  }

  recall(q: readonly number[], topk: number): number {
    return recall(this.search(q, { topk, draw: 0 }), this.layer, Float32Array.from(q), topk);
  }

  [Symbol.dispose](): void {
    this.#at.clean();
  }
}

const needle = (token: number, name: number) => (key: (token: number, values: readonly number[]) => void) =>
  key(token, direction(name));

describe("known failures", () => {
  it("StreamingLLM: a needle beyond the window", () => {
    const kv = { shape: { heads: 1, kvHeads: 1, headDim: DIM, scale: 1 }, length: TOKENS, segments: [] };
    const newIndex = () => {
      throw new Error("no index is asked for");
    };
    const spans = window.open({ kv, layer: 0, layers: 1, newIndex }, { sinks: 4, window: 200 })?.spans(TOKENS) ?? [];
    const sees = (token: number) =>
      [0, 2].some((i) => token >= (spans[i] as number) && token < (spans[i + 1] as number));
    assertEquals([sees(2), sees(300), sees(TOKENS - 200)], [true, false, true]);
    using flat = new Head("flat", needle(300, 1));
    assert(flat.finds(direction(1), 300, 10));
  });

  it("SnapKV: a question that is asked after the choice", () => {
    const spec = "snap:observe=32";
    using early = new Head(spec, needle(300, 1), { asked: () => direction(1) });
    assert(early.finds(direction(1), 300, 64), "asked in the prompt's end it is kept");
    using late = new Head(spec, needle(300, 1), { asked: () => direction(2) });
    assert(!late.finds(direction(1), 300, 64), "asked later it is gone");
  });

  it("PyramidKV: what the mean budget keeps, a last layer's does not", () => {
    // 40 tokens are asked for with falling weight.
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      for (let i = 0; i < 40; i++) key(20 * i + 10, direction(1).map((x) => x * (1 - i / 400)));
    };
    using head = new Head("snap:observe=16,pool=1", edit, { asked: () => direction(1) });
    const last = pyramidBudget(64, 20, { layer: 29, layers: 30, tokens: TOKENS });
    assert(head.finds(direction(1), 20 * 39 + 10, 64));
    assertEquals([last, head.finds(direction(1), 20 * 39 + 10, last)], [3, false]);
  });

  it("H2O: what the prompt passed over is gone for good, and early tokens gather more", () => {
    using gone = new Head("heavy:share=0.1,recent=0.1", needle(300, 1), { asked: () => direction(2) });
    assert(!gone.finds(direction(1), 300, 512));
    const zeros = { asked: () => direction(2), noise: 0 };
    using sums = new Head("heavy:share=0.1,recent=0", () => {}, zeros);
    const kept = sums.search(direction(2), { topk: 512, draw: 0 }).rows[0]?.tokens ?? [];
    assertEquals(kept, Array.from({ length: 102 }, (_, i) => i));
  });

  it("Quest: keys that no page holds bound pages above the one that is asked for", () => {
    // Pages of decoys hold, in different keys, every channel of what is asked for (multi-key needles that share most of it).
    const wanted = direction(1);
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      for (let page = 10; page < 20; page++) {
        for (let j = 0; j < 16; j++) key(16 * page + j, wanted.map((x, c) => c % 16 === j ? 2 * x : -0.1 * x));
      }
      key(700, wanted);
    };
    using pages = new Head("pages", edit);
    using flat = new Head("flat", edit);
    assert(flat.finds(wanted, 700, 16) && !pages.finds(wanted, 700, 160));
    assert(pages.finds(wanted, 700, 16 * 11), "ten wrong pages later it is there");
  });

  it("top-k: a count over all keys, which a sample estimates", () => {
    using flat = new Head("flat", () => {}, { noise: 0.02 });
    // Every second token counts; the best keys say nothing of how many there are.
    const share = (goal: Goal) => {
      const { tokens = [], bias = [] } = flat.search(direction(1), goal).rows[0] ?? {};
      const weight = (i: number) => Math.exp(bias[i] as number);
      return tokens.reduce((sum, _, i) => sum + weight(i), 0) / TOKENS;
    };
    assert(share({ topk: 100, draw: 0 }) < 0.1, "of what counts a tenth is seen");
    let mean = 0;
    for (let draw = 0; draw < 20; draw++) mean += share({ topk: 100, tail: "sample", draw }) / 20;
    assert(Math.abs(mean - 1) < 0.1, `a sample of as many says ${mean}`);
  });

  it("InfLLM: a block whose representatives are others", () => {
    const spec = "pages:size=64,score=representative,r=4,local=512";
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      // In every block four keys that later tokens ask for; the needle is none of them.
      for (let i = 0; i < TOKENS; i += 16) key(i, direction(2));
      key(300, direction(1));
    };
    using passed = new Head(spec, edit, { asked: () => direction(2) });
    assert(!passed.finds(direction(1), 300, 128));
    using represented = new Head(spec, edit, { asked: (p) => p > 300 && p < 800 ? direction(1) : direction(2) });
    assert(represented.finds(direction(1), 300, 128));
  });

  it("InfiniGen: a query outside of the columns that the prompt used", () => {
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      key(300, direction(1));
      key(301, direction(2));
    };
    const prompt = Array.from(
      { length: 6 },
      (_, j) => direction(10 + j).map((x, i) => x + (direction(2)[i] as number)),
    );
    const options = { asked: (p: number) => prompt[p % 6] as number[], noise: 2 };
    using head = new Head("skew:columns=0.1", edit, options);
    using flat = new Head("flat", edit, options);
    assert(flat.finds(direction(1), 300, 5));
    assert(head.finds(direction(2), 301, 5) && !head.finds(direction(1), 300, 5));
  });

  it("PQCache: books of another topic", () => {
    // All late keys are one of two kinds, far from what the books were made of.
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      const random = new Random(3);
      for (let i = 512; i < TOKENS; i++) key(i, direction(30).map((x) => x + 0.5 * random.bell()));
    };
    using fresh = new Head("pq:m=4,min=16", edit);
    using stale = new Head("pq:m=4,min=4096", edit);
    const at = new IndexBench({ spec: "pq:m=4,min=16", types: new IndexRegistry(), backend });
    try {
      const index = at.create(stale.layer.filled());
      for (const start of [0, 512]) {
        index.add({ start, count: 512 });
        index.commit();
      }
      const q = direction(30).map((x, i) => x + (direction(31)[i] as number));
      const found = at.search(index, stale.layer, Float32Array.from(q), { topk: 50, draw: 0 });
      const frozen = recall(found, stale.layer, Float32Array.from(q), 50);
      assert(frozen < 0.75 * fresh.recall(q, 50), `${frozen} with old books, ${fresh.recall(q, 50)} with new ones`);
    } finally {
      at.clean();
    }
  });

  it("SparQ: a query that is spread over all channels", () => {
    const flat = Array.from({ length: DIM }, (_, c) => c % 2 === 0 ? 1 : -1);
    const sharp = flat.map((x, c) => c < 8 ? 4 * x : 0.01 * x);
    using head = new Head("channels:r=8,recent=0", () => {}, { noise: 1 });
    assert(head.recall(sharp, 50) > 0.95 && head.recall(flat, 50) < 0.5);
  });

  it("Loki: a head of full rank", () => {
    using full = new Head("pca", () => {}, { noise: 1 });
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      const random = new Random(4);
      for (let i = 0; i < TOKENS; i++) {
        const mix = Array.from({ length: 8 }, () => random.bell());
        key(
          i,
          Array.from({ length: DIM }, (_, c) => mix.reduce((sum, m, j) => sum + m * (direction(j)[c] as number), 0)),
        );
      }
    };
    using low = new Head("pca", edit);
    const q = Array.from({ length: DIM }, (_, c) => Math.sin(c));
    assert(low.recall(q, 50) > 0.95 && full.recall(q, 50) < 0.7, `${low.recall(q, 50)}, ${full.recall(q, 50)}`);
  });

  it("Squeezed Attention: a threshold bounds no budget", () => {
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      for (let i = 0; i < TOKENS; i += 16) key(i, direction(1));
    };
    using head = new Head("clusters:quantile=0.5", edit, { asked: () => direction(1) });
    const kept = (q: readonly number[]) => head.search(q, { topk: 4096, draw: 0 }).report.keysKept;
    // Diffuse queries want nearly everything.
    assert(
      kept(direction(2).map((x) => 0.01 * x)) > 1.4 * kept(direction(1)),
      `${kept(direction(2).map((x) => 0.01 * x))}`,
    );
  });

  it("RetroInfer: heads that share a budget hide what one of them needs", () => {
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      for (let i = 100; i < 164; i++) key(i, direction(1));
      for (let i = 500; i < 516; i++) key(i, direction(2).map((x) => 0.35 * x));
    };
    const spec = "wave:cluster=16,segment=1024,step=64,retrieve=0";
    using pair = new Head(spec, edit, { group: 2 });
    using alone = new Head(spec, edit, { group: 1 });
    const found = pair.search([...direction(1), ...direction(2).map((x) => 0.5 * x)], { topk: 64, draw: 0 });
    assert(!found.rows[1]?.tokens.includes(505) && alone.finds(direction(2).map((x) => 0.5 * x), 505, 64));
  });

  it("MagicPIG: tables larger than keys, and a needle in no table", () => {
    using head = new Head("lsh", needle(300, 1));
    assert(head.index.stats().bytes > 2 * TOKENS * DIM * 2, "twice the keys in f16");
    // At 75 degrees a key collides twice in 150 tables of 10 bits with a chance of 0.15.
    const far = direction(1).map((x, i) => 0.26 * x + 0.966 * (direction(2)[i] as number));
    const { tokens = [], bias = [] } = head.search(far, { topk: 1000, tail: "sample", draw: 0 }).rows[0] ?? {};
    const place = tokens.indexOf(300);
    assert(place < 0 || (bias[place] as number) > 1, "it is not there, or weighs for all that are not");
  });

  it("mixture of logits: one head that wants a key hides that all others do a little", () => {
    const [a, b] = [direction(1), direction(2)];
    const edit = (key: (token: number, values: readonly number[]) => void) => {
      key(300, a.map((x, i) => 0.75 * (x + (b[i] as number))));
      for (let i = 0; i < 8; i++) key(400 + i, a);
    };
    using sharp = new Head("mol:t=0.01", edit, { group: 2 });
    using mean = new Head("mol:t=1000", edit, { group: 2 });
    const q = [...a, ...b];
    assert(!sharp.finds(q, 300, 8) && mean.finds(q, 300, 8));
  });

  it("kvasir: a diffuse head takes many keys", () => {
    using flat = new Head("flat:codes=int4", needle(300, 1));
    const kept = (q: readonly number[]) => flat.search(q, { error: 0.1, draw: 0 }).report.keysKept;
    assert(kept(direction(9).map((x) => 0.05 * x)) > 30 * kept(direction(1).map((x) => 2 * x)));
  });
});
