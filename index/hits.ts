/**
 * Hits in a backend's memory: made once, filled by every search, grown when a search needs more.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { AttentionPart, Backend } from "../backends/backend.ts";
import type { SearchHits, SearchReport } from "./index.ts";

/** The tensors of one number of rows. */
interface Room {
  readonly tokens: Tensor;
  readonly counts: Tensor;
  readonly bias: Tensor;
  readonly errors: Tensor;
}

/** Room is made in powers of two from here on: a search under an error goal keeps a few hundred. */
const LEAST_CAPACITY = 256;

/**
 * One buffer serves all layers and sequences of a step's thread, one search after the other: hits by KV head (a goal of
 * `error`) and by query head (`topk`) have tensors of their own, so that going from one to the other costs nothing.
 */
export class HitsBuffer implements SearchHits, Disposable {
  /** See {@link SearchHits}. */
  readonly report: SearchReport = {
    certificate: "none",
    keysScored: 0,
    keysKept: 0,
    bytesRead: 0,
    expectedRecall: NaN,
  };
  readonly #backend: Backend;
  readonly #rooms = new Map<number, Room>();
  #room: Room | undefined;
  #restRoom: AttentionPart | undefined;
  #hasRest = false;

  /** Allocates nothing yet. */
  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** i32 [rows, capacity] */
  get tokens(): Tensor {
    return this.#reserved.tokens;
  }

  /** i32 [rows] */
  get counts(): Tensor {
    return this.#reserved.counts;
  }

  /** f32 [rows, capacity] */
  get bias(): Tensor {
    return this.#reserved.bias;
  }

  /** f32 [rows] */
  get estimatedError(): Tensor {
    return this.#reserved.errors;
  }

  get #reserved(): Room {
    if (this.#room === undefined) throw new Error("Cannot use hits: no search has filled them yet");
    return this.#room;
  }

  /** See {@link SearchHits}. */
  get rest(): AttentionPart | undefined {
    return this.#hasRest ? this.#restRoom : undefined;
  }

  /** See {@link SearchHits}. All layers that search have the same heads. */
  reserveRest(heads: number, headDim: number): AttentionPart {
    const shape = this.#restRoom?.o.shape;
    if (shape === undefined || shape[1] !== heads || shape[2] !== headDim) {
      this.#freeRest();
      const o = this.#backend.alloc([1, heads, headDim], "f32", "sequence");
      this.#restRoom = { o, lse: this.#backend.alloc([1, heads], "f32", "sequence") };
    }
    this.#hasRest = true;
    return this.#restRoom as AttentionPart;
  }

  /** See {@link SearchHits.reserve}. */
  reserve(rows: number, capacity: number): void {
    this.#hasRest = false;
    const room = this.#rooms.get(rows);
    if (room !== undefined && capacity <= (room.tokens.shape[1] as number)) {
      this.#room = room;
      return;
    }
    let size = LEAST_CAPACITY;
    while (size < capacity) size *= 2;
    const made = this.#make(rows, size);
    if (room !== undefined) this.#free(room);
    this.#rooms.set(rows, made);
    this.#room = made;
  }

  /** Frees the tensors; again is nothing, and a later `reserve` begins anew. */
  [Symbol.dispose](): void {
    for (const room of this.#rooms.values()) this.#free(room);
    this.#rooms.clear();
    this.#room = undefined;
    this.#freeRest();
  }

  #freeRest(): void {
    this.#hasRest = false;
    if (this.#restRoom === undefined) return;
    this.#backend.free(this.#restRoom.o);
    this.#backend.free(this.#restRoom.lse);
    this.#restRoom = undefined;
  }

  #make(rows: number, capacity: number): Room {
    const made: Tensor[] = [];
    const make = (shape: readonly number[], dtype: "i32" | "f32") => {
      const tensor = this.#backend.alloc(shape, dtype, "sequence");
      made.push(tensor);
      return tensor;
    };
    try {
      return {
        tokens: make([rows, capacity], "i32"),
        counts: make([rows], "i32"),
        bias: make([rows, capacity], "f32"),
        errors: make([rows], "f32"),
      };
    } catch (error) {
      for (const tensor of made) this.#backend.free(tensor);
      throw error;
    }
  }

  #free({ tokens, counts, bias, errors }: Room): void {
    for (const tensor of [tokens, counts, bias, errors]) this.#backend.free(tensor);
  }
}
