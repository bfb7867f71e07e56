/**
 * What the host wants of a device in a decode step: queries, log-sum-exps, hits. What the last layer was asked for is on its way in the next
 * one before anybody asks, beside what the device does meanwhile.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Backend, Fetched } from "./backend.ts";

/** What a tensor held when it was begun; `data` once it was taken. */
interface Begun {
  readonly tensor: Tensor;
  readonly fetched: Fetched;
  data?: ReturnType<Backend["read"]>;
}

/** See the module's head; tensors are the sides' own. */
export class Prefetch {
  readonly #device: Pick<Backend, "read" | "fetch">;
  readonly #host: Backend;
  readonly #begun: Begun[] = [];
  /** Whether what was begun last was asked for, or what was not begun. */
  #isAsked = false;

  /** From the one to the other. */
  constructor(device: Pick<Backend, "read" | "fetch">, host: Backend) {
    this.#device = device;
    this.#host = host;
  }

  /** Begins to bring what `tensor` holds now, where such things are asked for. It is what {@link bring} gives until {@link drop}. */
  begin(tensor: Tensor): void {
    if (!this.#isAsked) return;
    const fetched = this.#device.fetch?.(tensor);
    if (fetched !== undefined) this.#begun.push({ tensor, fetched });
  }

  /** Copies in the host's step memory of f32 or i32 tensors on the device; waits for them, together. */
  bring<T extends readonly Tensor[]>(...tensors: T): { readonly [I in keyof T]: Tensor } {
    this.#isAsked = true;
    using late = new DisposableStack();
    const find = (tensor: Tensor) => this.#begun.find((one) => one.tensor === tensor);
    const isOne = tensors.filter((tensor) => find(tensor) === undefined).length === 1;
    const begin = (tensor: Tensor) => {
      const begun = find(tensor);
      if (begun !== undefined) return () => begun.data ??= begun.fetched.take();
      const fetched = isOne ? undefined : this.#device.fetch?.(tensor);
      if (fetched === undefined) return () => this.#device.read(tensor);
      late.use(fetched);
      return () => fetched.take();
    };
    const copies = tensors.map(begin).map((take, i) => {
      const { shape, dtype } = tensors[i] as Tensor;
      const copy = this.#host.alloc(shape, dtype, "step");
      this.#host.write(copy, take());
      return copy;
    });
    return copies as { readonly [I in keyof T]: Tensor };
  }

  /** Memory of the device may be written, or end: what was begun is not what it holds any more. */
  drop(): void {
    if (this.#begun.length === 0) return;
    for (const { fetched, data } of this.#begun.splice(0)) {
      if (data === undefined) this.#isAsked = false;
      fetched[Symbol.dispose]();
    }
  }
}
