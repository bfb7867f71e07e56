/**
 * Conformance: embedding, norms, sums, gates, rotations.
 *
 * @module
 */
import type { DType } from "../core/tensor.ts";
import { DTYPES } from "../core/dtype.ts";
import { type Bench, type Case, once, same } from "./backend_conformance.ts";
import * as twin from "./backend_conformance_twin.ts";

const { exact, Random, single } = twin;

/** Every type a weight may have. */
export const WEIGHT_TYPES = Object.keys(DTYPES).filter((d) => d !== "i32" && d !== "i8") as DType[];

const ROWS = [0, 1, 3, 97, 129];

function embed(dtype: DType): Case {
  return {
    name: `embed: ${dtype}`,
    run(at) {
      for (
        const width of DTYPES[dtype].elements === 256 ? [256, 768] : DTYPES[dtype].elements === 32 ? [32, 576] : [1, 97]
      ) {
        const { bytes, values } = once(
          `embed ${dtype} ${width}`,
          () => twin.randomWeight(new Random(1), 37, width, dtype),
        );
        const table = at.weight([37, width], dtype, bytes);
        for (const [n, scale] of [[0, 1], [1, 1], [97, 1], [3, Math.sqrt(width)]] as const) {
          const tokens = Int32Array.from({ length: n }, (_, i) => (i * 23 + 36) % 37);
          const out = at.floats([n, width]);
          at.backend.kernels.embed(out, table, at.ints([n], tokens), scale);
          const from = (i: number) => values[(tokens[Math.floor(i / width)] as number) * width + i % width] as number;
          const truth = Float64Array.from({ length: n * width }, (_, i) => from(i) * scale);
          at.near(out, truth, truth, `width ${width}, ${n} tokens, scale ${scale}`);
        }
        const out = at.floats([2, width]);
        for (const id of [37, -1, 0x7fffffff, -0x80000000]) {
          at.throws(() => at.backend.kernels.embed(out, table, at.ints([2], Int32Array.of(0, id)), 1), String(id));
        }
      }
    },
  };
}

function rmsNorm(at: Bench, shape: readonly number[], offset: number, inPlace: boolean): void {
  const width = shape.at(-1) as number;
  const count = shape.reduce((a, b) => a * b, 1);
  const random = new Random(count + offset);
  const x = random.floats(count, 3);
  const w = random.floats(width);
  const from = offset === 0 ? at.floats(shape, x) : at.misaligned(shape, x, offset);
  const weight = at.tensor([width], "f32", w, "model");
  const out = inPlace ? from : at.floats(shape);
  at.backend.kernels.rmsNorm(out, from, weight, 1e-5);
  const what = `[${shape}] at ${offset}${inPlace ? ", in place" : ""}`;
  at.near(out, twin.rmsNorm(x, w, 1e-5, exact), twin.rmsNorm(x, w, 1e-5, single), what);
}

function binary(
  name: string,
  run: (
    at: Bench,
    out: ReturnType<Bench["floats"]>,
    x: ReturnType<Bench["floats"]>,
    y: ReturnType<Bench["floats"]>,
  ) => void,
  compute: (x: Float32Array, y: Float32Array, r: twin.Rounding) => Float64Array,
): Case {
  return {
    name,
    run(at) {
      for (const shape of [[0, 5], [1, 1], [3, 3], [3, 97], [129, 129], [2, 3, 65], [1, 1536]]) {
        const count = shape.reduce((a, b) => a * b, 1);
        const random = new Random(count);
        const [x, y] = [random.floats(count, 4), random.floats(count, 4)];
        const [truth, naive] = [compute(x, y, exact), compute(x, y, single)];
        for (const offset of [0, 1, 3]) {
          const make = (v: Float32Array<ArrayBuffer>) =>
            offset === 0 ? at.floats(shape, v) : at.misaligned(shape, v, offset);
          const [a, b, out] = [make(x), make(y), make(new Float32Array(count))];
          run(at, out, a, b);
          at.near(out, truth, naive, `[${shape}] at ${offset}`);
          run(at, a, a, b);
          at.near(a, truth, naive, `[${shape}] at ${offset}, in place`);
        }
      }
    },
  };
}

/** The first head of each of n rows of x [n, heads, headDim]. */
function firstHeads<T extends Float32Array | Float64Array>(x: T, n: number, headDim: number): T {
  return x.filter((_, i) => i % (x.length / n) < headDim) as T;
}

