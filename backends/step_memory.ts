/**
 * Step memory as a stack that replays: the tensor made at position i of the last step is handed out again when the same
 * is asked for at position i, without a native call. A decode step asks for about 400 tensors, almost always the same.
 *
 * A position keeps every tensor asked of it in the current step (the layers' attention and MLP alternate there). What
 * the current step has not asked for yet is kept for replay until the first request that does not match, which then
 * destroys all of it: the buffers of a prefill chunk are gone before those of the next decode step are made, and memory
 * is bounded by what one step uses.
 *
 * @module
 */
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { sameShape } from "./shape.ts";

interface Entry<T> {
  readonly tensor: T;
  /** Views: what they look into, and from which element. */
  readonly parent: T | undefined;
  readonly offset: number;
  step: number;
}

/** The stack of one backend; `T` is its tensor class. */
export class StepMemory<T extends Tensor> {
  readonly #slots: Entry<T>[][] = [];
  readonly #destroy: (tensor: T) => void;
  #cursor = 0;
  #step = 1;
  #swept = false;

  /** `destroy` frees a tensor for good. */
  constructor(destroy: (tensor: T) => void) {
    this.#destroy = destroy;
  }

  /** Position of the next tensor. */
  get cursor(): number {
    return this.#cursor;
  }

  /** The remembered tensor at the cursor, or a new one by `create`; moves on. */
  take(shape: Shape, dtype: DType, create: (shape: Shape, dtype: DType) => T): T {
    const slot = this.#slots[this.#cursor];
    if (slot !== undefined) {
      for (let i = 0; i < slot.length; i++) {
        const e = slot[i] as Entry<T>;
        if (e.parent === undefined && e.tensor.dtype === dtype && sameShape(e.tensor.shape, shape)) {
          e.step = this.#step;
          this.#cursor++;
          return e.tensor;
        }
      }
    }
    this.#sweep();
    return this.#push(create(shape, dtype), undefined, 0);
  }

  /** As {@link take}, for a view of `parent` from element `offset`. */
  takeView(parent: T, shape: Shape, offset: number, create: (parent: T, shape: Shape, offset: number) => T): T {
    const slot = this.#slots[this.#cursor];
    if (slot !== undefined) {
      for (let i = 0; i < slot.length; i++) {
        const e = slot[i] as Entry<T>;
        if (e.parent === parent && e.offset === offset && sameShape(e.tensor.shape, shape)) {
          e.step = this.#step;
          this.#cursor++;
          return e.tensor;
        }
      }
    }
    this.#sweep();
    return this.#push(create(parent, shape, offset), parent, offset);
  }

  /** Recycles everything taken since the cursor stood at `mark`. */
  release(mark: number): void {
    if (!(mark >= 0 && mark <= this.#cursor)) {
      throw new RangeError(`Cannot release step memory: mark ${mark} is not within 0 to ${this.#cursor}`);
    }
    this.#cursor = mark;
  }

  /** Recycles everything, and begins the next step. */
  endStep(): void {
    this.#cursor = 0;
    this.#step++;
    this.#swept = false;
  }

  /** Destroys everything. */
  clear(): void {
    this.endStep();
    this.#sweep();
  }

  #push(tensor: T, parent: T | undefined, offset: number): T {
    const entry = { tensor, parent, offset, step: this.#step };
    const slot = this.#slots[this.#cursor];
    if (slot === undefined) this.#slots[this.#cursor] = [entry];
    else slot.push(entry);
    this.#cursor++;
    return tensor;
  }

  #sweep(): void {
    if (this.#swept) return;
    this.#swept = true;
    for (const slot of this.#slots) {
      let kept = 0;
      for (const e of slot) {
        if (e.step === this.#step) slot[kept++] = e;
        else this.#destroy(e.tensor);
      }
      slot.length = kept;
    }
  }
}
