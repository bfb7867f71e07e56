/**
 * The flat index of a CUDA device, run by the CPU: laws of indexes that are quick there, and the CPU's own hits.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import type { Goal } from "../index/index.ts";
import { openBackend } from "../backends/mod.ts";
import { IndexRegistry } from "../index/mod.ts";
import { IndexBench, laws, runLaw } from "./index_conformance.ts";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";
import { load, run } from "./policy_fixture.ts";

const missing = await prepareEmulated("the device's index is");

/** Those that take a second or two in emulation. */
const QUICK = [
  "search: an empty index",
  "search: fewer keys",
  "search: a cache of i8",
  "search: a soft cap",
  "search: keys and queries",
  "search: what is no goal",
  "life: tokens are found",
  "life: tokens in another order",
  "life: a fork of a fork",
  "life: a saved index",
  "life: the end comes once",
  "draws: equal draws",
  "draws: a smaller error",
];

const types = missing === "" ? new IndexRegistry() : undefined;

const suite = missing === "" ? describe : describe.skip;
suite("the flat index of a CUDA device, emulated", () => {
  const opened = new Map<string, Backend>();
  const open = (spec: string) => {
    const known = opened.get(spec) ?? openBackend(spec, emulatedCuda);
    opened.set(spec, known);
    return known;
  };
  afterAll(() => opened.forEach((backend) => backend[Symbol.dispose]()));

  for (const law of laws.filter(({ name }) => QUICK.some((start) => name.startsWith(start)))) {
    it(law.name, () => {
      assert(types !== undefined);
      const result = runLaw({ spec: "flat:codes=int4", types, backend: open("cuda-emulated") }, law);
      // Indexes on a device have no files.
      assertEquals(result.outcome, law.name.startsWith("life: a saved") ? "unsupported" : "passed", result.detail);
    });
  }

  /**
   * Of 4-bit codes the CPU draws by two planes, which decides a few keys otherwise. The portable kernels round queries as a device does; those
   * for AVX2 have a bit less a plane, which decides 3 hits of 1,000 otherwise.
   */
  for (const [codes, share] of [["int8", 0.998], ["int4", 0.97]] as const) {
    it(`keeps what the CPU's keeps, codes=${codes}`, () => keepsTheSame(codes, share));
  }

  it("attends to what it finds as to hits that were handed over, to the bit", () => {
    assert(types !== undefined);
    const backend = open("cuda-emulated");
    const at = new IndexBench({ spec: "flat:codes=int4", types, backend });
    const layer = at.layer({ length: 700, group: 3, headDim: 64, type: "f16", start: 7, segmentRows: 300 });
    const { heads, headDim } = layer.shape;
    const index = at.built(layer, 700);
    assert(index.attend !== undefined && backend.kernels.attendTopk !== undefined);
    const step = (shape: readonly number[], data?: Float32Array<ArrayBuffer>) => {
      const made = backend.alloc(shape, "f32", "step");
      if (data !== undefined) backend.write(made, data);
      return made;
    };
    const part = () => ({ o: step([1, heads, headDim]), lse: step([1, heads]) });
    const goals: Goal[] = [{ error: 0.1, draw: 1 }, { error: 0, draw: 2 }, { topk: 40, draw: 3 }];
    for (const goal of [...goals, { topk: 40, tail: "sample", draw: 4 } as const]) {
      const q = layer.query();
      const found = at.search(index, layer, q, goal, Array(heads).fill(2));
      const [query, exact] = [step([1, heads, headDim], q), step([1, heads], new Float32Array(heads).fill(2))];
      const [handed, fused] = [part(), part()];
      backend.kernels.attendTopk(handed, query, layer.filled(), at.hits);
      const report = index.attend(fused, query, goal, exact);
      assertEquals(report, found.report);
      assert(report.keysKept > 0);
      assertEquals(backend.read(fused.o), backend.read(handed.o));
      assertEquals(backend.read(fused.lse), backend.read(handed.lse));
      backend.endStep();
    }
    const q = step([1, heads, headDim], new Float32Array(heads * headDim));
    assertThrows(
      () => index.attend?.(part(), q, { topk: 4, tail: "surrogate", draw: 1 }, part().lse),
      Error,
      "surrogates",
    );
    const wrong = { o: step([1, heads, headDim + 1]), lse: step([1, heads]) };
    assertThrows(() => index.attend?.(wrong, q, { topk: 4, draw: 1 }, part().lse), RangeError);
    backend.endStep();
    at.clean();
    // Where rows lie on the host nothing on the device can attend to them.
    const apart = new IndexBench({ spec: "flat:codes=int4", types, backend: open("hybrid-emulated:codes=device") });
    assertEquals(apart.create(apart.layer({ length: 100, group: 1, headDim: 64 }).filled()).attend, undefined);
    apart.clean();
  });

  it("decodes alike, to the bit, whether anybody looks at hits or not", async () => {
    using loaded = await load("cuda-emulated", emulatedCuda);
    for (const goal of ["error=0.2", "budget=12"]) {
      const options = {
        policy: `retrieval:${goal},min_length=0,sinks=4,window=16`,
        index: "flat:codes=int8",
        end: 180,
      };
      assertEquals(run(loaded, options), run(loaded, { ...options, isWatched: true }));
    }
  });

  function keepsTheSame(codes: string, share: number): void {
    assert(types !== undefined);
    const benches = ["cuda-emulated", "cpu:isa=portable"].map((on) =>
      new IndexBench({ spec: `flat:codes=${codes}`, types, backend: open(on) })
    );
    const [same, all] = [new Set<string>(), new Set<string>()];
    const layers = benches.map((at) =>
      at.layer({ length: 900, group: 3, headDim: 80, type: "i8", start: 7, segmentRows: 400 })
    );
    const indexes = benches.map((at, i) => at.built(layers[i] as typeof layers[number], 500));
    for (let draw = 0; draw < 4; draw++) {
      const q = (layers[0] as typeof layers[number]).query();
      const goals: Goal[] = [{ error: 0.1, draw }, { topk: 40, draw }, { topk: 40, tail: "sample", draw }];
      for (const [g, goal] of goals.entries()) {
        const [mine, other] = benches.map((at, i) => {
          const found = at.search(
            indexes[i] as never,
            layers[i] as never,
            q,
            goal,
            draw % 2 === 0 ? undefined : Array(6).fill(2),
          );
          return found.rows.flatMap(({ tokens }, row) => tokens.map((t) => `${draw} ${g} ${row} ${t}`));
        }) as [string[], string[]];
        const theirs = new Set(other);
        for (const hit of [...mine, ...other]) all.add(hit);
        for (const hit of mine) if (theirs.has(hit)) same.add(hit);
      }
    }
    for (const at of benches) at.clean();
    assert(all.size > 1000 && same.size >= share * all.size, `${same.size} hits of ${all.size} are the same`);
  }
});
