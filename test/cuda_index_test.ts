/**
 * The flat index of a CUDA device, run by the CPU: laws of indexes that are quick there, and the CPU's own hits.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import type { Goal } from "../index/index.ts";
import { openBackend } from "../backends/mod.ts";
import { IndexRegistry } from "../index/mod.ts";
import { IndexBench, laws, runLaw } from "./index_conformance.ts";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";

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

  /** Of 4-bit codes the CPU draws by two planes, which decides a few keys otherwise. */
  for (const [codes, share] of [["int8", 0.998], ["int4", 0.97]] as const) {
    it(`keeps what the CPU's keeps, codes=${codes}`, () => keepsTheSame(codes, share));
  }

  function keepsTheSame(codes: string, share: number): void {
    assert(types !== undefined);
    const benches = ["cuda-emulated", "cpu"].map((on) =>
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
