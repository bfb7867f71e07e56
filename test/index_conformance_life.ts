/**
 * Laws of an index's life: adding, building, growing, forking, files, the end.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Goal, KvIndex } from "../index/index.ts";
import { Unsupported } from "../core/errors.ts";
import { check } from "./backend_conformance.ts";
import type { IndexBench, Law } from "./index_conformance.ts";
import type { GrowingLayer, TestLayer } from "./index_conformance_fixture.ts";
import { checkEverything, checkSearch, checkTopk, recall } from "./index_conformance_search.ts";

const GOALS: readonly Goal[] = [{ topk: 17, draw: 1 }, { error: 0.2, draw: 2 }, { topk: 9, tail: "sample", draw: 3 }];

/** Answers to some questions, as text. */
function answers(at: IndexBench, index: KvIndex, layer: TestLayer, q: readonly Float32Array<ArrayBuffer>[]): string {
  return JSON.stringify(q.map((x) => GOALS.map((goal) => at.search(index, layer, x, goal).rows)));
}

function questions(layer: TestLayer, count = 3): Float32Array<ArrayBuffer>[] {
  return Array.from({ length: count }, () => layer.query());
}

/** Grows the cache and tells the index. */
function extend(layer: TestLayer, kv: GrowingLayer, index: KvIndex, to: number, chunk?: number): void {
  const from = kv.length;
  layer.grow(kv, to);
  layer.add(index, from, to, chunk);
}

