/**
 * Index types of a library that implements `kvasir_index.h`: whatever it lists is registered, without TypeScript.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, KvQueries, KvSegment } from "../core/kv.ts";
import type { AttentionPart, Backend, NativePointer } from "../backends/backend.ts";
import type {
  Certificate,
  FileRange,
  Goal,
  IndexStats,
  IndexType,
  KvIndex,
  Params,
  SearchHits,
  SearchReport,
} from "./index.ts";
import { NATIVE_STATUS } from "../core/errors.ts";
import { formatSpec } from "../core/spec.ts";
import { cString, loadIndexLibrary, textOf } from "./ffi.ts";
import { checkChunk, checkGoal, checkQueries, checkQuery } from "./check.ts";
import { IndexContext, type Registered } from "./native_context.ts";

const CERTIFICATES: readonly Certificate[] = ["none", "calibrated", "unbiased", "exact"];
const GOAL_ERROR = 0;
const GOAL_TOPK = 1;
const TAILS = { none: 0, sample: 1, surrogate: 2 } as const;

/** Room that a first search is given under an error goal; what does not suffice is made larger and kept. */
const FIRST_CAPACITY = 256;

/** Types that decide by what this machine's searches cost. */
const PLANNERS: ReadonlySet<string> = new Set(["planned"]);

/** The types of the library at `path`, by name. Throws `Unsupported` where it cannot be loaded. */
export function nativeIndexTypes(path: string): Readonly<Record<string, IndexType>> {
  // Types that plan have a context of their own, so that nothing else waits for costs to be measured.
  const contexts = { plain: new WeakMap<Backend, IndexContext>(), planned: new WeakMap<Backend, IndexContext>() };
  const contextOf = (backend: Backend, type: string): IndexContext => {
    const kind = PLANNERS.has(type) ? "planned" : "plain";
    const known = contexts[kind].get(backend);
    if (known !== undefined && !known.ended) return known;
    const made = new IndexContext(backend, path, kind === "planned");
    contexts[kind].set(backend, made);
    return made;
  };
  const types: Record<string, IndexType> = {};
  for (const line of listTypes(path)) {
    const [name = "", defaults = "", summary = ""] = line.split("\t");
    types[name] = {
      summary,
      defaults: parseDefaults(defaults),
      create: (kv, params, on) => NativeIndex.create(contextOf(on, name), formatSpec(name, params), kv),
      map: (file, kv, params, on, range) =>
        NativeIndex.map(contextOf(on, name), formatSpec(name, params), kv, file, range),
    };
  }
  return types;
}

function listTypes(path: string): string[] {
  const library = loadIndexLibrary(path);
  try {
    const text = textOf(library, (buffer) => library.symbols.kvasir_index_types(buffer, buffer.length));
    return text.split("\n").filter((line) => line !== "");
  } finally {
    library.close();
  }
}

/** "key=value,…" as the library lists them: what reads as a number, or as true or false, is one. */
function parseDefaults(text: string): Params {
  const params: Record<string, string | number | boolean> = {};
  for (
    const [, key = "", inner, bare = ""] of text.matchAll(/([a-z][a-z0-9_]*)=(?:\(((?:[^()]|\([^()]*\))*)\)|([^,]*))/g)
  ) {
    const value = inner ?? bare;
    if (value === "true" || value === "false") params[key] = value === "true";
    else params[key] = value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  }
  return params;
}

/** An index inside a native context. */
class NativeIndex implements KvIndex {
  readonly #context: IndexContext;
  readonly #spec: string;
  readonly #kv: KvLayer;
  /** Those that the index was given, in order. */
  readonly #segments: Registered[];
  readonly #goal = new Float64Array(4);
  readonly #report = new Float64Array(5);
  readonly #numbers = new Float64Array(5);
  readonly observes: boolean;
  /** Not of a device's index: it is made anew from the rows. */
  readonly saveInto?: (path: string, offset: number) => number;
  /** Of an index over rows that lie where it works, on a device. */
  readonly attend?: NonNullable<KvIndex["attend"]>;
  #id: number;

  private constructor(context: IndexContext, spec: string, kv: KvLayer, id: number, segments: Registered[]) {
    this.#context = context;
    this.#spec = spec;
    this.#kv = kv;
    this.#id = id;
    this.#segments = segments;
    const observes = new Int32Array(1);
    context.check(context.library.symbols.kvasir_index_observes(context.pointer, id, observes));
    this.observes = observes[0] === 1;
    if (context.host.indexLibrary === undefined) this.saveInto = (path, offset) => this.#saveInto(path, offset);
    if (context.library.symbols.kvasir_index_attend !== null && context.host.isApart !== true) {
      this.attend = (out, q, goal, exact) => this.#attend(out, q, goal, exact);
    }
  }

