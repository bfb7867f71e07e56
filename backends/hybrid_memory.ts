/**
 * Memory of two backends under one: every tensor has a side, and knows what it is there.
 *
 * @module
 */
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import type { Backend } from "./backend.ts";

/** Where a tensor lies. */
export type Side = "device" | "host";

/** A tensor of one of the two. */
export class HybridTensor implements Tensor {
  /** Element format. */
  readonly dtype: DType;
  /** Dimensions. */
  readonly shape: Shape;

  /** `inner` is the side's own. */
  constructor(readonly backend: Backend, readonly side: Side, readonly inner: Tensor) {
    this.dtype = inner.dtype;
    this.shape = inner.shape;
  }
}

/** Wraps what the sides allocate, always the same way: step memory replays its tensors. */
export class Wrapper {
  readonly #known = new WeakMap<Tensor, HybridTensor>();
  readonly #backend: Backend;

  /** `backend` is whom the tensors belong to. */
  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** The one that stands for `inner`. */
  wrap(side: Side, inner: Tensor): HybridTensor {
    const known = this.#known.get(inner);
    if (known !== undefined) return known;
    const made = new HybridTensor(this.#backend, side, inner);
    this.#known.set(inner, made);
    return made;
  }

  /** Throws `RangeError` for other backends' tensors. */
  own(tensor: Tensor, what: string): HybridTensor {
    if (tensor.backend === this.#backend && tensor instanceof HybridTensor) return tensor;
    throw new RangeError(`Cannot use ${what}: it belongs to another backend, "${tensor.backend.spec}"`);
  }

  /** What a tensor is on the side where it must lie; throws `RangeError` when it lies on the other. */
  on(side: Side, tensor: Tensor, what: string): Tensor {
    const own = this.own(tensor, what);
    if (own.side === side) return own.inner;
    throw new RangeError(`Cannot use ${what}: it lies on the ${own.side}, expected it on the ${side}`);
  }
}
