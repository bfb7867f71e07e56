/**
 * The smallest driver of a model: one sequence, one growing cache, no engine. For tests of what lies below the engine.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Model, Step } from "../model/model.ts";
import { Ops } from "../backends/ops.ts";

/** One sequence of `model`, in a cache with room for `capacity` tokens. */
export class Forward implements Disposable {
  readonly #ops: Ops;
  readonly #layers: (KvLayer & { readonly segments: readonly KvSegment[] })[];
  readonly #owned: Tensor[] = [];
  #length = 0;

  constructor(
    readonly model: Model,
    readonly backend: Backend,
    capacity: number,
    kvType: "f32" | "f16" | "i8" = "f32",
  ) {
    this.#ops = new Ops(backend);
    const alloc = (shape: readonly number[], dtype: "f32" | "f16" | "i8") => {
      const tensor = backend.alloc(shape, dtype, "sequence");
      this.#owned.push(tensor);
      return tensor;
    };
    this.#layers = model.config.layers.map((shape) => {
      const rows = [shape.kvHeads, capacity, shape.headDim];
      const scales = () => kvType === "i8" ? alloc([shape.kvHeads, capacity], "f32") : undefined;
      const [keyScales, valueScales] = [scales(), scales()];
      const segment: KvSegment = {
        start: 0,
        count: 0,
        sealed: false,
        keys: alloc(rows, kvType),
        values: alloc(rows, kvType),
        ...(keyScales && valueScales ? { keyScales, valueScales } : {}),
      };
      return { shape, length: 0, segments: [segment] };
    });
  }

  /** Tokens so far. */
  get length(): number {
    return this.#length;
  }

  /** Feeds `tokens` in one step; logits f32 of the last `rows` of them, one array a row. */
  run(tokens: ArrayLike<number>, rows = 1): Float32Array[] {
    return this.step(tokens, rows, (logits) => {
      const flat = this.backend.read(logits) as Float32Array<ArrayBuffer>;
      const vocab = this.model.config.vocab;
      return Array.from({ length: rows }, (_, i) => flat.slice(i * vocab, (i + 1) * vocab));
    });
  }

  /** Feeds `tokens`; `use` gets the logits [rows, vocab] while they live on the backend. */
  step<T>(tokens: ArrayLike<number>, rows: number, use: (logits: Tensor) => T): T {
    const n = tokens.length;
    const { backend } = this;
    const ops = this.#ops;
    const upload = (values: Int32Array<ArrayBuffer>) => {
      const tensor = backend.alloc([n], "i32", "step");
      backend.write(tensor, values);
      return tensor;
    };
    const step: Step = {
      ops,
      tokens: upload(Int32Array.from(tokens)),
      positions: upload(Int32Array.from({ length: n }, (_, i) => this.#length + i)),
      attend: (layer, q, k, v) => {
        const kv = this.#layers[layer] as KvLayer;
        const segment = kv.segments[0] as KvSegment;
        backend.kernels.append(segment, segment.count, k, v);
        segment.count += n;
        kv.length += n;
        const out = backend.alloc(q.shape, "f32", "step");
        backend.kernels.attendCausal(out, q, kv);
        return out;
      },
      lastRows: (x) => ops.rows(x, n - rows, rows),
    };
    try {
      return use(this.model.forward(step));
    } finally {
      this.#length += n;
      backend.endStep();
    }
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#owned) this.backend.free(tensor);
  }
}
