/**
 * One suite for every index type, on every backend: what a search promises is checked against a float64 oracle. What a type
 * or backend reports as unsupported is counted, not failed.
 *
 * A type of yours: `indexConformance({ spec: "mine", types: new IndexRegistry({ mine }), backend })`.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";
import type { Goal, KvIndex, SearchReport } from "../index/index.ts";
import type { IndexRegistry } from "../index/mod.ts";
import { Unsupported } from "../core/errors.ts";
import { HitsBuffer } from "../index/hits.ts";
import { type CaseResult, check } from "./backend_conformance.ts";
import { drawLaws } from "./index_conformance_draws.ts";
import { type CacheOptions, TestLayer } from "./index_conformance_fixture.ts";
import { lifeLaws } from "./index_conformance_life.ts";
import { searchLaws } from "./index_conformance_search.ts";

/** What is tested. */
export interface IndexSubject {
  readonly spec: string;
  readonly types: Pick<IndexRegistry, "create" | "map">;
  readonly backend: Backend;
  /** Laws left out, by the start of their name, and why. */
  readonly skip?: { readonly reason: string; readonly laws: readonly string[] } | undefined;
}

/** One thing that must hold. */
export interface Law {
  readonly name: string;
  run(at: IndexBench): void;
}

/** All of them. */
export const laws: readonly Law[] = [...searchLaws, ...lifeLaws, ...drawLaws];

/** One row of hits, copied. */
export interface Row {
  readonly tokens: number[];
  readonly bias: number[];
  readonly error: number;
}

/** What a search found, copied. */
export interface Found {
  readonly rows: readonly Row[];
  readonly report: SearchReport;
}

/** An index type on a backend: makes caches and indexes that end after the law. */
export class IndexBench {
  readonly backend: Backend;
  readonly #made: Disposable[] = [];
  readonly #hits: HitsBuffer;

  constructor(readonly subject: IndexSubject) {
    this.backend = subject.backend;
    this.#hits = new HitsBuffer(subject.backend);
  }

  /** See {@link TestLayer}. */
  layer(options: CacheOptions): TestLayer {
    return this.keep(new TestLayer(this.backend, options));
  }

  /** Disposed after the law, unless before. */
  keep<T extends Disposable>(made: T): T {
    this.#made.push(made);
    return made;
  }

  /** An empty index. */
  create(kv: KvLayer): KvIndex {
    return this.keep(this.subject.types.create(this.subject.spec, kv, this.backend));
  }

  /** A saved one. */
  map(path: string, kv: KvLayer): KvIndex {
    return this.keep(this.subject.types.map(path, this.subject.spec, kv, this.backend));
  }

  /** An index over all of a layer; `chunk` tokens are added at once. */
  built(layer: TestLayer, chunk = layer.length): KvIndex {
    const index = this.create(layer.filled());
    layer.add(index, 0, layer.length, chunk);
    index.commit();
    index.settle();
    return index;
  }

  /** Searches with q [heads, headDim]; `exact` is nothing where it is not given. */
  search(index: KvIndex, layer: TestLayer, q: Float32Array<ArrayBuffer>, goal: Goal, exact?: number[]): Found {
    const { heads, headDim } = layer.shape;
    const query = this.#step([heads, headDim], q);
    const lse = this.#step([heads], Float32Array.from(exact ?? Array(heads).fill(-Infinity)));
    index.search(this.#hits, query, goal, lse);
    const found = this.#copy();
    this.backend.endStep();
    return found;
  }

  /** The buffer of the last search, for kernels. */
  get hits(): HitsBuffer {
    return this.#hits;
  }

  /** `body` throws `RangeError`, or another of `types`, whose message holds `text`. */
  throws(body: () => void, text: string, types: readonly (new (...args: never[]) => Error)[] = [RangeError]): void {
    try {
      body();
    } catch (error) {
      check(types.some((type) => error instanceof type), `expected an error about "${text}", got ${error}`);
      check(String(error).includes(text), `expected an error about "${text}", got ${error}`);
      return;
    } finally {
      this.backend.endStep();
    }
    throw new Error(`expected an error about "${text}", got none`);
  }

  /** Ends what the law made. */
  clean(): void {
    for (const made of this.#made.splice(0).reverse()) made[Symbol.dispose]();
    this.#hits[Symbol.dispose]();
    this.backend.endStep();
  }

  #step(shape: readonly number[], data: Float32Array<ArrayBuffer>): Tensor {
    const tensor = this.backend.alloc(shape, "f32", "step");
    this.backend.write(tensor, data);
    return tensor;
  }

  #copy(): Found {
    const { tokens, counts, bias, estimatedError, report } = this.#hits;
    const capacity = tokens.shape[1] as number;
    const [t, c, b, e] = [tokens, counts, bias, estimatedError].map((x) => this.backend.read(x)) as [
      Int32Array,
      Int32Array,
      Float32Array,
      Float32Array,
    ];
    const rows = Array.from(c, (count, r) => {
      check(count >= 0 && count <= capacity, `row ${r} counts ${count} of ${capacity}`);
      const from = r * capacity;
      return {
        tokens: [...t.subarray(from, from + count)],
        bias: [...b.subarray(from, from + count)],
        error: e[r] as number,
      };
    });
    return { rows, report: { ...report } };
  }
}

/** Runs one law on a subject. */
export function runLaw(subject: IndexSubject, law: Law): CaseResult {
  const { name } = law;
  const { skip } = subject;
  if (skip?.laws.some((start) => name.startsWith(start))) return { name, outcome: "skipped", detail: skip.reason };
  const before = subject.backend.bytes;
  const at = new IndexBench(subject);
  try {
    try {
      law.run(at);
    } finally {
      at.clean();
    }
    check(subject.backend.bytes === before, `${subject.backend.bytes - before} bytes were not given back`);
    return { name, outcome: "passed", detail: "" };
  } catch (error) {
    if (error instanceof Unsupported) return { name, outcome: "unsupported", detail: error.message };
    return { name, outcome: "failed", detail: error instanceof Error ? error.message : String(error) };
  }
}

/** Runs everything. */
export function indexConformance(subject: IndexSubject): readonly CaseResult[] {
  return laws.map((law) => runLaw(subject, law));
}
