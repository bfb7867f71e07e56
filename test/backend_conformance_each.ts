/**
 * Conformance: one token each of several caches, as decoding sequences side by side need it. What each gets are the bits that it
 * gets alone. Run through `Ops`, which does without the kernels where a backend lacks them.
 *
 * @module
 */
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import { Ops } from "../backends/ops.ts";
import { type Bench, type Case, check, same } from "./backend_conformance.ts";
import { KV_TYPES, type KvType, randomCache, segmentOf } from "./backend_conformance_attention.ts";
import { Random } from "./backend_conformance_twin.ts";

interface Geometry {
  readonly kvHeads: number;
  readonly group: number;
  readonly headDim: number;
  readonly window?: number;
  readonly softcap?: number;
}

/** A cache of `length` random tokens for each length, cut into segments at `cuts`. */
function cachesOf(
  at: Bench,
  type: KvType,
  g: Geometry,
  lengths: readonly number[],
  cuts: readonly number[],
): KvLayer[] {
  const { kvHeads, group, headDim, window, softcap } = g;
  const shape = {
    heads: kvHeads * group,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
    ...(window === undefined ? {} : { slidingWindow: window }),
    ...(softcap === undefined ? {} : { softcap }),
  };
  return lengths.map((length, i) => {
    const keys = randomCache(2 * i + 1, type, kvHeads, length, headDim);
    const values = randomCache(2 * i + 2, type, kvHeads, length, headDim);
    const bounds = [0, ...cuts.filter((cut) => cut < length), length];
    const segments = bounds.slice(1).map((to, j) => {
      const from = bounds[j] as number;
      return segmentOf(at, type, keys, values, kvHeads, length, headDim, from, to, j % 2 === 0 ? 3 : 0, from);
    });
    return { shape, length, segments };
  });
}

function attendEach(
  at: Bench,
  type: KvType,
  g: Geometry,
  lengths: readonly number[],
  cuts: readonly number[] = [],
): void {
  const ops = new Ops(at.backend);
  const caches = cachesOf(at, type, g, lengths, cuts);
  const shape = [lengths.length, g.kvHeads * g.group, g.headDim] as const;
  const q = at.misaligned(shape, new Random(99).floats(shape[0] * shape[1] * shape[2], 2), 1);
  const together = at.floats(shape);
  ops.attendEach(together, q, caches);
  const alone = at.floats(shape);
  for (const [i, kv] of caches.entries()) at.backend.kernels.attendCausal(ops.rows(alone, i, 1), ops.rows(q, i, 1), kv);
  same(at.read(together), at.read(alone), `${type} ${JSON.stringify({ ...g, lengths, cuts })}`);
}

function appendEach(at: Bench, type: KvType): void {
  const ops = new Ops(at.backend);
  const [kvHeads, headDim] = [3, 33];
  const rows = Int32Array.of(0, 4, 2, 6);
  const shape = [rows.length, kvHeads, headDim] as const;
  const floats = (seed: number) => new Random(seed).floats(shape[0] * shape[1] * shape[2], 3);
  const [k, v] = [at.misaligned(shape, floats(1), 1), at.floats(shape, floats(2))];
  const make = () =>
    cachesOf(at, type, { kvHeads, group: 1, headDim }, [4, 4, 4, 4], []).map((kv) => kv.segments[0] as KvSegment);
  const [together, alone] = [make(), make()];
  ops.appendEach(together, rows, k, v);
  rows.forEach((row, i) => at.backend.kernels.append(alone[i] as KvSegment, row, ops.rows(k, i, 1), ops.rows(v, i, 1)));
  for (const name of ["keys", "values", "keyScales", "valueScales"] as const) {
    // The spare rows have undefined contents but where something was stored.
    rows.forEach((row, i) => {
      const [a, b] = [together[i]?.[name], alone[i]?.[name]];
      check((a === undefined) === (b === undefined), `${name} are there or not`);
      if (a !== undefined && b !== undefined) same(stored(at, a, row), stored(at, b, row), `${type} ${name} of ${i}`);
    });
  }
}

