/**
 * Conformance: decode attention in parts, which spans and hits choose and log-sum-exp merges.
 *
 * @module
 */
import type { AttentionPart, Kernels } from "../backends/backend.ts";
import type { Hits } from "../index/index.ts";
import type { KvLayer } from "../core/kv.ts";
import { Unsupported } from "../core/errors.ts";
import { type Bench, type Case, check, once, same } from "./backend_conformance.ts";
import { KV_TYPES, type KvType, randomCache, segmentOf } from "./backend_conformance_attention.ts";
import { exact, half, Random, type Rounding, single } from "./backend_conformance_twin.ts";

interface Geometry {
  readonly n?: number;
  readonly length: number;
  readonly kvHeads?: number;
  readonly group?: number;
  readonly headDim?: number;
  readonly softcap?: number;
  readonly cuts?: readonly number[];
  readonly start?: number;
  readonly sharp?: number;
}

/** One term of a softmax: a key's row from the cache's beginning, and what is added to its logit. */
interface Term {
  readonly row: number;
  readonly bias: number;
}

/** A cache on the backend, its queries, and a twin that attends to any terms. */
class Problem {
  readonly n: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly length: number;
  readonly start: number;
  readonly kv: KvLayer;
  readonly q: Float32Array<ArrayBuffer>;
  readonly unit: number;
  readonly #keys: Float32Array;
  readonly #values: Float32Array;
  readonly #softcap: number;
  readonly #operand: Rounding;
  readonly #type: KvType;

  constructor(readonly at: Bench, type: KvType, g: Geometry) {
    const { n = 1, length, kvHeads = 2, group = 3, headDim = 64, softcap = 0, cuts = [], start = 0, sharp = 2 } = g;
    [this.n, this.length, this.kvHeads, this.headDim, this.start] = [n, length, kvHeads, headDim, start];
    this.heads = kvHeads * group;
    const [keys, values, q] = once(`parts ${type} ${JSON.stringify(g)}`, () => [
      randomCache(1, type, kvHeads, length, headDim),
      randomCache(2, type, kvHeads, length, headDim),
      new Random(3).floats(n * kvHeads * group * headDim, sharp),
    ]);
    const bounds = [0, ...cuts, length];
    const segments = bounds.slice(1).map((to, i) => {
      const from = bounds[i] as number;
      return segmentOf(at, type, keys, values, kvHeads, length, headDim, from, to, i % 2 === 0 ? 3 : 0, start + from);
    });
    const scale = 1 / Math.sqrt(headDim);
    this.kv = {
      shape: { heads: this.heads, kvHeads, headDim, scale, ...(softcap > 0 ? { softcap } : {}) },
      length,
      segments,
    };
    this.q = q;
    this.#type = type;
    this.#keys = keys.values;
    this.#values = values.values;
    this.#softcap = softcap;
    this.#operand = type !== "f32" && at.subject.attention === "f16" ? half : exact;
    this.unit = this.#operand === half ? 2 ** -12 : 2 ** -24 * (1 + 3 * sharp);
  }

  /** An output of all heads. */
  part(): AttentionPart {
    return { o: this.at.floats([this.n, this.heads, this.headDim]), lse: this.at.floats([this.n, this.heads]) };
  }

  queries() {
    return this.at.floats([this.n, this.heads, this.headDim], this.q);
  }

  /** Tensors of hits, one list a row. */
  hits(lists: readonly (readonly Term[])[], bias = true, room = 3): Hits {
    const capacity = lists.reduce((most, list) => Math.max(most, list.length), 0) + room;
    const tokens = new Int32Array(lists.length * capacity).fill(-1);
    const biases = new Float32Array(tokens.length).fill(NaN);
    lists.forEach((list, r) =>
      list.forEach((term, i) => {
        tokens[r * capacity + i] = this.start + term.row;
        biases[r * capacity + i] = term.bias;
      })
    );
    return {
      tokens: this.at.ints([lists.length, capacity], tokens),
      counts: this.at.ints([lists.length], Int32Array.from(lists, (list) => list.length)),
      ...(bias ? { bias: this.at.floats([lists.length, capacity], biases) } : {}),
    };
  }

