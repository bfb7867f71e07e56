/**
 * One suite for every backend: each kernel against a plain float64 twin, at odd sizes, in every element type, from
 * misaligned and empty inputs. An output passes when its error (L2) is at most twice that of a naive run in the same
 * type. What a backend reports as unsupported is counted, not failed.
 *
 * A backend of yours: `conformance({ name: "mine", open: () => openBackend("mine", { mine }) })`, or with `deno test`
 * one line in `backend_conformance_test.ts`.
 *
 * @module
 */
import type { Backend, Lifetime } from "../backends/backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { Unsupported } from "../core/errors.ts";
import type { Arithmetic } from "./backend_conformance_twin.ts";
import { attentionCases } from "./backend_conformance_attention.ts";
import { eachCases } from "./backend_conformance_each.ts";
import { sinkCases } from "./backend_conformance_sink.ts";
import { layerCases } from "./backend_conformance_layers.ts";
import { matmulCases } from "./backend_conformance_matmul.ts";
import { memoryCases } from "./backend_conformance_memory.ts";
import { partCases } from "./backend_conformance_parts.ts";
import { samplingCases } from "./backend_conformance_sampling.ts";

/** What is tested. */
export interface Subject {
  readonly name: string;
  /** May throw `Unsupported`: then all cases count as unsupported. */
  readonly open: () => Backend;
  /** Operands of block-quantized products and of attention over f16 and i8 caches; default `f32`. */
  readonly products?: Arithmetic;
  readonly attention?: "f32" | "f16";
  /** Cases left out, by the start of their name, and why. */
  readonly skip?: readonly { readonly reason: string; readonly cases: readonly string[] }[];
}

/** How one case ended. */
export interface CaseResult {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "unsupported" | "skipped";
  readonly detail: string;
}

/** One thing that must hold. */
export interface Case {
  readonly name: string;
  run(at: Bench): void;
}

/** All of them. */
export const cases: readonly Case[] = [
  ...memoryCases,
  ...layerCases,
  ...matmulCases,
  ...attentionCases,
  ...eachCases,
  ...sinkCases,
  ...partCases,
  ...samplingCases,
];

/** A backend under test: makes tensors that are freed after the case, and compares. */
export class Bench {
  readonly #lasting: Tensor[] = [];

  constructor(readonly backend: Backend, readonly subject: Subject) {}

  /** A tensor that holds `data`, undefined contents without. */
  tensor(shape: Shape, dtype: DType, data?: ArrayBufferView<ArrayBuffer>, life: Lifetime = "step"): Tensor {
    const tensor = this.backend.alloc(shape, dtype, life);
    if (life !== "step") this.#lasting.push(tensor);
    if (data !== undefined) this.backend.write(tensor, data);
    return tensor;
  }

  floats(shape: Shape, data?: Float32Array<ArrayBuffer>): Tensor {
    return this.tensor(shape, "f32", data);
  }

  ints(shape: Shape, data?: Int32Array<ArrayBuffer>): Tensor {
    return this.tensor(shape, "i32", data);
  }

  /** A matrix as models load it. */
  weight(shape: Shape, dtype: DType, bytes: Uint8Array<ArrayBuffer>): Tensor {
    return this.tensor(shape, dtype, bytes, "model");
  }

  /** f32 data that starts `offset` elements into a larger tensor, so that no vector of it is aligned. */
  misaligned(shape: Shape, data: Float32Array<ArrayBuffer>, offset: number): Tensor {
    const padded = new Float32Array(data.length + offset);
    padded.set(data, offset);
    return this.backend.view(this.floats([padded.length], padded), shape, offset);
  }

  read(tensor: Tensor): Float32Array | Int32Array {
    return this.backend.read(tensor);
  }

