/**
 * What models are written in: checks shapes once for every backend and allocates outputs in step memory.
 *
 * @module
 */
import type { Shape, Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment, Rope } from "../core/kv.ts";
import type { Activation, Backend } from "./backend.ts";

/** Kernels with checked shapes and fresh outputs; one per backend. */
export class Ops {
  /** Outputs live in `backend`'s step memory until the enclosing `scope` or step ends. */
  constructor(readonly backend: Backend) {}

  /** Runs `body`; step memory allocated inside is recycled afterwards, so that layers share one set of buffers. */
  scope(body: () => void): void {
    const mark = this.backend.mark();
    try {
      body();
    } finally {
      this.backend.release(mark);
    }
  }

  /** [n] tokens → [n, width] */
  embed(table: Tensor, tokens: Tensor, scale = 1): Tensor {
    expectRank("embed", table, 2);
    expectRank("embed", tokens, 1);
    const out = this.#step([dim(tokens, 0), dim(table, 1)]);
    this.backend.kernels.embed(out, table, tokens, scale);
    return out;
  }

  /** [..., m] with weight [m] → same shape */
  rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
    expectVector("rmsNorm weight", weight, last(x));
    const out = this.#step(x.shape);
    this.backend.kernels.rmsNorm(out, x, weight, epsilon);
    return out;
  }

  /** Like {@link rmsNorm}, in place. */
  rmsNormInPlace(x: Tensor, weight: Tensor, epsilon: number): void {
    expectVector("rmsNorm weight", weight, last(x));
    this.backend.kernels.rmsNorm(x, x, weight, epsilon);
  }

  /** x += y, in place, and its norm into `out`; all three have one shape. The norm may take y's memory, not x's. */
  addRmsNorm(out: Tensor, x: Tensor, y: Tensor, weight: Tensor, epsilon: number): void {
    if (out === x) throw new RangeError("Cannot run addRmsNorm: out is x");
    expectShape("addRmsNorm", y, x.shape);
    expectShape("addRmsNorm out", out, x.shape);
    expectVector("addRmsNorm weight", weight, last(x));
    this.backend.kernels.addRmsNorm(out, x, y, weight, epsilon);
  }

  /** x [n, k] or [n, heads, k / heads] times several weights [m_i, k] that share it → [n, m_i] each */
  matmul<const W extends readonly Tensor[]>(x: Tensor, ...weights: W): { [I in keyof W]: Tensor } {
    const outs: Tensor[] = [];
    for (const w of weights) {
      expectWeight(w, x);
      outs.push(this.#step([dim(x, 0), dim(w, 0)]));
    }
    this.backend.kernels.matmul(outs, x, weights);
    return outs as { [I in keyof W]: Tensor };
  }

  /** Like {@link matmul}, with outputs [n, m_i / headDim, headDim]. */
  matmulHeads<const W extends readonly Tensor[]>(
    x: Tensor,
    headDim: number,
    ...weights: W
  ): { [I in keyof W]: Tensor } {
    const outs: Tensor[] = [];
    for (const w of weights) {
      expectWeight(w, x);
      if (dim(w, 0) % headDim !== 0) throw mismatch("matmul weight", w.shape, [`heads · ${headDim}`, dim(w, 1)]);
      outs.push(this.#step([dim(x, 0), dim(w, 0) / headDim, headDim]));
    }
    this.backend.kernels.matmul(outs, x, weights);
    return outs as { [I in keyof W]: Tensor };
  }

  /** activation(x · gateᵀ) · (x · upᵀ): x as {@link matmul} takes it, gate and up [m, k] → [n, m] */
  matmulGlu(x: Tensor, gate: Tensor, up: Tensor, activation: Activation): Tensor {
    expectWeight(gate, x);
    expectShape("matmulGlu up", up, gate.shape);
    const out = this.#step([dim(x, 0), dim(gate, 0)]);
    this.backend.kernels.matmulGlu(out, x, gate, up, activation);
    return out;
  }

  /** x += y, in place; y has x's shape or is [last dimension of x]. */
  add(x: Tensor, y: Tensor): void {
    if (y.shape.length === 1) expectVector("add", y, last(x));
    else expectShape("add", y, x.shape);
    this.backend.kernels.add(x, x, y);
  }

  /** activation(gate) · up, in gate's memory. */
  glu(gate: Tensor, up: Tensor, activation: Activation): Tensor {
    expectShape("glu", up, gate.shape);
    this.backend.kernels.glu(gate, gate, up, activation);
    return gate;
  }

  /** positions [n] → [n, dims/2, 2], made once a step and shared by layers. */
  ropeTable(positions: Tensor, rope: Rope): Tensor {
    expectRank("ropeTable", positions, 1);
    const out = this.#step([dim(positions, 0), rope.dims / 2, 2]);
    this.backend.kernels.ropeTable(out, positions, rope);
    return out;
  }

  /** Rotates each x [n, heads, headDim] in place; numbers of heads may differ. */
  rope(xs: readonly Tensor[], table: Tensor, pairing: Rope["pairing"]): void {
    for (const x of xs) {
      expectRank("rope", x, 3);
      if (dim(table, 0) !== dim(x, 0) || dim(table, 1) * 2 > dim(x, 2)) {
        throw mismatch("rope table", table.shape, [dim(x, 0), `at most ${dim(x, 2) / 2}`, 2]);
      }
    }
    this.backend.kernels.rope(xs, table, pairing);
  }

  /**
   * Stores row `i` of k, v [n, kvHeads, headDim] into row `rows[i]` of `segments[i]`, which are of n caches; a call each where the
   * backend knows no better.
   */
  appendEach(segments: readonly KvSegment[], rows: Int32Array<ArrayBuffer>, k: Tensor, v: Tensor): void {
    const { kernels } = this.backend;
    const n = dim(k, 0);
    expectShape("appendEach v", v, k.shape);
    if (segments.length !== n || rows.length !== n) {
      throw new RangeError(
        `Cannot run appendEach: ${segments.length} segments and ${rows.length} rows for ${n} tokens`,
      );
    }
    if (kernels.appendEach !== undefined) return kernels.appendEach(segments, rows, k, v);
    for (let i = 0; i < n; i++) {
      kernels.append(segments[i] as KvSegment, rows[i] as number, this.rows(k, i, 1), this.rows(v, i, 1));
    }
  }

  /**
   * Row `i` of q [n, heads, headDim] is the last token of `caches[i]` and attends to all of it: its row of `out`, as bits the same however
   * many there are. Layers of n caches share a shape; a call each where the backend knows no better.
   */
  attendEach(out: Tensor, q: Tensor, caches: readonly KvLayer[]): void {
    const { kernels } = this.backend;
    expectRank("attendEach", q, 3);
    expectShape("attendEach out", out, q.shape);
    if (caches.length !== dim(q, 0)) {
      throw new RangeError(`Cannot run attendEach: ${caches.length} caches for ${dim(q, 0)} queries`);
    }
    if (kernels.attendEach !== undefined) return kernels.attendEach(out, q, caches);
    for (let i = 0; i < caches.length; i++) {
      kernels.attendCausal(this.rows(out, i, 1), this.rows(q, i, 1), caches[i] as KvLayer);
    }
  }

  /** The same elements as [n, heads, headDim], or back as [n, heads · headDim]. */
  reshape(x: Tensor, shape: Shape): Tensor {
    if (size(shape) !== size(x.shape)) throw mismatch("reshape", x.shape, shape);
    return this.backend.view(x, shape);
  }

  /** Rows `[start, start + count)` of the outermost dimension, without copying. */
  rows(x: Tensor, start: number, count: number): Tensor {
    const n = dim(x, 0);
    if (start < 0 || count < 0 || start + count > n) {
      throw new RangeError(`Cannot take rows: ${start} to ${start + count} of ${n}`);
    }
    if (count === n) return x;
    return this.backend.view(x, [count, ...x.shape.slice(1)], n === 0 ? 0 : start * (size(x.shape) / n));
  }

  #step(shape: Shape): Tensor {
    return this.backend.alloc(shape, "f32", "step");
  }
}

