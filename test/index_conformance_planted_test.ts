import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { IndexType, KvIndex, SearchHits } from "../index/index.ts";
import { openBackend } from "../backends/mod.ts";
import { flatReference } from "../index/flat_reference.ts";
import { IndexRegistry } from "../index/mod.ts";
import { laws, runLaw } from "./index_conformance.ts";

/** A type that is right but for what `change` makes of its indexes. */
function broken(change: (right: KvIndex) => Partial<KvIndex>): IndexType {
  const wrap = (right: KvIndex): KvIndex => ({
    add: (chunk) => right.add(chunk),
    commit: () => right.commit(),
    settle: () => right.settle(),
    search: (out, q, goal, exact) => right.search(out, q, goal, exact),
    fork: (kv) => wrap(right.fork(kv)),
    save: (path) => right.save(path),
    stats: () => right.stats(),
    [Symbol.dispose]: () => right[Symbol.dispose](),
    ...change(right),
  });
  return {
    ...flatReference,
    create: (kv, params, on) => wrap(flatReference.create(kv, params, on)),
    map: (path, kv, params, on) => wrap(flatReference.map(path, kv, params, on)),
  };
}

/** Names of the laws, among those whose name starts so, that the type breaks. */
function failures(type: IndexType, starts: readonly string[]): string[] {
  using backend = openBackend("reference");
  const subject = { spec: "planted", types: new IndexRegistry({ planted: type }), backend };
  const chosen = laws.filter(({ name }) => starts.some((start) => name.startsWith(start)));
  assert(chosen.length >= starts.length, `no law starts with one of ${starts}`);
  return chosen.map((law) => runLaw(subject, law)).filter((r) => r.outcome === "failed").map((r) => r.name);
}

/** Changes the biases of a search's hits. */
function rebias({ bias }: SearchHits, change: (b: number) => number): void {
  const values = bias.backend.read(bias).map(change) as Float32Array<ArrayBuffer>;
  bias.backend.write(bias, values);
}

const BY_ERROR = "draws: samples by error, of some hundred keys, are unbiased";
const BUDGET = "draws: samples of a budget, of some hundred keys, are unbiased";

describe("the index conformance suite itself", () => {
  it("passes what is right", () => {
    assertEquals(failures(broken(() => ({})), [BY_ERROR, "search: groups", "life: a fork"]), []);
  });

  it("catches a bias of 2 % in the weights", () => {
    const type = broken((right) => ({
      search(out, q, goal, exact) {
        right.search(out, q, goal, exact);
        rebias(out, (b) => b === 0 ? 0 : b + 0.02);
      },
    }));
    assertEquals(failures(type, [BY_ERROR, BUDGET]), [BY_ERROR, BUDGET]);
  });

  it("catches a sampler that leaves out one key in a hundred", () => {
    const type = broken((right) => ({
      search(out, q, goal, exact) {
        right.search(out, q, goal, exact);
        if ("topk" in goal && goal.tail === undefined) return;
        const { tokens, bias } = out;
        const positions = tokens.backend.read(tokens);
        const biases = bias.backend.read(bias) as Float32Array<ArrayBuffer>;
        bias.backend.write(bias, biases.map((b, i) => (positions[i] as number) % 100 === 7 ? 40 : b));
      },
    }));
    assert(failures(type, [BY_ERROR, BUDGET]).length > 0);
  });

  it("catches a fixed draw", () => {
    const type = broken((right) => ({
      search: (out, q, goal, exact) => right.search(out, q, { ...goal, draw: 1 }, exact),
    }));
    const failed = failures(type, ["draws: equal", BY_ERROR]);
    assertEquals(failed, ["draws: equal draws repeat, in another index too; others differ", BY_ERROR]);
  });

  it("catches a certificate that is not true", () => {
    const type = broken((right) => ({
      search(out, q, goal, exact) {
        // The best of a noisy query, said to be exact.
        const noisy = (q.backend.read(q) as Float32Array<ArrayBuffer>).map((x, i) => x * (1 + 0.05 * Math.sin(i)));
        const other = q.backend.alloc(q.shape, "f32", "step");
        q.backend.write(other, noisy);
        right.search(out, "topk" in goal ? other : q, goal, exact);
      },
    }));
    assert(failures(type, ["search: some thousand keys"]).length === 1);
  });

  it("catches a recall that was promised and is not reached", () => {
    const type = broken((right) => ({
      search(out, q, goal, exact) {
        right.search(out, q, goal, exact);
        if ("error" in goal || goal.tail !== undefined) return;
        out.counts.backend.write(out.counts, new Int32Array(out.counts.shape[0] as number).fill(goal.topk >> 1));
        const keysKept = (goal.topk >> 1) * (out.counts.shape[0] as number);
        Object.assign(out.report, { certificate: "calibrated", expectedRecall: 0.95, keysKept });
      },
    }));
    assert(failures(type, ["search: some thousand keys"]).length === 1);
  });

  it("catches an index that finds what is not committed, or forgets to share nothing", () => {
    const eager = broken((right) => ({
      search(out, q, goal, exact) {
        right.commit();
        right.search(out, q, goal, exact);
      },
    }));
    assertEquals(failures(eager, ["life: tokens are found"]), ["life: tokens are found once they are committed"]);
    const shared: IndexType = broken((right) => ({ fork: () => right }));
    assertEquals(failures(shared, ["life: a fork answers"]), [
      "life: a fork answers alike, then each goes its own way",
    ]);
  });

  it("catches memory that is kept", () => {
    const type: IndexType = {
      ...flatReference,
      create: (kv, params, on) => {
        on.alloc([10], "f32", "sequence");
        return flatReference.create(kv, params, on);
      },
    };
    assertEquals(failures(type, ["search: an empty"]), ["search: an empty index finds nothing"]);
  });
});