  /**
   * The L2 error of `tensor` is at most twice the naive run's. Where luck made that small, its expected error counts:
   * `noise`, or roundings by `unit` of the result.
   */
  near(tensor: Tensor, truth: Float64Array, naive: Float64Array, what: string, unit = 2 ** -24, noise = 0): void {
    const got = this.read(tensor);
    check(got.length === truth.length, `${what}: ${got.length} elements, expected ${truth.length}`);
    let error = 0, allowed = 0, size = 0;
    for (let i = 0; i < got.length; i++) {
      const t = truth[i] as number;
      error += ((got[i] as number) - t) ** 2;
      allowed += ((naive[i] as number) - t) ** 2;
      size += t * t;
    }
    const limit = 2 * Math.max(Math.sqrt(allowed), unit * Math.sqrt(size), noise);
    check(
      Math.sqrt(error) <= limit,
      `${what}: error ${Math.sqrt(error).toExponential(2)}, allowed ${limit.toExponential(2)}`,
    );
  }

  /** `body` throws `RangeError` or another of `types`, whose message holds `text`. */
  throws(body: () => void, text: string, types: readonly (new (...args: never[]) => Error)[] = [RangeError]): void {
    try {
      body();
    } catch (error) {
      if (error instanceof Unsupported && !types.includes(Unsupported)) throw error;
      const known = types.some((type) => error instanceof type);
      check(known, `expected ${types.map((t) => t.name).join(" or ")}, got ${error}`);
      check(String(error).includes(text), `expected an error about "${text}", got ${error}`);
      return;
    }
    throw new Error(`expected an error about "${text}", got none`);
  }

  /** Ends the step and frees what the case made. */
  clean(): void {
    for (const tensor of this.#lasting) this.backend.free(tensor);
    this.backend.endStep();
  }
}

/** Fails the case. */
export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** Equal, element for element. */
export function same(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  check(got.length === want.length, `${what}: ${got.length} elements, expected ${want.length}`);
  for (let i = 0; i < got.length; i++) {
    check(Object.is(got[i], want[i]) || got[i] === want[i], `${what}: element ${i} is ${got[i]}, expected ${want[i]}`);
  }
}

const remembered = new Map<string, unknown>();

/** Inputs and twins depend on nothing but the case, so that all backends share them. */
export function once<T>(key: string, make: () => T): T {
  if (!remembered.has(key)) remembered.set(key, make());
  return remembered.get(key) as T;
}

/** Runs one case on an open backend. */
export function runCase(subject: Subject, backend: Backend, testCase: Case): CaseResult {
  const { name } = testCase;
  const skipped = subject.skip?.find((s) => s.cases.some((start) => name.startsWith(start)));
  if (skipped !== undefined) return { name, outcome: "skipped", detail: skipped.reason };
  const before = backend.bytes;
  const at = new Bench(backend, subject);
  try {
    try {
      testCase.run(at);
    } finally {
      at.clean();
    }
    check(backend.bytes === before, `${backend.bytes - before} bytes were not given back`);
    return { name, outcome: "passed", detail: "" };
  } catch (error) {
    if (error instanceof Unsupported) return { name, outcome: "unsupported", detail: error.message };
    return { name, outcome: "failed", detail: error instanceof Error ? error.message : String(error) };
  }
}

/** Runs everything. */
export function conformance(subject: Subject): readonly CaseResult[] {
  let backend: Backend;
  try {
    backend = subject.open();
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    return cases.map(({ name }) => ({ name, outcome: "unsupported", detail: error.message }));
  }
  using _ = backend;
  return cases.map((testCase) => runCase(subject, backend, testCase));
}

/** One line a backend, and every reason that is not "passed" once. */
export function table(results: ReadonlyMap<string, readonly CaseResult[]>): string {
  const lines = ["backend                       passed  failed  unsupported  skipped"];
  for (const [name, list] of results) {
    const count = (outcome: CaseResult["outcome"]) => String(list.filter((r) => r.outcome === outcome).length);
    lines.push(
      name.padEnd(30) + count("passed").padStart(6) + count("failed").padStart(8) +
        count("unsupported").padStart(13) + count("skipped").padStart(9),
    );
    const reasons = new Set(list.filter((r) => r.outcome !== "passed" && r.outcome !== "failed").map((r) => r.detail));
    for (const reason of reasons) lines.push(`  ${reason}`);
  }
  return lines.join("\n");
}
