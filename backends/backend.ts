/**
 * The backend contract: memory, and about two dozen kernels that write to outputs they are given. Types only.
 *
 * Lifecycle: `open` (from the registry) → `alloc` weights and caches → per step: kernels on step memory, one `read`,
 * `endStep` → `free` → dispose. A kernel that a backend lacks throws `Unsupported` (core/errors.ts) with a reason.
 * Bodies may trust shapes: `Ops` checks them once for every backend. Bodies never trust contents (token ids, positions).
 *
 * @module
 */
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment, Rope } from "../core/kv.ts";
import type { Hits } from "../index/index.ts";
import type { PromptSink, Spans } from "../attention/policy.ts";

/** Weights · caches and indexes · activations (recycled by `release` and `endStep`). */
export type Lifetime = "model" | "sequence" | "step";

/** Memory and kernels of one device. */
export interface Backend extends Disposable {
  /** Canonical spec as printed in every bench row: `cpu:isa=avx512,threads=2`. */
  readonly spec: string;
  /** Live bytes of `model` and `sequence` memory. */
  readonly bytes: number;
  /** What it computes. */
  readonly kernels: Kernels;
  /** Contents are undefined until written. Throws `RangeError` when the shape is invalid, `NativeError` when memory is out. */
  alloc(shape: Shape, dtype: DType, life: Lifetime): Tensor;
  /** Frees `model` or `sequence` memory (idempotent). */
  free(tensor: Tensor): void;
  /**
   * The same memory under another shape, from element `offset` on; plain types only. A view of step memory is step
   * memory; a view of other memory ends with the next `endStep` too.
   */
  view(tensor: Tensor, shape: Shape, offset?: number): Tensor;
  /**
   * Copies little-endian elements (for block types: GGUF blocks) into `dst` from row `row` on, whole rows at a time
   * (a row = the last dimension). Weights are repacked on the way; all rows must be written before first use.
   */
  write(dst: Tensor, src: ArrayBufferView<ArrayBuffer>, row?: number): void;
  /** Copies a plain tensor out, widened to f32 or i32. The only call that waits for the device. */
  read(src: Tensor): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
  /**
   * Begins to read an f32 or i32 tensor: what it holds once all that was asked for before is done. Runs beside what is asked for
   * next, and the tensor may be written or end meanwhile. Optional: without it, {@link read} is all there is.
   */
  fetch?(src: Tensor): Fetched;
  /**
   * Runs a decode step, a row and a token of each of its sequences, whose kernels may be written down when they are asked for and done at
   * its end, in one call. Whatever else is asked of the backend meanwhile waits for what it follows. Optional.
   */
  record?<T>(run: () => T): Recorded<T>;
  /**
   * Copies a plain tensor's rows (a row = the last dimension) from row `row` on as they are stored, until `out` is full.
   * Optional: a backend without it lends its memory to no other.
   */
  readRows?(src: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void;
  /** Step memory is a stack: everything allocated after `mark` is recycled by `release(mark)`. */
  mark(): number;
  /** See {@link mark}. */
  release(mark: number): void;
  /** Recycles all step memory. */
  endStep(): void;
  /**
   * Up to so many bytes that freed memory has left stay with the process for what comes, 0 at first; what was kept beyond goes back to
   * the system now. One limit for all backends of a library. Optional: without it all goes back at once.
   */
  keep?(bytes: number): void;
  /** Files of tensors; absent where it keeps none: contexts then live in memory only. */
  readonly files?: TensorFiles;
  /** Doors for libraries that work on this backend's memory; absent where it is not memory of native code. */
  readonly host?: HostMemory;
}

/** A copy on its way from a device. Disposed of before it was taken, it is dropped; after, that is nothing. */
export interface Fetched extends Disposable {
  /** Waits for it, and for nothing else. Once. */
  take(): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
}

/** Files that tensors are saved to and mapped from (docs/context_file.md). Sections have names of 1 to 31 ASCII characters. */
export interface TensorFiles {
  /** Begins a file beside `path`, which it replaces once it is committed. Throws `RangeError` where it cannot be made. */
  create(path: string): TensorFileWriter;
  /** Maps a file, its header and directory checked. Throws `RangeError` for one that is damaged or none. */
  open(path: string): TensorFile;
}

/** A file being written. Dispose removes it unless it was committed; everything throws `NativeError` where the disk fails. */
export interface TensorFileWriter extends Disposable {
  /** A section of bytes. */
  add(name: string, data: Uint8Array<ArrayBuffer>): void;
  /** A section of rows: the first `counts[i]` of each head of tensors [heads, capacity, …], as one [heads, sum, …]. */
  addRows(name: string, tensors: readonly Tensor[], counts: readonly number[]): void;
  /** A section that `write` puts into the file at `path` from byte `offset` on; it returns how many bytes that were. */
  addForeign(name: string, write: (path: string, offset: number) => number): void;
  /** Flushes the file and gives it its name. */
  commit(): void;
}

/** A mapped file. Every section is checked before its first use: `RangeError` names one that is damaged. */
export interface TensorFile extends Disposable {
  /** Checks all sections now, on all threads. */
  verify(): void;
  /** Where a section lies. */
  find(name: string): { readonly offset: number; readonly bytes: number };
  /** A copy of a section. */
  read(name: string): Uint8Array<ArrayBuffer>;
  /** Sequence memory over a section, shared with all who map the file; not to be written to. Outlives the file. */
  map(name: string, shape: Shape, dtype: DType): Tensor;
}

/** A pointer that only native code looks behind. */
export type NativePointer = Exclude<Deno.PointerValue, null>;

/** What a backend lends to other native libraries over the same memory (`kvasir_abi.h`). */
export interface HostMemory {
  /** Where a plain tensor's elements lie, until it ends. */
  address(tensor: Tensor): NativePointer;
  /** The same for reading only: of a copy, until the step ends, where the tensor itself lies elsewhere. */
  input(tensor: Tensor): NativePointer;
  /** A plain tensor's memory (no view's), which the library may hold beyond the tensor's end: `kvasir_memory`. */
  memory(tensor: Tensor): NativePointer;
  /** File of the library whose indexes work on this memory, where it is a device's: `libkvasir_index` does not. */
  readonly indexLibrary?: string;
  /** Before a library reads rows it was lent: whatever kernels have appended is there. Absent where it always is. */
  ready?(): void;
  /** Rows lie apart from where the library works: it encodes them, and cannot attend to them. */
  readonly isApart?: boolean;
  /** The backend's threads, as long as the backend: `kvasir_executor`. */
  readonly executor: NativePointer;
  /** Disposes `library`, which works with what is lent here, right before the backend ends. */
  attach(library: Disposable): void;
}

/** A partial attention result: `lse` is the log of the sum of exponentials behind `o`. An empty part has `lse` −∞, `o` 0. */
export interface AttentionPart {
  /** f32 [n, heads, headDim] */
  readonly o: Tensor;
  /** f32 [n, heads] */
  readonly lse: Tensor;
}

/** Gate of a gated linear unit: SwiGLU, or GeGLU with the tanh form of GELU (Shazeer 2020, "GLU variants"). */
export type Activation = "silu" | "gelu";

/** How one row's next token is drawn. Filters apply in the order top-k, typical-p, top-p, min-p, after the temperature. */
export interface SampleParams {
  /** 0 takes the best token (ties: lowest id). */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** Locally typical sampling (Meister et al. 2023); 1 is off. */
  readonly typicalP: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly minP: number;
  /** Uniform in [0, 1): candidates in falling order of probability, the first whose cumulative sum exceeds it. */
  readonly uniform: number;
}

/** Penalties of llama.cpp and OpenAI over the tokens seen so far. */
export interface Penalties {
  /** Distinct token ids and how often each was seen. */
  readonly tokens: Int32Array<ArrayBuffer>;
  /** At least 1, in the order of `tokens`. */
  readonly counts: Int32Array<ArrayBuffer>;
  /** Divides positive, multiplies negative logits of seen tokens (CTRL, section 4.1); 1 is off. */
  readonly repetition: number;
  /** Subtracted once, and per count. */
  readonly presence: number;
  /** Subtracted per count. */
  readonly frequency: number;
}

/** Output first; nothing is allocated or returned. Activations are f32. */
export interface Kernels {
  /** out [n, width] = scale · table[tokens]; table [vocab, width] of any weight type; an id outside the table throws `RangeError`. */
  embed(out: Tensor, table: Tensor, tokens: Tensor, scale: number): void;
  /** Root-mean-square norm over the last dimension (Zhang & Sennrich 2019): out = x / rms(x) · weight; may run in place. */
  rmsNorm(out: Tensor, x: Tensor, weight: Tensor, epsilon: number): void;
  /**
   * x += y, then out = rmsNorm(x): a residual stream and its norm, as bits the same as {@link Kernels.add} and
   * {@link Kernels.rmsNorm} one after the other. y has x's shape; out may be y, not x.
   */
  addRmsNorm(out: Tensor, x: Tensor, y: Tensor, weight: Tensor, epsilon: number): void;
  /**
   * outs[i] [n, m_i] = x [n, k] · ws[i] [m_i, k]ᵀ: matrices that share an input run in one call. Outputs and x may have
   * m_i and k split in two, as [n, heads, headDim].
   */
  matmul(outs: readonly Tensor[], x: Tensor, ws: readonly Tensor[]): void;
  /**
   * out [n, m] = activation(x · gateᵀ) · (x · upᵀ), with x [n, k], gate and up [m, k]: the first half of a gated MLP, as
   * bits the same as {@link Kernels.matmul} of both and {@link Kernels.glu} after it.
   */
  matmulGlu(out: Tensor, x: Tensor, gate: Tensor, up: Tensor, activation: Activation): void;
  /** out = x + y; y has x's shape, or is f32 [last dimension] added to every row; out may be x. */
  add(out: Tensor, x: Tensor, y: Tensor): void;
  /** out = activation(gate) · up; out may be either input. */
  glu(out: Tensor, gate: Tensor, up: Tensor, activation: Activation): void;
  /** out [n, dims/2, 2] = magnitude · (cos, sin) of positions × frequencies; angles in double precision. */
  ropeTable(out: Tensor, positions: Tensor, rope: Rope): void;
  /** Rotates each x [n, heads, headDim] in place by table [n, dims/2, 2]; numbers of heads may differ. */
  rope(xs: readonly Tensor[], table: Tensor, pairing: Rope["pairing"]): void;
  /** dst[at …] = src[from …], `count` elements as they are; plain tensors of one type, of sequence memory. */
  copy(dst: Tensor, at: number, src: Tensor, from: number, count: number): void;
  /** Stores k, v [n, kvHeads, headDim] into the segment's rows `row … row + n`, converting to its type. */
  append(segment: KvSegment, row: number, k: Tensor, v: Tensor): void;
  /**
   * Exact attention of the last n tokens: q row `i` has position `kv.length − n + i` and sees all keys up to its own, or
   * the layer's sliding window of them. out, q f32 [n, heads, headDim]. A backend may not fill sinks: `Unsupported`.
   */
  attendCausal(out: Tensor, q: Tensor, kv: KvLayer, sink?: PromptSink): void;
  /**
   * {@link Kernels.append} of one row each: row `i` of k, v [n, kvHeads, headDim] becomes row `rows[i]` of `segments[i]`, which are of n
   * caches. Optional: {@link Ops.appendEach} does without.
   */
  appendEach?(segments: readonly KvSegment[], rows: Int32Array<ArrayBuffer>, k: Tensor, v: Tensor): void;
  /**
   * {@link Kernels.attendCausal} of one query each: row `i` of out, q [n, heads, headDim] is the last token of `caches[i]`, which have one
   * shape and type. As bits what a call each gives. Optional: {@link Ops.attendEach} does without.
   */
  attendEach?(out: Tensor, q: Tensor, caches: readonly KvLayer[]): void;
  /** {@link Kernels.attendCausal} as a part of a larger whole: its log-sum-exp too. Optional as {@link Kernels.attendWindow}. */
  attendCausalPart?(out: AttentionPart, q: Tensor, kv: KvLayer): void;
  /** logits[row, ids[i]] += values[i]. */
  addLogits(logits: Tensor, row: number, ids: Int32Array<ArrayBuffer>, values: Float32Array<ArrayBuffer>): void;
  /** Applies penalties to one row of logits [rows, vocab]: repetition first, then presence and frequency. */
  penalize(logits: Tensor, row: number, penalties: Penalties): void;
  /** out i32 [rows] from logits [rows, vocab], one `params` a row. */
  sample(out: Tensor, logits: Tensor, params: readonly SampleParams[]): void;
  /** out f32 [rows]: log-softmax of tokens i32 [rows]. */
  tokenLogprobs(out: Tensor, logits: Tensor, tokens: Tensor): void;
  /** The k best per row, best first (ties: lowest id): ids i32 [rows, k], logprobs f32 [rows, k]. */
  topLogprobs(ids: Tensor, logprobs: Tensor, logits: Tensor): void;
  /** out f32 [rows] = KL(softmax(base) ‖ softmax(logits)), in nats. */
  klDivergence(out: Tensor, base: Tensor, logits: Tensor): void;

