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

/**
 * The stack of one backend; `T` is its tensor class.
 *
 * Each position's oldest tensor lies in parallel arrays, the few others in lists: native work between two requests throws
 * the caches over, and every object looked at costs a miss.
 */
export class StepMemory<T extends Tensor> {
  readonly #tensors: (T | undefined)[] = [];
  readonly #parents: (T | undefined)[] = [];
  readonly #offsets: number[] = [];
  /** The step that last asked for it. */
  readonly #steps: number[] = [];
  readonly #others: Entry<T>[][] = [];
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
    return this.#find(shape, dtype, undefined, 0) ?? this.#push(create, shape, dtype, undefined, 0);
  }

  /** As {@link take}, for a view of `parent` from element `offset`. */
  takeView(parent: T, shape: Shape, offset: number, create: (parent: T, shape: Shape, offset: number) => T): T {
    return this.#find(shape, parent.dtype, parent, offset) ??
      this.#push((s) => create(parent, s, offset), shape, parent.dtype, parent, offset);
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

  #find(shape: Shape, dtype: DType, parent: T | undefined, offset: number): T | undefined {
    const at = this.#cursor;
    const first = this.#tensors[at];
    if (
      first !== undefined && this.#parents[at] === parent && this.#offsets[at] === offset && first.dtype === dtype &&
      sameShape(first.shape, shape)
    ) {
      this.#steps[at] = this.#step;
      this.#cursor++;
      return first;
    }
    for (const e of this.#others[at] ?? []) {
      if (e.parent === parent && e.offset === offset && e.tensor.dtype === dtype && sameShape(e.tensor.shape, shape)) {
        e.step = this.#step;
        this.#cursor++;
        return e.tensor;
      }
    }
    return undefined;
  }

  #push(
    create: (shape: Shape, dtype: DType) => T,
    shape: Shape,
    dtype: DType,
    parent: T | undefined,
    offset: number,
  ): T {
    this.#sweep();
    const tensor = create(shape, dtype);
    const at = this.#cursor;
    while (this.#tensors.length <= at) this.#append();
    if (this.#tensors[at] === undefined) {
      this.#tensors[at] = tensor;
      this.#parents[at] = parent;
      this.#offsets[at] = offset;
      this.#steps[at] = this.#step;
    } else this.#others[at]?.push({ tensor, parent, offset, step: this.#step });
    this.#cursor++;
    return tensor;
  }

  #append(): void {
    this.#tensors.push(undefined);
    this.#parents.push(undefined);
    this.#offsets.push(0);
    this.#steps.push(0);
    this.#others.push([]);
  }

  #sweep(): void {
    if (this.#swept) return;
    this.#swept = true;
    for (let at = 0; at < this.#tensors.length; at++) {
      const first = this.#tensors[at];
      if (first !== undefined && this.#steps[at] !== this.#step) {
        this.#destroy(first);
        this.#tensors[at] = undefined;
        this.#parents[at] = undefined;
      }
      const others = this.#others[at] as Entry<T>[];
      let kept = 0;
      for (const e of others) {
        if (e.step === this.#step) others[kept++] = e;
        else this.#destroy(e.tensor);
      }
      others.length = kept;
    }
  }
}
