/**
 * Step memory as a stack that replays: the tensor made at position i of the last step is handed out again when the same
 * is asked for at position i, without a native call. A decode step asks for about 400 tensors, almost always the same.
 *
 * A position keeps every tensor asked of it in the current step (the layers' attention and MLP alternate there); those of
 * one type share the largest one's memory. What the current step has not asked for yet is kept for replay until the first
 * request that does not match, which then destroys all of it: the buffers of a prefill chunk are gone before those of the
 * next decode step are made, and memory is bounded by what one step uses.
 *
 * @module
 */
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { elementCount } from "../core/dtype.ts";
import { sameShape } from "./shape.ts";

interface Entry<T> {
  readonly tensor: T;
  /** Views: what they look into, and from which element. */
  readonly parent: T | undefined;
  readonly offset: number;
  /** The tensor of the same position whose memory it has; itself where it has its own. */
  readonly memory: T;
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
  readonly #memories: (T | undefined)[] = [];
  /** The step that last asked for it. */
  readonly #steps: number[] = [];
  readonly #others: Entry<T>[][] = [];
  readonly #view: (parent: T, shape: Shape, offset: number) => T;
  readonly #destroy: (tensor: T) => void;
  #cursor = 0;
  #step = 1;
  #swept = false;
  #losses = 0;

  /** `view` shows a tensor's memory in another shape; `destroy` frees a tensor, or a view, for good. */
  constructor(view: (parent: T, shape: Shape, offset: number) => T, destroy: (tensor: T) => void) {
    this.#view = view;
    this.#destroy = (tensor) => {
      this.#losses++;
      destroy(tensor);
    };
  }

  /** Position of the next tensor. */
  get cursor(): number {
    return this.#cursor;
  }

  /** How many tensors have been destroyed. */
  get losses(): number {
    return this.#losses;
  }

  /** A step that was like an earlier one up to `cursor`: all that is remembered counts as asked for. */
  repeat(cursor: number): void {
    this.#cursor = cursor;
    this.#steps.fill(this.#step);
    for (const others of this.#others) for (const entry of others) entry.step = this.#step;
  }

  /** The remembered tensor at the cursor, or a new one, made by `create` where no memory is there; moves on. */
  take(shape: Shape, dtype: DType, create: (shape: Shape, dtype: DType) => T): T {
    const found = this.#find(shape, dtype, undefined, 0);
    if (found !== undefined) return found;
    this.#sweep();
    const wanted = elementCount(shape);
    const owners = this.#entries(this.#cursor).filter((e) => e.parent === undefined && e.tensor.dtype === dtype);
    const memory = owners.find((e) => elementCount(e.memory.shape) >= wanted)?.memory;
    if (memory !== undefined) {
      const tensor = this.#view(memory, shape, 0);
      return this.#push({ tensor, parent: undefined, offset: 0, memory, step: this.#step });
    }
    return this.#enlarge(owners, () => create(shape, dtype));
  }

  /** As {@link take}, for a view of `parent` from element `offset`. */
  takeView(parent: T, shape: Shape, offset: number): T {
    const found = this.#find(shape, parent.dtype, parent, offset);
    if (found !== undefined) return found;
    this.#sweep();
    const tensor = this.#view(parent, shape, offset);
    return this.#push({ tensor, parent, offset, memory: tensor, step: this.#step });
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

  /** A new tensor at the cursor; those of its type there, which are smaller and were given back, are shown in its memory from now on. */
  #enlarge(smaller: readonly Entry<T>[], create: () => T): T {
    const at = this.#cursor;
    this.#keep(at, this.#entries(at), (e) => !smaller.some(({ tensor }) => tensor === e.tensor));
    const tensor = create();
    this.#push({ tensor, parent: undefined, offset: 0, memory: tensor, step: this.#step });
    for (const { tensor: { shape }, step } of smaller) {
      this.#others[at]?.push({
        tensor: this.#view(tensor, shape, 0),
        parent: undefined,
        offset: 0,
        memory: tensor,
        step,
      });
    }
    return tensor;
  }

  #push(entry: Entry<T>): T {
    const at = this.#cursor++;
    while (this.#tensors.length <= at) this.#append();
    if (this.#tensors[at] === undefined) this.#put(at, entry);
    else this.#others[at]?.push(entry);
    return entry.tensor;
  }

  #append(): void {
    this.#tensors.push(undefined);
    this.#parents.push(undefined);
    this.#offsets.push(0);
    this.#memories.push(undefined);
    this.#steps.push(0);
    this.#others.push([]);
  }

  #put(at: number, entry: Entry<T> | undefined): void {
    this.#tensors[at] = entry?.tensor;
    this.#parents[at] = entry?.parent;
    this.#offsets[at] = entry?.offset ?? 0;
    this.#memories[at] = entry?.memory;
    this.#steps[at] = entry?.step ?? 0;
  }

  /** All of a position. */
  #entries(at: number): Entry<T>[] {
    const [tensor, memory] = [this.#tensors[at], this.#memories[at]];
    const others = this.#others[at] ?? [];
    if (tensor === undefined || memory === undefined) return others.slice();
    const [parent, offset, step] = [this.#parents[at], this.#offsets[at] as number, this.#steps[at] as number];
    return [{ tensor, parent, offset, memory, step }, ...others];
  }

  /** Destroys the others, views before what they show. */
  #keep(at: number, entries: readonly Entry<T>[], isKept: (entry: Entry<T>) => boolean): void {
    const [first, ...others] = entries.filter(isKept);
    this.#put(at, first);
    this.#others[at] = others;
    const gone = entries.filter((e) => !isKept(e));
    for (const e of gone) if (e.memory !== e.tensor) this.#destroy(e.tensor);
    for (const e of gone) if (e.memory === e.tensor) this.#destroy(e.tensor);
  }

  #sweep(): void {
    if (this.#swept) return;
    this.#swept = true;
    for (let at = 0; at < this.#tensors.length; at++) {
      if (this.#others[at]?.length === 0) {
        const first = this.#tensors[at];
        if (first === undefined || this.#steps[at] === this.#step) continue;
        this.#put(at, undefined);
        this.#destroy(first);
        continue;
      }
      const entries = this.#entries(at);
      const used = new Set(entries.filter((e) => e.step === this.#step).map((e) => e.memory));
      this.#keep(at, entries, (e) => used.has(e.memory));
    }
  }
}