  /**
   * Decode over `spans` of positions, which all n queries see: softmax over them alone. Optional: a backend without it
   * serves no retrieval policy.
   */
  attendWindow?(out: AttentionPart, q: Tensor, kv: KvLayer, spans: Spans): void;
  /**
   * Decode of one query, q [1, heads, headDim], over retrieved tokens: the bias is added to a logit after the soft cap.
   * Optional as above.
   */
  attendTopk?(out: AttentionPart, q: Tensor, kv: KvLayer, hits: Hits): void;
  /** out [n, heads, headDim]: disjoint parts, at least one, become the whole by log-sum-exp; out may be one of them. */
  merge?(out: Tensor, parts: readonly AttentionPart[]): void;
  /** {@link Kernels.merge} with the log-sum-exp of all; out may be one of the parts. Optional as above. */
  mergeParts?(out: AttentionPart, parts: readonly AttentionPart[]): void;
}

/** A step that was written down. */
export interface Recorded<T> {
  /** What it returned. */
  readonly value: T;
  /**
   * Does it again as the next step's first act, to the same outputs, with so many tokens more in every cache than the last time; segments
   * have room for them. `write` gives its input tensors their values. False, and nothing has happened, where its memory is gone.
   * Undefined: there is no doing it again.
   */
  readonly again: ((tokens: number, write: () => void) => boolean) | undefined;
}

/** One entry of the backend registry. */
export interface BackendType {
  /** One sentence for `--help` and error messages. */
  readonly summary: string;
  /** Parameters and their defaults, as in `name:key=value,…`. */
  readonly defaults: Readonly<Record<string, string | number | boolean>>;
  /**
   * Makes `open` with these parameters possible where that takes time (builds a library, say); throws `Unsupported` where it
   * cannot.
   */
  prepare?(
    report: (done: number, total: number, detail: string) => void,
    params: Readonly<Record<string, string | number | boolean>>,
  ): Promise<void>;
  /** Throws `Unsupported` when this machine cannot run it, saying why and what to do. */
  open(params: Readonly<Record<string, string | number | boolean>>): Backend;
}
