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

/** Published methods, whose cheap scores vouch for no single key. */
const METHODS = [
  "pages",
  "pages:score=representative,group=layer,size=32",
  "snap",
  "snap:observe=16,pool=7,kind=max,group=mean",
  "heavy:share=0.2",
  "channels:r=16",
  "pca",
  "skew",
  "pq",
  "clusters",
  "clusters:quantile=0.7",
  "wave",
  "wave:cluster=8,step=64,retrieve=0",
  "lsh:l=60",
  "mol",
];

/** Other wirings of what type `graph` searches. */
const GRAPHS = ["vamana:min=64,r=24,l=30", "roar:min=64,m=12,l=30"];

const types = new IndexRegistry();
const native = Object.keys(types.types).filter((name) =>
  name !== "flat-reference" && ![...METHODS, ...GRAPHS].some((spec) => spec === name || spec.startsWith(`${name}:`))
);

const THOUSANDS = [
  "draws: samples by error, of some thousand keys,",
  "draws: samples of a budget, of some thousand keys,",
];

const LARGE = {
  reason: "with its defaults the type is tried on large caches already",
  laws: [...THOUSANDS, "life: growth after building", "life: memory"],
};

const APPROXIMATE = {
  reason: "the best keys by approximate scores: no single key is promised, nothing is built behind",
  laws: [...THOUSANDS, "life: growth after building", "life: searching while building", "life: memory"],
};

const WIRINGS = {
  reason: "all but who becomes whose neighbour is type graph's",
  laws: ["draws:", "life: growth", "life: searching while building", "life: memory", "search: groups", "search: heads"],
};

/** Parameters and instruction sets that take other paths than the defaults on this machine. */
const VARIANTS = [
  { spec: "ivf:metric=query,codes=f16,min=64", on: "cpu" },
  { spec: "lists:knn=true,codes=f16,min=64", on: "cpu:threads=1" },
  { spec: "graph:codes=f16,min=64", on: "cpu:isa=portable" },
  { spec: "flat:codes=int4", on: "cpu" },
  { spec: "flat:codes=f16", on: "cpu:threads=1" },
  { spec: "flat:codes=int4", on: "cpu:isa=avx2" },
  { spec: "flat:codes=int4", on: "cpu:isa=portable" },
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
  ...(missing === "" ? GRAPHS.map((spec) => ({ spec, on: "cpu", skip: WIRINGS })) : []),
  ...(missing === "" ? METHODS.map((spec) => ({ spec, on: "cpu", skip: APPROXIMATE })) : []),
  // With structure over few keys, so that laws of small caches try it too.
  ...native.filter((name) => Object.hasOwn(types.types[name]?.defaults ?? {}, "min"))
    .map((name) => ({ spec: `${name}:min=64`, on: "cpu", skip: LARGE })),
  ...(missing === "" ? VARIANTS.map((variant) => ({ ...variant, skip: LARGE })) : []),
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
        try {
          backend ??= openBackend(on);
        } catch (error) {
          if (!(error instanceof Unsupported)) throw error;
          results.get(title)?.push({ name: law.name, outcome: "unsupported", detail: error.message });
          return;
        }
        const result = runLaw({ spec, types, backend, skip }, law);
        results.get(title)?.push(result);
        if (result.outcome === "failed") throw new Error(result.detail);
      });
    }
  });
}

afterAll(() => console.log(`\n${table(results)}\n`));
