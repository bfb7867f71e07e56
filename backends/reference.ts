/**
 * The reference backend: pure TypeScript, sums in float64. It is the oracle that every other backend is measured
 * against, and what runs where no native library can be built. Weights stay quantized in memory.
 *
 * @module
 */
import type { Backend, BackendType, Kernels, Lifetime } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { byteLength, elementCount, isBlockType } from "../core/dtype.ts";
import { append, attendCausal } from "./reference_attention.ts";
import { attendTopk, attendWindow, merge } from "./reference_attention_parts.ts";
import { add, embed, glu, matmul, rmsNorm, rope, ropeTable } from "./reference_layers.ts";
import { copy, makeStorage, ReferenceTensor, rowCount, type Storage, widened, window } from "./reference_memory.ts";
import { addLogits, klDivergence, penalize, sample, tokenLogprobs, topLogprobs } from "./reference_sampling.ts";
import { checkShape } from "./shape.ts";
import { StepMemory } from "./step_memory.ts";

/** Registry entry: one thread, no parameters. */
export const reference: BackendType = {
  summary: "pure TypeScript in float64, one thread: the oracle, and the fallback without a compiler",
  defaults: {},
  open: () => new ReferenceBackend(),
};

/** What kernels see of a tensor: its memory, checked to be alive and of this backend. */
export interface Live {
  /** Element type. */
  readonly dtype: DType;
  /** Outermost dimension first. */
  readonly shape: Shape;
  /** Its elements or blocks. */
  readonly data: Storage;
  /** What was resolved. */
  readonly tensor: ReferenceTensor;
}

