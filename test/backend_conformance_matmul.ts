/**
 * Conformance: matrix products, every weight type.
 *
 * @module
 */
import type { DType } from "../core/tensor.ts";
import { DTYPES, isBlockType } from "../core/dtype.ts";
import { type Bench, type Case, once, same } from "./backend_conformance.ts";
import { WEIGHT_TYPES } from "./backend_conformance_layers.ts";
import * as twin from "./backend_conformance_twin.ts";

const { exact, Random, single } = twin;

/** [n, m, k], k in blocks of the type. */
const SIZES = [[0, 3, 1], [1, 0, 1], [1, 1, 1], [3, 3, 2], [1, 97, 3], [97, 1, 1], [129, 33, 2], [3, 129, 5], [
  1,
  129,
  9,
]];

function weightOf(dtype: DType, m: number, k: number): ReturnType<typeof twin.randomWeight> {
  return once(`weight ${dtype} ${m} ${k}`, () => twin.randomWeight(new Random(m + k), m, k, dtype));
}

function product(at: Bench, dtype: DType, n: number, m: number, k: number, offset: number): void {
  const { bytes, values } = weightOf(dtype, m, k);
  const arithmetic = isBlockType(dtype) ? at.subject.products ?? "f32" : "f32";
  const key = `matmul ${dtype} ${n} ${m} ${k}`;
  const { x, truth } = once(key, () => {
    // One value far from the rest, as real activations have.
    const x = new Random(n * 7 + k).floats(n * k);
    for (let i = 0; i < n; i++) if (k > 4) x[i * k + (i % k)] = 20;
    return { x, truth: twin.matmul(x, values, n, m, k, exact) };
  });
  const { naive, noise } = naiveRun(`${key} ${arithmetic}`, x, values, n, m, k, arithmetic);
  const w = at.weight([m, k], dtype, bytes);
  const from = offset === 0 ? at.floats([n, k], x) : at.misaligned([n, k], x, offset);
  const out = offset === 0 ? at.floats([n, m]) : at.misaligned([n, m], new Float32Array(n * m), offset);
  at.backend.kernels.matmul([out], from, [w]);
  at.near(out, truth, naive, `[${n}, ${k}] · [${m}, ${k}]ᵀ at ${offset}`, undefined, noise);
}

function naiveRun(
  key: string,
  x: Float32Array,
  w: Float32Array,
  n: number,
  m: number,
  k: number,
  arithmetic: twin.Arithmetic,
): { naive: Float64Array; noise: number } {
  return once(key, () => ({
    naive: twin.matmul(x, w, n, m, k, single, arithmetic),
    noise: twin.matmulNoise(x, w, n, m, k, arithmetic),
  }));
}