  static create(context: IndexContext, spec: string, kv: KvLayer): NativeIndex {
    const { shape, frequencies } = describeShape(kv);
    const out = new Uint32Array(1);
    const { symbols } = context.library;
    context.check(symbols.kvasir_index_create(context.pointer, out, cString(spec), shape, frequencies));
    return new NativeIndex(context, spec, kv, out[0] as number, []);
  }

  static map(context: IndexContext, spec: string, kv: KvLayer, path: string, range?: FileRange): NativeIndex {
    const { shape, frequencies } = describeShape(kv);
    const { symbols } = context.library;
    return withSegments(context, kv.segments, (ids, held) => {
      const out = new Uint32Array(1);
      context.check(
        symbols.kvasir_index_map_from(
          context.pointer,
          out,
          cString(path),
          range === undefined ? null : Float64Array.of(range.offset, range.bytes),
          cString(spec),
          shape,
          frequencies,
          ids,
          ids.length,
        ),
      );
      return new NativeIndex(context, spec, kv, out[0] as number, held);
    });
  }

  add(chunk: KvChunk): void {
    const id = this.#live();
    const { start, count } = chunk;
    checkChunk(chunk, this.#kv);
    this.#appendSegments(id, start + count);
    this.#context.check(this.#context.library.symbols.kvasir_index_add(this.#context.pointer, id, start, count));
  }

  observe(chunk: KvQueries): void {
    const id = this.#live();
    checkQueries(chunk, this.#kv.shape);
    // What a query saw may be read with it.
    this.#appendSegments(id, chunk.start + chunk.count);
    const { library, pointer } = this.#context;
    const queries = this.#context.host.input(chunk.q);
    this.#context.check(library.symbols.kvasir_index_observe(pointer, id, chunk.start, chunk.count, queries));
  }

  commit(): void {
    const id = this.#live();
    this.#context.check(this.#context.library.symbols.kvasir_index_commit(this.#context.pointer, id));
  }

  settle(): void {
    const id = this.#live();
    this.#context.check(this.#context.library.symbols.kvasir_index_settle(this.#context.pointer, id));
  }

  search(out: SearchHits, q: Tensor, goal: Goal, exact: Tensor): void {
    const id = this.#live();
    const { heads, kvHeads, headDim } = this.#kv.shape;
    const isSurrogate = "topk" in goal && goal.tail === "surrogate";
    checkQuery(q, exact, this.#kv.shape);
    checkGoal(goal);
    const rows = this.#setGoal(goal) === GOAL_ERROR ? kvHeads : heads;
    const { symbols } = this.#context.library;
    const { host } = this.#context;
    const [query, lse] = [host.input(q), host.input(exact)];
    let capacity = "error" in goal ? FIRST_CAPACITY : goal.topk;
    // The draw repeats, so that the counts of the first attempt are those of the second.
    for (let attempt = 0; attempt < 2; attempt++) {
      out.reserve(rows, capacity);
      const rest = isSurrogate ? out.reserveRest(heads, headDim) : undefined;
      const status = symbols.kvasir_index_search(
        this.#context.pointer,
        id,
        this.#address(out.tokens),
        this.#address(out.bias),
        this.#address(out.counts),
        this.#address(out.estimatedError),
        this.#report,
        out.tokens.shape[1] as number,
        this.#goal,
        query,
        lse,
        rest === undefined ? null : this.#address(rest.o),
        rest === undefined ? null : this.#address(rest.lse),
      );
      if (status === NATIVE_STATUS.OK) return void Object.assign(out.report, this.#reported());
      if (status !== NATIVE_STATUS.CAPACITY || attempt > 0) this.#context.check(status);
      for (const count of this.#context.backend.read(out.counts)) capacity = Math.max(capacity, count);
    }
  }

  #attend(out: AttentionPart, q: Tensor, goal: Goal, exact: Tensor): SearchReport {
    const id = this.#live();
    checkQuery(q, exact, this.#kv.shape);
    checkGoal(goal);
    checkQuery(out.o, out.lse, this.#kv.shape);
    this.#setGoal(goal);
    const { symbols } = this.#context.library;
    const attend = symbols.kvasir_index_attend as NonNullable<typeof symbols.kvasir_index_attend>;
    this.#context.check(
      attend(
        this.#context.pointer,
        id,
        this.#address(out.o),
        this.#address(out.lse),
        this.#report,
        this.#goal,
        this.#context.host.input(q),
        this.#context.host.input(exact),
      ),
    );
    return this.#reported();
  }

  fork(kv: KvLayer): KvIndex {
    const id = this.#live();
    const context = this.#context;
    return withSegments(context, kv.segments, (ids, held) => {
      const out = new Uint32Array(1);
      context.check(context.library.symbols.kvasir_index_fork(context.pointer, out, id, ids, ids.length));
      return new NativeIndex(context, this.#spec, kv, out[0] as number, held);
    });
  }

  save(path: string): void {
    const id = this.#live();
    this.#context.check(this.#context.library.symbols.kvasir_index_save(this.#context.pointer, id, cString(path)));
  }

  #saveInto(path: string, offset: number): number {
    const id = this.#live();
    const { library, pointer } = this.#context;
    const bytes = new Float64Array(1);
    this.#context.check(library.symbols.kvasir_index_save_into(pointer, id, bytes, cString(path), offset));
    return bytes[0] as number;
  }

  stats(): IndexStats {
    const id = this.#live();
    const { library, pointer } = this.#context;
    const text = textOf(
      library,
      (buffer) => library.symbols.kvasir_index_stats(pointer, id, this.#numbers, buffer, buffer.length),
    );
    const [tokens = 0, bytes = 0, pendingTokens = 0, buildSeconds = 0, insertedTokens = 0] = this.#numbers;
    const decisions = text.split("\n").filter((line) => line !== "");
    return { tokens, bytes, pendingTokens, buildSeconds, insertedTokens, decisions };
  }

  [Symbol.dispose](): void {
    if (this.#id === 0) return;
    const id = this.#id;
    this.#id = 0;
    if (this.#context.ended) return;
    const status = this.#context.library.symbols.kvasir_index_destroy(this.#context.pointer, id);
    for (const held of this.#segments.splice(0)) this.#context.release(held);
    this.#context.check(status);
  }

  /** The index knows of all segments with tokens before `end`. */
  #appendSegments(id: number, end: number): void {
    for (let i = this.#segments.length; i < this.#kv.segments.length; i++) {
      const segment = this.#kv.segments[i] as KvSegment;
      if (segment.start >= end) break;
      const held = this.#context.acquire(segment);
      const status = this.#context.library.symbols.kvasir_index_append_segment(this.#context.pointer, id, held.id);
      if (status !== NATIVE_STATUS.OK) this.#context.release(held);
      this.#context.check(status);
      this.#segments.push(held);
    }
  }

  #setGoal(goal: Goal): number {
    const kind = "error" in goal ? GOAL_ERROR : GOAL_TOPK;
    this.#goal[0] = kind;
    this.#goal[1] = "error" in goal ? goal.error : goal.topk;
    this.#goal[2] = "error" in goal ? TAILS.none : TAILS[goal.tail ?? "none"];
    this.#goal[3] = goal.draw;
    return kind;
  }

  #reported(): SearchReport {
    const [certificate = 0, keysScored = 0, keysKept = 0, bytesRead = 0, expectedRecall = NaN] = this.#report;
    return { certificate: CERTIFICATES[certificate] ?? "none", keysScored, keysKept, bytesRead, expectedRecall };
  }

  #address(tensor: Tensor): NativePointer {
    return this.#context.host.address(tensor);
  }

  #live(): number {
    if (this.#id === 0) throw new Error(`Cannot use index "${this.#spec}": it was disposed`);
    this.#context.host.ready?.();
    return this.#id;
  }
}

/** Runs `make` with segments that are counted, and their ids; counts them back when it throws. */
function withSegments<T>(
  context: IndexContext,
  segments: readonly KvSegment[],
  make: (ids: Uint32Array<ArrayBuffer>, held: Registered[]) => T,
): T {
  const held: Registered[] = [];
  try {
    for (const segment of segments) held.push(context.acquire(segment));
    return make(Uint32Array.from(held, ({ id }) => id), held);
  } catch (error) {
    for (const h of held) context.release(h);
    throw error;
  }
}

function describeShape(kv: KvLayer): { shape: Float64Array<ArrayBuffer>; frequencies: Float64Array<ArrayBuffer> } {
  const { heads, kvHeads, headDim, scale, softcap = 0, rope } = kv.shape;
  // Where building draws numbers, it draws the same in every layer: seed 0.
  const shape = Float64Array.of(
    heads,
    kvHeads,
    headDim,
    scale,
    softcap,
    rope?.dims ?? 0,
    rope?.pairing === "neighbours" ? 1 : 0,
    0,
  );
  return { shape, frequencies: new Float64Array(rope?.frequencies ?? [0]) };
}