export const layerCases: readonly Case[] = [
  ...WEIGHT_TYPES.map(embed),
  {
    name: "rmsNorm: odd sizes, misaligned, in place",
    run(at) {
      for (const n of ROWS) for (const width of [1, 3, 97, 129]) rmsNorm(at, [n, width], 0, false);
      for (const offset of [1, 3]) rmsNorm(at, [3, 97], offset, false);
      rmsNorm(at, [3, 576], 0, true);
      rmsNorm(at, [3, 5, 65], 1, true);
      rmsNorm(at, [7], 0, false);
    },
  },
  {
    name: "rmsNorm: zeros stay zero, large rows do not overflow",
    run(at) {
      const weight = at.tensor([33], "f32", new Float32Array(33).fill(1), "model");
      const x = at.floats([2, 33], Float32Array.from({ length: 66 }, (_, i) => i < 33 ? 0 : 1e15));
      at.backend.kernels.rmsNorm(x, x, weight, 1e-6);
      const want = Float64Array.from({ length: 66 }, (_, i) => i < 33 ? 0 : 1);
      at.near(x, want, want, "rows");
    },
  },
  {
    name: "addRmsNorm: the bits of add and rmsNorm, at odd sizes, misaligned, into y",
    run(at) {
      const { kernels } = at.backend;
      for (const shape of [[0, 5], [1, 1], [3, 97], [129, 33], [2, 3, 65], [7], [1, 576]]) {
        const count = shape.reduce((a, b) => a * b, 1);
        const random = new Random(count);
        const [x, y, w] = [random.floats(count, 4), random.floats(count, 4), random.floats(shape.at(-1) as number)];
        const weight = at.tensor([w.length], "f32", w, "model");
        for (const offset of [0, 1, 3]) {
          const make = (v: Float32Array<ArrayBuffer>) =>
            offset === 0 ? at.floats(shape, v) : at.misaligned(shape, v, offset);
          const what = `[${shape}] at ${offset}`;
          const [sum, want, more, fresh] = [make(x), make(y), make(y), make(new Float32Array(count))];
          kernels.add(sum, sum, more);
          kernels.rmsNorm(want, sum, weight, 1e-5);
          for (const out of [fresh, more]) {
            const stream = make(x);
            kernels.addRmsNorm(out, stream, more, weight, 1e-5);
            same(at.read(stream), at.read(sum), `${what}: x`);
            same(at.read(out), at.read(want), `${what}: out`);
          }
        }
      }
    },
  },
  binary("add: same shape", (at, out, x, y) => at.backend.kernels.add(out, x, y), twin.add),
  {
    name: "add: a row to every row",
    run(at) {
      for (const [n, width] of [[0, 3], [1, 1], [3, 97], [129, 5]] as const) {
        const random = new Random(n);
        const [x, y] = [random.floats(n * width), random.floats(width)];
        for (const bias of [at.floats([width], y), at.misaligned([width], y, 1)]) {
          const a = at.floats([n, width], x);
          at.backend.kernels.add(a, a, bias);
          at.near(a, twin.add(x, y, exact), twin.add(x, y, single), `[${n}, ${width}]`);
        }
      }
    },
  },
  binary(
    "glu: silu",
    (at, out, x, y) => at.backend.kernels.glu(out, x, y, "silu"),
    (x, y, r) => twin.glu(x, y, "silu", r),
  ),
  binary(
    "glu: gelu",
    (at, out, x, y) => at.backend.kernels.glu(out, x, y, "gelu"),
    (x, y, r) => twin.glu(x, y, "gelu", r),
  ),
  {
    name: "glu: extremes, out in up's place",
    run(at) {
      const gate = Float32Array.of(0, -0, 1e-30, -1e-30, 30, -30, 100, -100, 1e4, -1e4, 3e38, -3e38, 0.5);
      const up = new Float32Array(gate.length).fill(0.5);
      for (const activation of ["silu", "gelu"] as const) {
        const [g, u] = [at.floats([gate.length], gate), at.floats([gate.length], up)];
        at.backend.kernels.glu(u, g, u, activation);
        const want = twin.glu(gate, up, activation, exact);
        const got = at.read(u);
        // Element by element: the large ones would hide the others in a norm.
        for (let i = 0; i < want.length; i++) {
          const one = at.floats([1], Float32Array.of(got[i] as number));
          at.near(one, want.slice(i, i + 1), Float64Array.of((want[i] as number) + 1e-7), `${activation}(${gate[i]})`);
        }
      }
    },
  },
  {
    name: "ropeTable: angles in double precision",
    run(at) {
      const frequencies = Float64Array.from({ length: 33 }, (_, i) => 1e6 ** (-i / 33));
      for (
        const [positions, magnitude] of [[[], 1], [[0], 1], [[1, 5, 131071], 1.25], [[1048576, 7, 99999], 1]] as const
      ) {
        const at32 = Int32Array.from(positions);
        const out = at.floats([at32.length, 33, 2]);
        const rope = { frequencies, dims: 66, pairing: "halves", magnitude } as const;
        at.backend.kernels.ropeTable(out, at.ints([at32.length], at32), rope);
        const truth = twin.ropeTable(at32, frequencies, magnitude, exact);
        at.near(out, truth, twin.ropeTable(at32, frequencies, magnitude, single), `positions ${positions}`);
      }
    },
  },
  ...(["halves", "neighbours"] as const).map((pairing): Case => ({
    name: `rope: ${pairing}`,
    run(at) {
      for (const heads of [1, 3, 4, 8]) {
        for (
          const [n, headDim, pairs] of [[0, 8, 4], [1, 64, 32], [3, 64, 16], [97, 6, 3], [5, 80, 40], [
            2,
            33,
            16,
          ]] as const
        ) {
          const random = new Random(heads * n + headDim);
          const x = random.floats(n * heads * headDim);
          const table = random.floats(n * pairs * 2);
          const truth = twin.rope(x, table, n, headDim, pairing, exact);
          const naive = twin.rope(x, table, n, headDim, pairing, single);
          const angles = at.floats([n, pairs, 2], table);
          for (const offset of [0, 1]) {
            const y = offset === 0 ? at.floats([n, heads, headDim], x) : at.misaligned([n, heads, headDim], x, offset);
            const one = at.floats([n, 1, headDim], firstHeads(x, n, headDim));
            at.backend.kernels.rope([y, one], angles, pairing);
            const what = `[${n}, ${heads}, ${headDim}], ${pairs} pairs at ${offset}`;
            at.near(y, truth, naive, what);
            at.near(one, firstHeads(truth, n, headDim), firstHeads(naive, n, headDim), `${what}, first heads`);
          }
        }
      }
    },
  })),
];
