import { assert } from "@std/assert";
import { afterAll, describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { Unsupported } from "../core/errors.ts";
import { IndexRegistry } from "../index/mod.ts";
import { type CaseResult, table } from "./backend_conformance.ts";
import { type IndexSubject, laws, runLaw } from "./index_conformance.ts";

let missing = "";
try {
  await prepareBackend("cpu");
} catch (error) {
  if (!(error instanceof Unsupported)) throw error;
  missing = error.message;
}

const types = new IndexRegistry();
const native = Object.keys(types.types).filter((name) => name !== "flat-reference");

const THOUSANDS = [
  "draws: samples by error, of some thousand keys,",
  "draws: samples of a budget, of some thousand keys,",
];

/** Every registered type with its defaults, and what else is worth the time. */
const SUBJECTS: readonly (Pick<IndexSubject, "spec" | "skip"> & { readonly on: string })[] = [
  {
    spec: "flat-reference",
    on: "reference",
    skip: { reason: "without structure some hundred keys show what thousands would", laws: THOUSANDS },
  },
  ...(missing === ""
    ? [{
      spec: "flat-reference",
      on: "cpu",
      skip: { reason: "the same TypeScript as on reference", laws: ["draws: samples by", "draws: samples of"] },
    }]
    : []),
  ...native.map((spec) => ({ spec, on: "cpu" })),
];

const results = new Map<string, CaseResult[]>();

it("the types of the native library are registered", () => {
  if (missing !== "") console.log(`native index types are not tested: ${missing}`);
  else assert(native.includes("flat"));
});

for (const { spec, on, skip } of SUBJECTS) {
  const title = `${spec} on ${on}`;
  describe(`index laws of ${title}`, () => {
    let backend: Backend | undefined;
    results.set(title, []);
    afterAll(() => backend?.[Symbol.dispose]());
    for (const law of laws) {
      it(law.name, () => {
        backend ??= openBackend(on);
        const result = runLaw({ spec, types, backend, skip }, law);
        results.get(title)?.push(result);
        if (result.outcome === "failed") throw new Error(result.detail);
      });
    }
  });
}

afterAll(() => console.log(`\n${table(results)}\n`));