  /** What every query head should see, as o and lse. */
  truth(terms: (head: number) => readonly Term[], rounding: Rounding = exact, operand: Rounding = exact) {
    const { n, heads, kvHeads, headDim, length } = this;
    const r = rounding;
    const o = new Float64Array(n * heads * headDim);
    const lse = new Float64Array(n * heads);
    for (let row = 0; row < n * heads; row++) {
      const head = row % heads;
      const kvHead = Math.floor(head / (heads / kvHeads));
      const list = terms(head);
      const logits = list.map(({ row: key, bias }) => {
        let sum = 0;
        const k = (kvHead * length + key) * headDim;
        for (let j = 0; j < headDim; j++) {
          sum = r(sum + r(operand(this.q[row * headDim + j] as number) * operand(this.#keys[k + j] as number)));
        }
        const logit = r(this.kv.shape.scale * sum);
        const capped = this.#softcap > 0 ? r(this.#softcap * r(Math.tanh(r(logit / this.#softcap)))) : logit;
        return r(capped + bias);
      });
      const best = logits.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = logits.map((l) => r(Math.exp(r(l - best))));
      const total = weights.reduce((a, b) => r(a + b), 0);
      lse[row] = list.length === 0 ? -Infinity : r(best + r(Math.log(total)));
      for (let j = 0; j < headDim && list.length > 0; j++) {
        let sum = 0;
        list.forEach(({ row: key }, i) => {
          const v = operand(this.#values[(kvHead * length + key) * headDim + j] as number);
          sum = r(sum + r(operand(weights[i] as number) * v));
        });
        o[row * headDim + j] = r(sum / total);
      }
    }
    return { o, lse };
  }

  /** The truth, and the naive run that sets the tolerance; `what` tells them from those of other terms. */
  twins(terms: (head: number) => readonly Term[], what: string) {
    return once(`parts ${this.#type} ${what} ${this.#operand === half}`, () => ({
      truth: this.truth(terms),
      naive: this.truth(terms, single, this.#operand),
    }));
  }

  /** `part` holds what attending to `terms` gives. */
  expect(part: AttentionPart, terms: (head: number) => readonly Term[], what: string): void {
    const { truth, naive } = this.twins(terms, what);
    const lse = this.at.read(part.lse);
    const sure = [...truth.lse.keys()].filter((i) => truth.lse[i] !== -Infinity);
    truth.lse.forEach((l, i) => {
      if (l === -Infinity) check(lse[i] === -Infinity, `${what}: lse of nothing is ${lse[i]}`);
    });
    const size = Math.sqrt(sure.reduce((sum, i) => sum + Math.max(1, (truth.lse[i] as number) ** 2), 0));
    const off = Math.sqrt(sure.reduce((sum, i) => sum + ((lse[i] as number) - (truth.lse[i] as number)) ** 2, 0));
    const by = Math.sqrt(
      sure.reduce((sum, i) => sum + ((naive.lse[i] as number) - (truth.lse[i] as number)) ** 2, 0),
    );
    const allowed = 2 * Math.max(by, this.unit * size);
    check(off <= allowed, `${what}: lse is off by ${off.toExponential(2)}, allowed ${allowed.toExponential(2)}`);
    this.at.near(part.o, truth.o, naive.o, what, this.unit);
  }
}

/** The kernel, or `Unsupported`: a backend without it serves no retrieval policy. */
function kernel<K extends "attendWindow" | "attendTopk" | "merge">(at: Bench, name: K): NonNullable<Kernels[K]> {
  const found = at.backend.kernels[name];
  if (found === undefined) throw new Unsupported(`Cannot run ${name}: backend "${at.subject.name}" has no such kernel`);
  return found;
}

function rows(from: number, to: number): Term[] {
  return Array.from({ length: to - from }, (_, i) => ({ row: from + i, bias: 0 }));
}

/** About `share` of the rows, each with a bias as samples have. */
function sample(seed: number, length: number, share: number): Term[] {
  const random = new Random(seed);
  return rows(0, length).filter(() => random.uniform() < share).map(({ row }) => ({ row, bias: 4 * random.uniform() }));
}

const GEOMETRIES: readonly Geometry[] = [
  ...[1, 3, 4, 8].map((group) => ({ length: 129, group })),
  ...[64, 80, 96, 128, 256, 33].map((headDim) => ({ length: 97, headDim, kvHeads: 1 })),
  { length: 97, cuts: [1, 33, 64, 96], start: 1000 },
  { length: 129, softcap: 5, sharp: 8 },
  { length: 500, sharp: 30, kvHeads: 1 },
  { length: 1, kvHeads: 3, group: 1 },
  { length: 2000, kvHeads: 1, group: 1 },
];

/** Spans of a cache of `length` rows: ends, a middle, an empty one, neighbours. */
function spansOf(length: number): number[] {
  const at = [0, 0.05, 0.3, 0.3, 0.3, 0.35, 0.35, 0.6, 0.8, 1];
  return at.map((share) => Math.floor(share * length));
}

export const partCases: readonly Case[] = [
  ...KV_TYPES.flatMap((type): Case[] => [
    {
      name: `attendWindow: ${type}`,
      run(at) {
        const attendWindow = kernel(at, "attendWindow");
        for (const g of [...GEOMETRIES, { n: 3, length: 129 }, { n: 2, length: 60, kvHeads: 1, group: 8 }]) {
          const p = new Problem(at, type, g);
          for (const spans of [[0, g.length], spansOf(g.length), []]) {
            const part = p.part();
            const terms: Term[] = [];
            for (let i = 0; i < spans.length; i += 2) terms.push(...rows(spans[i] as number, spans[i + 1] as number));
            attendWindow(part, p.queries(), p.kv, Int32Array.from(spans, (s) => s + p.start));
            p.expect(part, () => terms, `${JSON.stringify(g)} spans ${spans}`);
          }
        }
      },
    },
    {
      name: `attendTopk: ${type}, a list a KV head, or a query head, with bias and without`,
      run(at) {
        const attendTopk = kernel(at, "attendTopk");
        for (const g of GEOMETRIES) {
          const p = new Problem(at, type, g);
          for (const lists of new Set([p.kvHeads, p.heads])) {
            const all = Array.from({ length: lists }, (_, r) => sample(r + 1, g.length, r % 3 === 2 ? 0 : 0.4));
            for (const bias of [true, false]) {
              const part = p.part();
              attendTopk(part, p.queries(), p.kv, p.hits(all, bias));
              const terms = (head: number) => {
                const list = all[Math.floor(head / (p.heads / lists))] as Term[];
                return bias ? list : list.map(({ row }) => ({ row, bias: 0 }));
              };
              p.expect(part, terms, `${JSON.stringify(g)} lists ${lists} bias ${bias}`);
            }
          }
        }
      },
    },
    {
      name: `attendTopk: ${type}, spans and hits of all the rest merge to the whole`,
      run(at) {
        const [attendWindow, attendTopk, merge] = [
          kernel(at, "attendWindow"),
          kernel(at, "attendTopk"),
          kernel(at, "merge"),
        ];
        for (const g of GEOMETRIES) {
          const p = new Problem(at, type, g);
          const window = rows(Math.floor(g.length * 0.8), g.length);
          const hidden = sample(5, Math.floor(g.length * 0.8), 0.5).map(({ row }) => ({ row, bias: 0 }));
          const others = rows(0, Math.floor(g.length * 0.8)).filter(({ row }) => !hidden.some((t) => t.row === row));
          const parts = [p.part(), p.part(), p.part(), p.part()] as const;
          const spans = Int32Array.of(p.start + Math.floor(g.length * 0.8), p.start + g.length);
          attendWindow(parts[0], p.queries(), p.kv, spans);
          attendTopk(parts[1], p.queries(), p.kv, p.hits(Array(p.kvHeads).fill(hidden), false));
          attendTopk(parts[2], p.queries(), p.kv, p.hits(Array(p.heads).fill(others), true, 0));
          attendTopk(parts[3], p.queries(), p.kv, p.hits(Array(p.heads).fill([])));
          p.expect(parts[0], () => window, `${JSON.stringify(g)} window`);
          const terms = () => rows(0, g.length);
          const { truth, naive } = p.twins(terms, `${JSON.stringify(g)} whole`);
          const out = p.part().o;
          merge(out, parts);
          at.near(out, truth.o, naive.o, `${JSON.stringify(g)} merged`, p.unit);
          merge(parts[1].o, [parts[2], parts[0], parts[3], parts[1]]);
          at.near(parts[1].o, truth.o, naive.o, `${JSON.stringify(g)} merged in place`, p.unit);
          const whole = p.part().o;
          at.backend.kernels.attendCausal(whole, p.queries(), p.kv);
          at.near(whole, truth.o, naive.o, `${JSON.stringify(g)} attended at once`, p.unit);
        }
      },
    },
  ]),
  {
    name: "merge: nothing, one part, parts far apart",
    run(at) {
      const merge = kernel(at, "merge");
      const shape = [2, 3, 5];
      const part = (o: number, lse: number): AttentionPart => ({
        o: at.floats(shape, new Float32Array(30).fill(o)),
        lse: at.floats([2, 3], new Float32Array(6).fill(lse)),
      });
      const empty = part(0, -Infinity);
      const result = (...parts: AttentionPart[]) => {
        const out = at.floats(shape);
        merge(out, parts);
        return at.read(out);
      };
      same(result(empty, empty), new Float32Array(30), "nothing");
      same(result(part(7, -300)), new Float32Array(30).fill(7), "one part");
      same(result(empty, part(7, 3)), new Float32Array(30).fill(7), "one part and nothing");
      same(result(part(7, 200), part(9, -200)), new Float32Array(30).fill(7), "a part that dwarfs the other");
      same(result(part(6, 1000), part(8, 1000)), new Float32Array(30).fill(7), "equal parts");
      at.throws(() => result(), "merge");
      at.throws(() => merge(at.floats([2, 3, 4]), [empty]), "");
      at.throws(() => merge(at.floats(shape), [{ ...empty, lse: at.floats([2, 2]) }]), "");
    },
  },
  {
    name: "attendWindow, attendTopk: what does not fit is refused",
    run(at) {
      const [attendWindow, attendTopk] = [kernel(at, "attendWindow"), kernel(at, "attendTopk")];
      const p = new Problem(at, "f16", { length: 20, start: 10, kvHeads: 2, group: 2, headDim: 16 });
      const [part, q] = [p.part(), p.queries()];
      for (const spans of [[9, 12], [10, 31], [15, 12], [12, 15, 14, 16], [10], [10, 12, 13]]) {
        at.throws(() => attendWindow(part, q, p.kv, Int32Array.from(spans)), "span");
      }
      const list = (row: number, bias = 0) => p.hits([[{ row, bias }], []]);
      attendTopk(part, q, p.kv, list(19));
      for (const bad of [list(20), list(-1), list(3, NaN), list(3, Infinity), list(3, -Infinity)]) {
        at.throws(() => attendTopk(part, q, p.kv, bad), "");
      }
      const hits = list(3);
      at.throws(() => attendTopk(part, q, p.kv, { ...hits, counts: at.ints([2], Int32Array.of(99, 0)) }), "");
      at.throws(() => attendTopk(part, q, p.kv, { ...hits, counts: at.ints([2], Int32Array.of(-1, 0)) }), "");
      at.throws(() => attendTopk(part, q, p.kv, { ...hits, counts: at.ints([3], new Int32Array(3)) }), "");
      at.throws(() => attendTopk(part, q, p.kv, p.hits([[], [], []])), "");
      at.throws(() => attendTopk(part, at.floats([2, 4, 16], new Float32Array(128)), p.kv, hits), "");
      at.throws(() => attendTopk({ ...part, lse: at.floats([1, 3]) }, q, p.kv, hits), "");
      at.throws(() => attendWindow({ ...part, o: at.floats([1, 4, 8]) }, q, p.kv, Int32Array.of(10, 12)), "");
    },
  },
];