function dim(x: Tensor, i: number): number {
  return x.shape[i] as number;
}

function last(x: Tensor): number {
  return x.shape[x.shape.length - 1] as number;
}

function size(shape: Shape): number {
  let product = 1;
  for (const d of shape) product *= d;
  return product;
}

function expectRank(what: string, x: Tensor, rank: number): void {
  if (x.shape.length !== rank) {
    throw new RangeError(`Cannot run ${what}: shape [${x.shape.join(", ")}] needs rank ${rank}`);
  }
}

function expectWeight(w: Tensor, x: Tensor): void {
  const isSplit = x.shape.length === 3;
  if (!isSplit) expectRank("matmul", x, 2);
  const k = isSplit ? dim(x, 1) * dim(x, 2) : dim(x, 1);
  if (w.shape.length !== 2 || w.shape[1] !== k) throw mismatch("matmul weight", w.shape, ["m", k]);
}

function expectVector(what: string, x: Tensor, length: number): void {
  if (x.shape.length !== 1 || x.shape[0] !== length) throw mismatch(what, x.shape, [length]);
}

function expectShape(what: string, x: Tensor, shape: Shape): void {
  if (x.shape.length === shape.length) {
    let same = true;
    for (let i = 0; i < shape.length; i++) if (x.shape[i] !== shape[i]) same = false;
    if (same) return;
  }
  throw mismatch(what, x.shape, shape);
}

function mismatch(what: string, got: readonly unknown[], want: readonly unknown[]): RangeError {
  return new RangeError(`Cannot run ${what}: shape [${got.join(", ")}], expected [${want.join(", ")}]`);
}