/** Typed arrays behind the backend contract. */
export class ReferenceBackend implements Backend {
  /** Canonical spec. */
  readonly spec = "reference";
  /** All of them; nothing is unsupported but prompt sinks. */
  readonly kernels: Kernels;
  #bytes = 0;
  #disposed = false;
  readonly #step = new StepMemory<ReferenceTensor>(
    (parent, shape, offset) => {
      const data = window(parent.data as Storage, offset, elementCount(shape));
      return new ReferenceTensor(this, parent.dtype, Object.freeze([...shape]), data, false, parent);
    },
    (t) => t.drop(),
  );

  constructor() {
    const live = (t: Tensor, what: string) => this.#live(t, what);
    this.kernels = {
      embed: (out, table, tokens, scale) => embed(live, out, table, tokens, scale),
      rmsNorm: (out, x, weight, epsilon) => rmsNorm(live, out, x, weight, epsilon),
      addRmsNorm(out, x, y, weight, epsilon) {
        add(live, x, x, y);
        rmsNorm(live, out, x, weight, epsilon);
      },
      matmul: (outs, x, ws) => matmul(live, outs, x, ws),
      matmulGlu: (out, x, gate, up, activation) => {
        const mark = this.mark();
        try {
          const factor = this.alloc(out.shape, "f32", "step");
          matmul(live, [out, factor], x, [gate, up]);
          glu(live, out, out, factor, activation);
        } finally {
          this.release(mark);
        }
      },
      add: (out, x, y) => add(live, out, x, y),
      glu: (out, gate, up, activation) => glu(live, out, gate, up, activation),
      ropeTable: (out, positions, r) => ropeTable(live, out, positions, r),
      rope: (xs, table, pairing) => xs.forEach((x) => rope(live, x, table, pairing)),
      copy: (dst, at, src, from, count) => copy(live(dst, "copy to"), at, live(src, "copy from"), from, count),
      append: (segment, row, k, v) => append(live, segment, row, k, v),
      attendCausal: (out, q, kv, sink) => attendCausal(live, out, q, kv, sink),
      attendCausalPart: ({ o, lse }, q, kv) => attendCausal(live, o, q, kv, undefined, lse),
      attendWindow: (out, q, kv, spans) => attendWindow(live, out, q, kv, spans),
      attendTopk: (out, q, kv, hits) => attendTopk(live, out, q, kv, hits),
      merge: (out, parts) => merge(live, out, parts),
      mergeParts: ({ o, lse }, parts) => merge(live, o, parts, lse),
      addLogits: (logits, row, ids, values) => addLogits(live, logits, row, ids, values),
      penalize: (logits, row, penalties) => penalize(live, logits, row, penalties),
      sample: (out, logits, params) => sample(live, out, logits, params),
      tokenLogprobs: (out, logits, tokens) => tokenLogprobs(live, out, logits, tokens),
      topLogprobs: (ids, logprobs, logits) => topLogprobs(live, ids, logprobs, logits),
      klDivergence: (out, base, logits) => klDivergence(live, out, base, logits),
    };
  }

  /** Live bytes of model and sequence memory. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Zeroed memory. */
  alloc(shape: Shape, dtype: DType, life: Lifetime): Tensor {
    this.#open("allocate tensor");
    checkShape("allocate tensor", shape, dtype);
    if (life === "step") return this.#step.take(shape, dtype, (s, d) => this.#make(s, d, false));
    const tensor = this.#make(shape, dtype, true);
    this.#bytes += byteLength(shape, dtype);
    return tensor;
  }

  /** Frees model or sequence memory; again is nothing. */
  free(tensor: Tensor): void {
    const t = this.#own(tensor, "tensor");
    if (!t.lasting) throw new RangeError("Cannot free tensor: it is step memory, which endStep recycles");
    if (t.data === undefined || this.#disposed) return;
    t.drop();
    this.#bytes -= byteLength(t.shape, t.dtype);
  }

  /** The same memory under another shape. */
  view(tensor: Tensor, shape: Shape, offset = 0): Tensor {
    const { tensor: parent, dtype } = this.#live(tensor, "tensor to view");
    if (isBlockType(dtype)) throw new RangeError(`Cannot view tensor: ${dtype} holds blocks, only plain types can`);
    checkShape("view tensor", shape, dtype);
    const count = elementCount(shape);
    const room = elementCount(parent.shape);
    if (!Number.isInteger(offset) || offset < 0 || offset + count > room) {
      throw new RangeError(`Cannot view tensor: elements ${offset} to ${offset + count} of ${room}`);
    }
    return this.#step.takeView(parent, shape, offset);
  }

  /** Copies whole rows in. */
  write(dst: Tensor, src: ArrayBufferView<ArrayBuffer>, row = 0): void {
    const { data, shape, dtype } = this.#live(dst, "tensor to write");
    const rowBytes = byteLength([shape[shape.length - 1] as number], dtype);
    const rows = rowCount(shape);
    const room = (rows - row) * rowBytes;
    if (!Number.isInteger(row) || row < 0 || row > rows || src.byteLength > room) {
      throw new RangeError(`Cannot write tensor: ${src.byteLength} bytes from row ${row} on, room for ${rows} rows`);
    }
    if (rowBytes > 0 && src.byteLength % rowBytes !== 0) {
      throw new RangeError(`Cannot write tensor: ${src.byteLength} bytes are not whole rows of ${rowBytes}`);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    bytes.set(new Uint8Array(src.buffer, src.byteOffset, src.byteLength), row * rowBytes);
  }

  /** Copies out, widened. */
  read(src: Tensor): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
    const { data, dtype } = this.#live(src, "tensor to read");
    return widened(data, dtype);
  }

  /** Copies rows out as they are stored. */
  readRows(src: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void {
    const { data, shape, dtype } = this.#live(src, "tensor to read");
    if (isBlockType(dtype)) throw new RangeError(`Cannot read tensor: ${dtype} holds blocks, only plain types can`);
    const rowBytes = byteLength([shape[shape.length - 1] as number], dtype);
    if (!Number.isInteger(row) || row < 0 || row * rowBytes + out.length > data.byteLength) {
      throw new RangeError(
        `Cannot read tensor: ${out.length} bytes from row ${row} on, it has ${rowCount(shape)} rows`,
      );
    }
    out.set(new Uint8Array(data.buffer, data.byteOffset + row * rowBytes, out.length));
  }

  /** Position of the step stack. */
  mark(): number {
    this.#open("mark step memory");
    return this.#step.cursor;
  }

  /** Recycles what was taken since. */
  release(mark: number): void {
    this.#step.release(mark);
  }

  /** Recycles all step memory. */
  endStep(): void {
    this.#step.endStep();
  }

  /** Lets go of everything; again is nothing. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#step.clear();
    this.#bytes = 0;
  }

  #make(shape: Shape, dtype: DType, lasting: boolean): ReferenceTensor {
    return new ReferenceTensor(this, dtype, Object.freeze([...shape]), makeStorage(shape, dtype), lasting);
  }

  #open(action: string): void {
    if (this.#disposed) throw new Error(`Cannot ${action}: backend "${this.spec}" was disposed`);
  }

  #own(tensor: Tensor, what: string): ReferenceTensor {
    if (tensor.backend === this && tensor instanceof ReferenceTensor) return tensor;
    throw new RangeError(`Cannot use ${what}: it belongs to another backend, "${tensor.backend.spec}"`);
  }

  #live(tensor: Tensor, what: string): Live {
    this.#open(`use ${what}`);
    const t = this.#own(tensor, what);
    const data = t.data;
    if (data === undefined) throw new RangeError(`Cannot use ${what}: its memory was freed`);
    return { dtype: t.dtype, shape: t.shape, data, tensor: t };
  }
}