export const matmulCases: readonly Case[] = [
  ...WEIGHT_TYPES.map((dtype): Case => ({
    name: `matmul: ${dtype}`,
    run(at) {
      const block = DTYPES[dtype].elements;
      for (const [n, m, blocks] of SIZES as [number, number, number][]) {
        const k = block === 1 ? blocks * 33 : block * Math.min(blocks, block === 256 ? 3 : 9);
        product(at, dtype, n, m, k, 0);
      }
      const k = block === 1 ? 31 : block;
      product(at, dtype, 3, 17, k, 1);
      product(at, dtype, 33, 17, k, 3);
    },
  })),
  {
    name: "matmul: many rows, so that threads share them",
    run(at) {
      for (const dtype of ["f16", "q4_1", "q6_k"] as const) product(at, dtype, 300, 200, 256, 0);
    },
  },
  {
    name: "matmul: several weights of several types in one call",
    run(at) {
      for (const n of [1, 3, 37]) {
        const x = new Random(n).floats(n * 256);
        const types: DType[] = ["q4_1", "q6_k", "f16", "q8_0", "f32", "q4_k", "q5_0", "bf16", "iq4_nl"];
        const rows = [33, 1, 97, 16, 3, 64, 129, 0, 48];
        const weights = types.map((dtype, i) => weightOf(dtype, rows[i] as number, 256));
        const ws = weights.map(({ bytes }, i) => at.weight([rows[i] as number, 256], types[i] as DType, bytes));
        const outs = rows.map((m) => at.floats([n, m]));
        at.backend.kernels.matmul(outs, at.floats([n, 256], x), ws);
        for (let i = 0; i < types.length; i++) {
          const { values } = weights[i] as { values: Float32Array };
          const m = rows[i] as number;
          const arithmetic = isBlockType(types[i] as DType) ? at.subject.products ?? "f32" : "f32";
          const { naive, noise } = naiveRun(`mixed ${i} ${n} ${arithmetic}`, x, values, n, m, 256, arithmetic);
          const truth = once(`mixed ${i} ${n}`, () => twin.matmul(x, values, n, m, 256, exact));
          const out = outs[i] as ReturnType<Bench["floats"]>;
          at.near(out, truth, naive, `${types[i]}, ${n} rows`, undefined, noise);
        }
      }
    },
  },
  {
    name: "matmul: a weight written in pieces equals one written at once",
    run(at) {
      for (const dtype of WEIGHT_TYPES) {
        const { bytes } = weightOf(dtype, 53, 256);
        const rowBytes = bytes.length / 53;
        const x = at.floats([2, 256], new Random(5).floats(512));
        const whole = at.weight([53, 256], dtype, bytes);
        const pieces = at.tensor([53, 256], dtype, undefined, "model");
        for (const [from, to] of [[40, 53], [0, 1], [17, 40], [1, 17]] as const) {
          // An odd address, as rows inside a mapped file have.
          const odd = new Uint8Array(new ArrayBuffer((to - from) * rowBytes + 1), 1);
          odd.set(bytes.subarray(from * rowBytes, to * rowBytes));
          at.backend.write(pieces, odd, from);
        }
        const outs = [at.floats([2, 53]), at.floats([2, 53])] as const;
        at.backend.kernels.matmul(outs, x, [whole, pieces]);
        same(at.read(outs[1]), at.read(outs[0]), dtype);
      }
    },
  },
  {
    name: "matmul: rows do not depend on their neighbours' count beyond rounding",
    run(at) {
      // Chunked prefill and decode must see the same model: row 2 alone and row 2 among 5 and 70.
      const { bytes, values } = weightOf("q4_0", 64, 512);
      const w = at.weight([64, 512], "q4_0", bytes);
      const x = new Random(8).floats(70 * 512);
      const row = x.slice(2 * 512, 3 * 512);
      const truth = twin.matmul(row, values, 1, 64, 512, exact);
      const arithmetic = at.subject.products ?? "f32";
      const { naive, noise } = naiveRun(`row ${arithmetic}`, row, values, 1, 64, 512, arithmetic);
      for (const n of [3, 5, 70]) {
        const out = at.floats([n, 64]);
        at.backend.kernels.matmul([out], at.floats([n, 512], x.slice(0, n * 512)), [w]);
        at.near(at.backend.view(out, [64], 128), truth, naive, `row 2 of ${n}`, undefined, noise);
      }
    },
  },
  {
    name: "matmul: zeros and large values",
    run(at) {
      const arithmetic = at.subject.products ?? "f32";
      const { bytes, values } = weightOf("q8_0", 33, 64);
      const w = at.weight([33, 64], "q8_0", bytes);
      const x = new Float32Array(3 * 64);
      for (let j = 0; j < 64; j++) x[64 + j] = 1e8 * (j % 3 - 1), x[128 + j] = 1e-12 * (j % 5);
      const out = at.floats([3, 33]);
      at.backend.kernels.matmul([out], at.floats([3, 64], x), [w]);
      for (let i = 0; i < 3; i++) {
        // Halves have no such range, so that their naive run is taken at scale 1.
        const factor = [1, 1e8, 1e-12][i] as number;
        const row = x.slice(i * 64, (i + 1) * 64);
        const truth = twin.matmul(row, values, 1, 33, 64, exact);
        const one = row.map((v) => v / factor);
        const { naive, noise } = naiveRun(`range ${i} ${arithmetic}`, one, values, 1, 33, 64, arithmetic);
        const scaled = naive.map((v) => v * factor);
        at.near(at.backend.view(out, [33], i * 33), truth, scaled, `row ${i}`, undefined, noise * factor);
      }
    },
  },
  {
    name: "matmul: x and outputs split into heads are the same numbers",
    run(at) {
      const { kernels } = at.backend;
      for (const dtype of ["q4_1", "f32"] as const) {
        const w = at.weight([33, 96], dtype, weightOf(dtype, 33, 96).bytes);
        for (const n of [0, 1, 7, 37]) {
          const x = new Random(n).floats(n * 96);
          const [want, heads] = [at.floats([n, 33]), at.floats([n, 3, 11])];
          kernels.matmul([want], at.floats([n, 96], x), [w]);
          kernels.matmul([heads], at.floats([n, 4, 24], x), [w]);
          same(at.read(heads), at.read(want), `${dtype}, ${n} rows`);
        }
      }
    },
  },
  {
    name: "matmulGlu: the bits of matmul and glu, for rows of any number and weights of two types",
    run(at) {
      const { kernels } = at.backend;
      const types: [DType, DType][] = [["q4_1", "q4_1"], ["q4_k", "q6_k"], ["f16", "q8_0"], ["f32", "bf16"]];
      for (const [one, other] of types) {
        for (const m of [0, 1, 33, 129]) {
          // Other numbers than the gate's, also where the types are the same.
          const gate = at.weight([m, 256], one, weightOf(one, m, 256).bytes);
          const up = at.weight([m, 256], other, twin.randomWeight(new Random(m + 9), m, 256, other).bytes);
          for (const n of [0, 1, 2, 5, 17, 97]) {
            const offset = n % 3;
            const make = (shape: number[], v: Float32Array<ArrayBuffer>) =>
              offset === 0 ? at.floats(shape, v) : at.misaligned(shape, v, offset);
            const x = make([n, 256], new Random(n + m).floats(n * 256));
            for (const activation of ["silu", "gelu"] as const) {
              const [g, u] = [at.floats([n, m]), at.floats([n, m])];
              kernels.matmul([g, u], x, [gate, up]);
              kernels.glu(g, g, u, activation);
              const out = make([n, m], new Float32Array(n * m).fill(NaN));
              kernels.matmulGlu(out, x, gate, up, activation);
              same(at.read(out), at.read(g), `${one} and ${other}, [${n}, 256] · [${m}, 256]ᵀ, ${activation}`);
            }
          }
        }
      }
    },
  },
  {
    name: "matmulGlu: x split into heads is the same numbers; shapes that do not fit are refused",
    run(at) {
      const { kernels } = at.backend;
      const zeros = (m: number, k: number) => at.weight([m, k], "f32", new Uint8Array(m * k * 4));
      const gate = at.weight([5, 32], "f32", weightOf("f32", 5, 32).bytes);
      const up = at.weight([5, 32], "q8_0", weightOf("q8_0", 5, 32).bytes);
      const x = new Random(3).floats(3 * 32);
      const [flat, split] = [at.floats([3, 5]), at.floats([3, 5])];
      kernels.matmulGlu(flat, at.floats([3, 32], x), gate, up, "silu");
      kernels.matmulGlu(split, at.floats([3, 4, 8], x), gate, up, "silu");
      same(at.read(split), at.read(flat), "heads");
      const input = at.floats([3, 32], x);
      const refused = (out: readonly number[], g: typeof gate, u: typeof gate, what: string) =>
        at.throws(() => kernels.matmulGlu(at.floats(out), input, g, u, "silu"), what);
      refused([3, 6], gate, up, "");
      refused([2, 5], gate, up, "");
      refused([3, 5], gate, zeros(6, 32), "");
      refused([3, 5], zeros(6, 32), up, "");
      refused([3, 5], zeros(5, 31), up, "");
      refused([3, 5], gate, zeros(5, 31), "");
    },
  },
  {
    name: "matmul: shapes that do not fit are refused",
    run(at) {
      const w = at.weight([3, 32], "f32", new Uint8Array(3 * 32 * 4));
      const { kernels } = at.backend;
      at.throws(() => kernels.matmul([at.floats([2, 4])], at.floats([2, 32]), [w]), "");
      at.throws(() => kernels.matmul([at.floats([2, 3])], at.floats([2, 31]), [w]), "");
      at.throws(() => kernels.matmul([at.floats([1, 3])], at.floats([2, 32]), [w]), "");
      at.throws(() => kernels.matmul([at.floats([2, 2, 2])], at.floats([2, 32]), [w]), "");
      at.throws(() => kernels.matmul([at.floats([1, 2, 3])], at.floats([2, 32]), [w]), "");
      at.throws(() => kernels.matmul([], at.floats([2, 32]), [w]), "");
      kernels.matmul([], at.floats([2, 32]), []);
    },
  },
];
