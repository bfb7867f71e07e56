/**
 * The index library on one backend's memory: a context, and the cache segments that its indexes share.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvSegment } from "../core/kv.ts";
import type { Backend, HostMemory, NativePointer } from "../backends/backend.ts";
import { Unsupported } from "../core/errors.ts";
import { parseSpec } from "../core/spec.ts";
import { machineCosts } from "./costs.ts";
import { cString, indexErrorOf, type IndexLibrary, loadIndexLibrary } from "./ffi.ts";

/** Codes of element types that segments may have. */
const SEGMENT_TYPES: Readonly<Record<string, number>> = { f32: 0, f16: 1, i8: 4 };

/** A registered segment, so many rows of it, and how many indexes look at it. */
export interface Registered {
  /** The library's. */
  readonly id: number;
  /** Of the cache. */
  readonly keys: Tensor;
  /** Of each head. */
  readonly rows: number;
  /** Counted by {@link IndexContext.acquire}. */
  uses: number;
}

/** See the module's head. Ends with its backend, right before it. */
export class IndexContext implements Disposable {
  /** The backend's doors. */
  readonly host: HostMemory;
  readonly #library: IndexLibrary;
  /** By their keys: forks of a cache share rows under segment objects of their own, which may show fewer of them. */
  readonly #segments = new Map<Tensor, Registered[]>();
  #context: NativePointer | undefined;

  /**
   * `planned`: with what this machine's searches cost. Throws `Unsupported` where the backend's memory is not native, or the library
   * cannot be loaded.
   */
  constructor(readonly backend: Backend, path: string, planned = false) {
    if (backend.host === undefined) {
      throw new Unsupported(
        `Cannot use native indexes on backend "${backend.spec}": they work on memory of native code, use index flat-reference or backend cpu`,
      );
    }
    this.host = backend.host;
    const own = this.host.indexLibrary ?? path;
    this.#library = loadIndexLibrary(own);
    const isa = parseSpec(backend.spec).params.get("isa") ?? "auto";
    const costs = planned && own === path ? machineCosts(this.#library, path, isa) : undefined;
    // Searches with the instruction set that the backend was opened with.
    const options = cString(`isa=${isa}${costs === undefined ? "" : `,costs=(${costs.text})`}`);
    const context = this.#library.symbols.kvasir_index_context_create(options, this.host.executor);
    if (context === null) {
      const error = indexErrorOf(this.#library, 0);
      this.#library.close();
      throw new Unsupported(error.message);
    }
    this.#context = context;
    this.host.attach(this);
  }

  /** Whether the backend has ended, and all indexes with it. */
  get ended(): boolean {
    return this.#context === undefined;
  }

  /** The library, for calls with {@link pointer}. */
  get library(): IndexLibrary {
    return this.#library;
  }

  /** Throws once the backend has ended. */
  get pointer(): NativePointer {
    if (this.#context === undefined) throw new Error(`Cannot use index: backend "${this.backend.spec}" was disposed`);
    return this.#context;
  }

  /** Turns a status into an error. */
  check(status: number): void {
    if (status !== 0) throw indexErrorOf(this.#library, status);
  }

  /** Registers the segment, or counts one more user of it. */
  acquire(segment: KvSegment): Registered {
    const { keys, sealed, count } = segment;
    const rows = sealed ? count : keys.shape[1] as number;
    const all = this.#segments.get(keys) ?? [];
    let known = all.find((r) => r.rows === rows);
    if (known === undefined) {
      known = { id: this.#register(segment, rows), keys, rows, uses: 0 };
      this.#segments.set(keys, [...all, known]);
    }
    known.uses++;
    return known;
  }

  /** Lets go of a segment. */
  release(known: Registered): void {
    if (this.#context === undefined || --known.uses > 0) return;
    const others = (this.#segments.get(known.keys) ?? []).filter((r) => r !== known);
    if (others.length === 0) this.#segments.delete(known.keys);
    else this.#segments.set(known.keys, others);
    this.check(this.#library.symbols.kvasir_segment_destroy(this.#context, known.id));
  }

  /** Ends builders, indexes and segments; again is nothing. */
  [Symbol.dispose](): void {
    const context = this.#context;
    if (context === undefined) return;
    this.#context = undefined;
    this.#segments.clear();
    this.#library.symbols.kvasir_index_context_destroy(context);
    this.#library.close();
  }

  #register({ start, keys, values, keyScales, valueScales }: KvSegment, rows: number): number {
    const [kvHeads = 0, capacity = 0, headDim = 0] = keys.shape;
    const type = SEGMENT_TYPES[keys.dtype];
    if (type === undefined || values.dtype !== keys.dtype) {
      throw new RangeError(`Cannot index cache of ${keys.dtype} keys, ${values.dtype} values: expected f32, f16 or i8`);
    }
    const desc = Int32Array.of(start, type, kvHeads, capacity, headDim, rows);
    const out = new Uint32Array(1);
    const memory = (tensor: Tensor | undefined) => tensor === undefined ? null : this.host.memory(tensor);
    this.check(
      this.#library.symbols.kvasir_segment_create(
        this.pointer,
        out,
        desc,
        memory(keys),
        memory(values),
        memory(keyScales),
        memory(valueScales),
      ),
    );
    return out[0] as number;
  }
}