/** Runs `body` with a path in a folder of its own. */
function withFile(body: (path: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    body(`${folder}/index`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

export const lifeLaws: readonly Law[] = [
  {
    name: "life: adding in chunks equals adding one by one, and at once",
    run(at) {
      const layer = at.layer({ length: 700, segmentRows: 256 });
      const q = questions(layer);
      const seen = [700, 129, 1].map((chunk) => {
        const index = at.create(layer.filled());
        layer.add(index, 0, 700, chunk);
        index.commit();
        index.settle();
        return answers(at, index, layer, q);
      });
      check(seen.every((s) => s === seen[0]), "the answers depend on how tokens were added");
    },
  },
  {
    name: "life: tokens are found once they are committed",
    run(at) {
      const layer = at.layer({ length: 600 });
      const kv = layer.filled(0);
      const index = at.create(kv);
      extend(layer, kv, index, 300);
      check(at.search(index, layer, layer.query(), { error: 0, draw: 1 }).report.keysKept === 0, "found uncommitted");
      index.commit();
      extend(layer, kv, index, 600);
      checkSearch(at, index, layer, 0, 300);
      index.commit();
      checkSearch(at, index, layer);
      check(index.stats().tokens === 600, `stats say ${index.stats().tokens} tokens of 600`);
    },
  },
  {
    name: "life: growth from nothing, 13-fold, in small steps",
    run(at) {
      const layer = at.layer({ length: 1300, kvHeads: 1, group: 3, segmentRows: 300 });
      const kv = layer.filled(0);
      const index = at.create(kv);
      for (let to = 1; to <= 1300; to += to < 100 ? 33 : 97) {
        extend(layer, kv, index, to, 20);
        index.commit();
        if (to % 2 === 0) index.settle();
        checkEverything(at, index, layer, 0, to);
        checkTopk(at, index, layer, 10, 0, to);
      }
    },
  },
  {
    name: "life: growth after building, 13-fold, with recall as after a fresh build",
    run(at) {
      const layer = at.layer({ length: 6500, kvHeads: 1, group: 2 });
      const kv = layer.filled(0);
      const index = at.create(kv);
      extend(layer, kv, index, 500);
      index.commit();
      index.settle();
      for (let to = 700; to <= 6500; to += 200) {
        extend(layer, kv, index, to);
        index.commit();
      }
      index.settle();
      checkSearch(at, index, layer);
      const fresh = at.built(layer);
      let [grown, best] = [0, 0];
      for (const q of questions(layer, 10)) {
        grown += recall(at.search(index, layer, q, { topk: 100, draw: 0 }), layer, q, 100) / 10;
        best += recall(at.search(fresh, layer, q, { topk: 100, draw: 0 }), layer, q, 100) / 10;
      }
      check(grown >= best - 0.05, `recall ${grown} after growth, ${best} after a fresh build`);
    },
  },
  {
    name: "life: searching while building misses nothing that is not built yet",
    run(at) {
      // Among the newest tokens, one whose key is what is asked for.
      const layer = at.layer({
        length: 6000,
        kvHeads: 1,
        group: 2,
        edit(keys, dim) {
          for (let r = 100; r < 6000; r += 100) {
            for (let j = 0; j < dim; j++) keys[r * dim + j] = Math.sin(r * dim + j) * 3;
          }
        },
      });
      const kv = layer.filled(0);
      const index = at.create(kv);
      for (let to = 500; to <= 6000; to += 500) {
        extend(layer, kv, index, to);
        index.commit();
        checkEverything(at, index, layer, 0, to);
        for (let r = to - 400; r < to; r += 100) {
          const q = Float32Array.from({ length: 2 * 64 }, (_, i) => Math.sin(r * 64 + i % 64) * 6);
          for (const row of at.search(index, layer, q, { topk: 3, draw: 0 }).rows) {
            check(row.tokens.includes(r), `the newest key at ${r} of ${to} is not found`);
          }
        }
      }
      index.settle();
      checkSearch(at, index, layer);
    },
  },
  {
    name: "life: tokens in another order, or beyond the cache, are refused",
    run(at) {
      const layer = at.layer({ length: 100 });
      const kv = layer.filled(80);
      const index = at.create(kv);
      layer.add(index, 10, 30);
      for (const [start, count] of [[31, 1], [29, 1], [0, 10], [30, 51], [30, -1], [30.5, 1], [NaN, 1]] as const) {
        at.throws(() => index.add({ start, count }), "Cannot add tokens");
      }
      if (index.observes === true) {
        at.throws(() => index.observe?.({ start: 30, count: 2, q: layer.queries(30, 3) }), "Cannot observe queries");
      }
      index.add({ start: 30, count: 0 });
      layer.add(index, 30, 80);
      index.commit();
      index.settle();
      checkSearch(at, index, layer, 10, 80);
    },
  },
  {
    name: "life: a fork answers alike, then each goes its own way",
    run(at) {
      const layer = at.layer({ length: 3000, kvHeads: 1, group: 2, segmentRows: 512 });
      const kv = layer.filled(0);
      const index = at.create(kv);
      extend(layer, kv, index, 2000);
      index.commit();
      index.settle();
      const q = questions(layer);
      const before = answers(at, index, layer, q);
      const twin = layer.filled(2000);
      const fork = at.keep(index.fork(twin));
      check(answers(at, fork, layer, q) === before, "the fork answers otherwise");
      extend(layer, twin, fork, 3000, 129);
      fork.commit();
      check(answers(at, index, layer, q) === before, "the fork's tokens changed its origin");
      checkSearch(at, fork, layer);
      const after = answers(at, fork, layer, q);
      extend(layer, kv, index, 2400, 50);
      index.commit();
      index.settle();
      checkSearch(at, index, layer, 0, 2400);
      index[Symbol.dispose]();
      check(answers(at, fork, layer, q) === after, "the end of its origin changed the fork");
      fork.settle();
      checkSearch(at, fork, layer);
    },
  },
  {
    name: "life: a fork of a fork of what was never committed",
    run(at) {
      const layer = at.layer({ length: 300 });
      const index = at.create(layer.filled());
      const empty = at.keep(index.fork(layer.filled()));
      layer.add(index, 0, 200);
      const fork = at.keep(at.keep(index.fork(layer.filled())).fork(layer.filled()));
      layer.add(fork, 200, 300);
      layer.add(empty, 50, 150);
      fork.commit();
      empty.commit();
      checkSearch(at, fork, layer);
      checkSearch(at, empty, layer, 50, 150);
    },
  },
  {
    name: "life: a saved index answers alike, and goes on",
    run(at) {
      const layer = at.layer({ length: 3000, kvHeads: 1, group: 2, start: 50, segmentRows: 700 });
      const kv = layer.filled(0);
      const index = at.create(kv);
      extend(layer, kv, index, 2000);
      index.commit();
      index.settle();
      const q = questions(layer);
      const before = answers(at, index, layer, q);
      withFile((path) => {
        index.save(path);
        index.save(path);
        index[Symbol.dispose]();
        const twin = layer.filled(2000);
        const restored = at.map(path, twin);
        check(answers(at, restored, layer, q) === before, "the restored index answers otherwise");
        const again = at.keep(at.map(path, layer.filled(2000)).fork(layer.filled(2000)));
        check(answers(at, again, layer, q) === before, "a second restored index answers otherwise");
        extend(layer, twin, restored, 3000, 97);
        restored.commit();
        restored.settle();
        checkSearch(at, restored, layer);
        check(answers(at, again, layer, q) === before, "its tokens changed another index over the same file");
      });
    },
  },
  {
    name: "life: a file that does not fit is refused",
    run(at) {
      const layer = at.layer({ length: 300, kvHeads: 1 });
      const index = at.built(layer);
      withFile((path) => {
        at.throws(() => at.map(path, layer.filled()), "", [Error]);
        index.save(path);
        at.throws(() => at.map(path, at.layer({ length: 300, kvHeads: 2 }).filled()), "");
        at.throws(() => at.map(path, at.layer({ length: 300, kvHeads: 1, headDim: 80 }).filled()), "");
        at.throws(() => at.map(path, layer.filled(0)), "");
        at.throws(() => at.map(path, at.layer({ length: 300, kvHeads: 1, start: 1 }).filled()), "");
        const bytes = Deno.readFileSync(path);
        for (const cut of [0, 1, bytes.length >> 1, bytes.length - 2]) {
          Deno.writeFileSync(path, bytes.slice(0, cut));
          at.throws(() => at.map(path, layer.filled()), "Cannot open index");
        }
        at.throws(() => index.save(`${path}/nowhere/index`), "", [Error]);
      });
    },
  },
  {
    name: "life: the end comes once, and is final",
    run(at) {
      const layer = at.layer({ length: 2000, kvHeads: 1 });
      const q = layer.query();
      const index = at.create(layer.filled());
      layer.add(index, 0, 2000);
      index.commit();
      // Builders may be at work.
      index[Symbol.dispose]();
      index[Symbol.dispose]();
      for (
        const use of [
          () => index.commit(),
          () => index.settle(),
          () => index.stats(),
          () => index.add({ start: 2000, count: 0 }),
          () => at.search(index, layer, q, { topk: 1, draw: 0 }),
          () => index.fork(layer.filled()),
        ]
      ) at.throws(use, "disposed", [Error]);
    },
  },
  {
    name: "life: stats count what is there",
    run(at) {
      const layer = at.layer({ length: 2500, kvHeads: 1 });
      const index = at.built(layer);
      const { tokens, bytes, pendingTokens, buildSeconds, insertedTokens, decisions } = index.stats();
      check(tokens === 2500, `${tokens} tokens of 2500`);
      for (const x of [bytes, pendingTokens, buildSeconds, insertedTokens]) {
        check(x >= 0 && x < 1e9, `a figure is ${x}`);
      }
      check(pendingTokens <= tokens && insertedTokens <= tokens, "more is pending than there is");
      check(decisions.every((d) => d !== ""), "an empty decision");
    },
  },
  {
    name: "life: memory of rows is given back when the last index over them ends",
    run(at) {
      if (at.backend.host === undefined) {
        throw new Unsupported(`Cannot measure memory: that of backend "${at.backend.spec}" is collected some time`);
      }
      const ROUNDS = 40;
      const TOKENS = 16_000;
      const shape = { heads: 1, kvHeads: 1, headDim: 128, scale: 1 };
      const zeros = new Float32Array(TOKENS * 128);
      const [q, lse] = [at.keep(lasting(at, [1, 128])), at.keep(lasting(at, [1]))];
      // Nothing of a round is JavaScript's memory, so that what stays is a leak.
      const round = () => {
        const [keys, values] = [lasting(at, [1, TOKENS, 128], zeros), lasting(at, [1, TOKENS, 128], zeros)];
        const segment = { start: 0, count: TOKENS, sealed: true, keys: keys.tensor, values: values.tensor };
        const kv = { shape, length: TOKENS, segments: [segment] };
        const index = at.create(kv);
        index.add({ start: 0, count: 64 });
        index.commit();
        const fork = at.keep(index.fork(kv));
        // The cache ends first: what is registered lives until the fork ends.
        keys[Symbol.dispose]();
        values[Symbol.dispose]();
        index[Symbol.dispose]();
        fork.search(at.hits, q.tensor, { error: 0, draw: 0 }, lse.tensor);
        check(at.hits.report.keysKept === 64, "a fork lost its tokens with its origin");
        fork[Symbol.dispose]();
      };
      // Builders work through what was cancelled first: behind that, an index that is waited for.
      const small = at.layer({ length: 64, kvHeads: 1, group: 1, headDim: 128 });
      const settled = () => at.built(small)[Symbol.dispose]();
      for (let i = 0; i < 5; i++) round();
      settled();
      const before = Deno.memoryUsage().rss;
      for (let i = 0; i < ROUNDS; i++) round();
      settled();
      const kept = Deno.memoryUsage().rss - before;
      check(kept < ROUNDS * 16e6 / 3, `${(kept / 1e6).toFixed(0)} MB more after ${ROUNDS} rounds of 16 MB`);
    },
  },
];

/** A tensor of sequence memory that ends when it is disposed; zeros unless `data` is given. */
function lasting(at: IndexBench, shape: number[], data?: Float32Array<ArrayBuffer>): { tensor: Tensor } & Disposable {
  const tensor = at.backend.alloc(shape, "f32", "sequence");
  at.backend.write(tensor, data ?? new Float32Array(shape.reduce((a, b) => a * b, 1)));
  return { tensor, [Symbol.dispose]: () => at.backend.free(tensor) };
}
