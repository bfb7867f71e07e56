import { assert, assertEquals } from "@std/assert";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import type { Backend, Kernels } from "../backends/backend.ts";
import { builtinBackends, openBackend, prepareBackend } from "../backends/mod.ts";
import { ReferenceBackend } from "../backends/reference.ts";
import { Unsupported } from "../core/errors.ts";
import { type CaseResult, cases, conformance, runCase, type Subject, table } from "./backend_conformance.ts";
import { emulatedCuda } from "./emulated_cuda.ts";

/** One line a backend; native ones say in which type their products are made. */
const SUBJECTS: readonly Subject[] = [
  { name: "reference" },
  { name: "cpu", products: "f16", attention: "f16" },
  { name: "cpu:isa=avx512", products: "f16", attention: "f16" },
  { name: "cpu:isa=avx2", products: "f16", attention: "f16" },
  { name: "cpu:isa=portable" },
  { name: "cpu:threads=1", products: "f16", attention: "f16" },
  { name: "cpu:precision=fast", products: "i8", attention: "f16" },
  { name: "cuda", products: "f16", attention: "f16" },
  { name: "cuda-emulated", products: "f16", attention: "f16" },
  { name: "hybrid", products: "f16", attention: "f16" },
  { name: "hybrid:device=cpu,host=reference,keep=0", products: "f16", attention: "f16" },
  { name: "hybrid-emulated:codes=device", products: "f16", attention: "f16" },
  { name: "hybrid:device=reference,host=cpu,codes=device", products: "f16", attention: "f16" },
].map((s) => ({ ...s, open: () => openBackend(s.name, emulatedCuda) } as Subject));

const results = new Map<string, CaseResult[]>();

for (const name of Object.keys(builtinBackends)) {
  it(`registered backend "${name}" is in the conformance suite`, () => {
    assert(SUBJECTS.some((s) => s.name === name));
  });
}

for (const subject of SUBJECTS) {
  describe(`conformance of ${subject.name}`, () => {
    let backend: Backend | undefined;
    let missing = "";

    beforeAll(async () => {
      results.set(subject.name, []);
      try {
        await prepareBackend(subject.name, emulatedCuda);
        backend = subject.open();
      } catch (error) {
        if (!(error instanceof Unsupported)) throw error;
        missing = error.message;
      }
    });

    afterAll(() => backend?.[Symbol.dispose]());

    for (const testCase of cases) {
      it(testCase.name, () => {
        const result = backend === undefined
          ? { name: testCase.name, outcome: "unsupported" as const, detail: missing }
          : runCase(subject, backend, testCase);
        results.get(subject.name)?.push(result);
        if (result.outcome === "failed") throw new Error(result.detail);
      });
    }
  });
}

describe("the conformance suite itself", () => {
  /** A plugin that is right but for one kernel. */
  function broken(change: (kernels: Kernels) => Partial<Kernels>): Subject {
    return {
      name: "broken",
      open() {
        const backend = new ReferenceBackend();
        Object.assign(backend.kernels, change({ ...backend.kernels }));
        return backend;
      },
    };
  }
  const failures = (subject: Subject) =>
    conformance(subject).filter((r) => r.outcome === "failed").map((r) => r.name.split(":")[0]);

  it("fails a kernel that is off by one part in 100,000", () => {
    const failed = failures(broken((right) => ({
      rmsNorm(out, x, weight, epsilon) {
        right.rmsNorm(out, x, weight, epsilon);
        const wrong = out.backend.read(out).map((v) => v * 1.00001);
        out.backend.write(out, wrong as Float32Array<ArrayBuffer>);
      },
    })));
    // The fused one is compared to it.
    assertEquals(new Set(failed), new Set(["rmsNorm", "addRmsNorm"]));
  });

  it("fails attention that forgets the window", () => {
    const failed = failures(broken((right) => ({
      attendCausal(out, q, kv) {
        const { slidingWindow: _, ...shape } = kv.shape;
        right.attendCausal(out, q, { ...kv, shape });
      },
    })));
    assertEquals(new Set(failed), new Set(["attendCausal", "attendCausal with a sink"]));
  });

  it("fails a sink that leaves out a query's last key", () => {
    const failed = failures(broken((right) => ({
      attendCausal(out, q, kv, sink) {
        right.attendCausal(out, q, kv, sink);
        if (sink?.columnSums === undefined) return;
        const sums = out.backend.read(sink.columnSums) as Float32Array<ArrayBuffer>;
        sums[(kv.segments[0]?.start ?? 0) + kv.length - 1] = 0;
        out.backend.write(sink.columnSums, sums);
      },
    })));
    assertEquals(new Set(failed), new Set(["attendCausal with a sink"]));
  });

  it("fails a sampler that ignores min-p", () => {
    const failed = failures(broken((right) => ({
      sample: (out, logits, params) => right.sample(out, logits, params.map((p) => ({ ...p, minP: 0 }))),
    })));
    assertEquals(new Set(failed), new Set(["sample"]));
  });

  it("counts what is unsupported, by kernel and as a whole", () => {
    const lacking = conformance(broken(() => ({
      klDivergence() {
        throw new Unsupported("Cannot run klDivergence: not done here");
      },
    })));
    assertEquals(lacking.filter((r) => r.outcome === "unsupported").map((r) => r.name.split(":")[0]), ["klDivergence"]);
    assertEquals(lacking.filter((r) => r.outcome === "failed"), []);
    const absent = conformance({
      name: "absent",
      open() {
        throw new Unsupported("Cannot open absent: no such device");
      },
    });
    assert(absent.every((r) => r.outcome === "unsupported"));
  });

  it("leaves out what a subject skips, with the reason", () => {
    const subject = { name: "r", open: () => new ReferenceBackend(), skip: [{ reason: "slow", cases: [""] }] };
    assert(conformance(subject).every((r) => r.outcome === "skipped" && r.detail === "slow"));
  });

  afterAll(() => console.log(`\n${table(results)}\n`));
});