/** The rows of all heads that hold something: the first four, and `row`. */
function stored(at: Bench, tensor: Tensor, row: number): number[] {
  const [heads = 0, capacity = 0, width = 1] = tensor.shape;
  const all = at.read(tensor);
  const kept: number[] = [];
  for (let h = 0; h < heads; h++) {
    for (const r of [0, 1, 2, 3, row]) {
      kept.push(...all.subarray((h * capacity + r) * width, (h * capacity + r + 1) * width));
    }
  }
  return kept;
}

export const eachCases: readonly Case[] = [
  ...KV_TYPES.flatMap((type): Case[] => [
    { name: `appendEach: ${type}, as append of each`, run: (at) => appendEach(at, type) },
    {
      name: `attendEach: ${type}, as attendCausal of each`,
      run(at) {
        attendEach(at, type, { kvHeads: 3, group: 3, headDim: 64 }, [700, 1, 97, 129, 128, 3, 513, 64, 65], [64, 300]);
        attendEach(at, type, { kvHeads: 1, group: 1, headDim: 33 }, [1, 2]);
        attendEach(at, type, { kvHeads: 2, group: 4, headDim: 80, window: 97, softcap: 5 }, [130, 400, 40], [128]);
        attendEach(at, type, { kvHeads: 2, group: 1, headDim: 8 }, [1300]);
        attendEach(at, type, { kvHeads: 2, group: 1, headDim: 8 }, []);
      },
    },
  ]),
  {
    name: "attendEach: what does not fit is refused",
    run(at) {
      const ops = new Ops(at.backend);
      const g = { kvHeads: 2, group: 2, headDim: 8 };
      const [kv, other] = cachesOf(at, "f16", g, [5, 9], []) as [KvLayer, KvLayer];
      const [wider] = cachesOf(at, "f16", { ...g, headDim: 9 }, [5], []) as [KvLayer];
      const q = (n: number, headDim = 8) => at.floats([n, 4, headDim], new Float32Array(n * 4 * headDim));
      const run = (caches: KvLayer[], x = q(2)) => ops.attendEach(at.floats(x.shape), x, caches);
      run([kv, other]);
      at.throws(() => run([kv]), "");
      at.throws(() => run([kv, other, kv]), "");
      at.throws(() => run([kv, wider]), "");
      at.throws(() => run([kv, other], q(2, 9)), "");
      at.throws(() => run([kv, { ...other, length: 10 }]), "");
      at.throws(() => run([kv, { ...other, length: 0, segments: [] }]), "");
      at.throws(() => ops.attendEach(at.floats([2, 4, 9]), q(2), [kv, other]), "");
    },
  },
  {
    name: "appendEach: what does not fit is refused",
    run(at) {
      const ops = new Ops(at.backend);
      const g = { kvHeads: 2, group: 1, headDim: 8 };
      const [a, b] = cachesOf(at, "f16", g, [4, 4], []).map((kv) => kv.segments[0]) as [KvSegment, KvSegment];
      const [wider] = cachesOf(at, "f16", { ...g, headDim: 9 }, [4], []).map((kv) => kv.segments[0]) as [KvSegment];
      const k = at.floats([2, 2, 8], new Float32Array(32));
      const run = (segments: KvSegment[], rows: number[], x = k) =>
        ops.appendEach(segments, Int32Array.from(rows), x, x);
      run([a, b], [4, 6]);
      for (const row of [7, -1, 2 ** 30]) at.throws(() => run([a, b], [4, row]), "");
      at.throws(() => run([a], [4]), "");
      at.throws(() => run([a, b], [4]), "");
      at.throws(() => run([a, wider], [4, 4]), "");
      at.throws(() => run([a, { ...b, sealed: true }], [4, 4]), "sealed");
      at.throws(() => ops.appendEach([a, b], Int32Array.of(4, 4), k, at.floats([2, 1, 8])), "");
    },
  },
];
