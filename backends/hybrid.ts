/**
 * Two backends as one: weights, prompts and windows on a device, keys and values in a host's memory, which may be larger.
 *
 * What leaves the window lies on the host alone; there the index searches and retrieved rows are attended. Per layer the
 * query goes there beside the device's own window (`hybrid_prefetch.ts`), and one partial result comes back, which the device merges.
 * Prompts are attended on the device, to which earlier rows come in pieces, so that its memory does not grow with the length; new rows
 * go down beside what the device does next (`hybrid_stream.ts`). With `codes=device` the index works on the device: it reads rows where
 * they lie once, to encode them, and searches without the query leaving.
 *
 * @module
 */
import type { AttentionPart, Backend, BackendType, HostMemory, Kernels, Lifetime, TensorFiles } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Hits } from "../index/index.ts";
import type { Spans } from "../attention/policy.ts";
import { Unsupported } from "../core/errors.ts";
import { formatSpec, lookUp, parseSpec, resolveParams } from "../core/spec.ts";
import { DeviceRows, STAGE } from "./hybrid_cache.ts";
import { hybridFiles } from "./hybrid_files.ts";
import { checkRanges, deviceKernels, type Parts, partsOf } from "./hybrid_kernels.ts";
import { Prefetch } from "./hybrid_prefetch.ts";
import { RowStream } from "./hybrid_stream.ts";
import { type HybridTensor, type Side, Wrapper } from "./hybrid_memory.ts";

/** Registry entry, over the backends that may be its sides. */
export function hybrid(sides: Readonly<Record<string, BackendType>>): BackendType {
  const side = (spec: string) => {
    const parsed = parseSpec(spec);
    const type = lookUp("backend", parsed.name, sides);
    return { type, params: resolveParams(parsed, type.defaults) };
  };
  return {
    summary: "weights and windows on a device, keys and values in a host's memory: hybrid:device=X,host=Y",
    defaults: { device: "cpu", host: "cpu", codes: "host", keep: 768 },
    async prepare(report, { device, host }) {
      for (const spec of new Set([String(device), String(host)])) {
        const { type, params } = side(spec);
        await type.prepare?.(report, params);
      }
    },
    open({ device, host, codes, keep }) {
      if (codes !== "host" && codes !== "device") {
        throw new RangeError(`Cannot use "hybrid": codes is "${codes}", expected host or device`);
      }
      if (!Number.isInteger(keep) || Number(keep) < 0 || Number(keep) > 2 ** 20) {
        throw new RangeError(`Cannot use "hybrid": keep is ${keep}, expected a number of rows from 0 to ${2 ** 20}`);
      }
      const [near, far] = [side(String(device)), side(String(host))];
      const opened = near.type.open(near.params);
      try {
        return new HybridBackend(opened, far.type.open(far.params), { codes, keep: Number(keep) });
      } catch (error) {
        opened[Symbol.dispose]();
        throw error;
      }
    },
  };
}

/** See the module's head. Owns both sides. */
export class HybridBackend implements Backend {
  /** Of both sides, and where the index works. */
  readonly spec: string;
  /** Those of the device, and attention that both do. */
  readonly kernels: Kernels;
  /** Where the index works, where it can. */
  readonly host?: HostMemory;
  /** The host's, where it keeps any. */
  readonly files?: TensorFiles;
  /** The sides: what each holds is its `bytes`. */
  readonly sides: Readonly<Record<Side, Backend>>;
  /** Where an index has its codes. */
  readonly indexSide: Side;
  readonly #device: Backend;
  readonly #host: Backend;
  readonly #tensors: Wrapper;
  readonly #rows: DeviceRows;
  readonly #stream: RowStream;
  readonly #prefetch: Prefetch;
  readonly #near: Parts;
  readonly #far: Parts;

  /** Throws `Unsupported` where a side lacks attention in parts. */
  constructor(device: Backend, host: Backend, { codes, keep }: { codes: Side; keep: number }) {
    this.sides = { device, host };
    this.indexSide = codes;
    this.#device = device;
    this.#host = host;
    this.spec = formatSpec("hybrid", { device: device.spec, host: host.spec, codes, keep });
    this.#tensors = new Wrapper(this);
    this.#stream = new RowStream(device, host);
    this.#prefetch = new Prefetch(device, host);
    this.#rows = new DeviceRows(device, host, keep, () => this.#stream.settle());
    this.#near = partsOf(device);
    this.#far = partsOf(host);
    this.kernels = {
      ...deviceKernels(device.kernels, (tensor, what) => this.#toWrite(tensor, what)),
      copy: (dst, at, src, from, count) => this.#copy(dst, at, src, from, count),
      append: (segment, row, k, v) => this.#append(segment, row, k, v),
      attendCausal: (out, q, kv, sink) => {
        if (sink !== undefined) throw new Unsupported("Cannot fill prompt sink: rows are attended to in pieces");
        this.#onDevice(() => this.#attendCausal({ o: out }, q, kv));
      },
      attendCausalPart: (out, q, kv) => this.#onDevice(() => this.#attendCausal(out, q, kv)),
      attendWindow: (out, q, kv, spans) => this.#onDevice(() => this.#attendWindow(out, q, kv, spans)),
      attendTopk: (out, q, kv, hits) => this.#onDevice(() => this.#attendTopk(out, q, kv, hits)),
    };
    if (host.files !== undefined) {
      const inner = (tensor: Tensor) => {
        this.#stream.settle();
        return this.#tensors.on("host", tensor, "tensor to save");
      };
      this.files = hybridFiles(host.files, inner, (tensor) => this.#tensors.wrap("host", tensor));
    }
    const lent = codes === "device" ? device.host : host.host;
    if (host.host !== undefined && lent !== undefined) this.host = this.#lend(host.host, lent, codes);
  }

  /** Live bytes of model and sequence memory of both. */
  get bytes(): number {
    return this.#device.bytes + this.#host.bytes;
  }

  /** Caches and indexes on the host, all else on the device. */
  alloc(shape: Shape, dtype: DType, life: Lifetime): Tensor {
    const side = life === "sequence" ? "host" : "device";
    return this.#tensors.wrap(side, this.sides[side].alloc(shape, dtype, life));
  }

  /** Frees it where it lies, and what the device has of it. */
  free(tensor: Tensor): void {
    const { side, inner } = this.#tensors.own(tensor, "tensor");
    if (side === "host") {
      this.#stream.forget(inner);
      this.#rows.forget(inner);
    } else this.#prefetch.drop();
    this.sides[side].free(inner);
  }

  /** On the same side. */
  view(tensor: Tensor, shape: Shape, offset = 0): Tensor {
    const { side, inner } = this.#tensors.own(tensor, "tensor to view");
    return this.#tensors.wrap(side, this.sides[side].view(inner, shape, offset));
  }

  /** To where it lies. Rows of a cache must not be written while a kernel has appended to it. */
  write(dst: Tensor, src: ArrayBufferView<ArrayBuffer>, row = 0): void {
    const { side, inner } = this.#tensors.own(dst, "tensor to write");
    if (side === "host") {
      this.#stream.settle();
      this.#rows.forget(inner);
    } else this.#prefetch.drop();
    this.sides[side].write(inner, src, row);
  }

  /** From where it lies. */
  read(src: Tensor): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
    const { side, inner } = this.#tensors.own(src, "tensor to read");
    if (side === "host") this.#stream.settle();
    return this.sides[side].read(inner);
  }

  /** From where it lies. */
  readRows(src: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void {
    const { side, inner } = this.#tensors.own(src, "tensor to read");
    const from = this.sides[side];
    if (side === "host") this.#stream.settle();
    if (from.readRows === undefined) throw new Unsupported(`Cannot read rows: backend "${from.spec}" has no way to`);
    from.readRows(inner, row, out);
  }

  /** Of the device: what the host allocates in a step is recycled by the call that did, or by the step's end. */
  mark(): number {
    return this.#device.mark();
  }

  /** See {@link HybridBackend.mark}. */
  release(mark: number): void {
    this.#prefetch.drop();
    this.#device.release(mark);
  }

  /** Of both. */
  endStep(): void {
    this.#prefetch.drop();
    this.#stream.settle();
    this.#device.endStep();
    this.#host.endStep();
  }

  /** The host's, where caches lie. */
  keep(bytes: number): void {
    this.#host.keep?.(bytes);
  }

  /** The host first: indexes on it may use the device's threads. */
  [Symbol.dispose](): void {
    this.#host[Symbol.dispose]();
    this.#device[Symbol.dispose]();
  }

  /** Recycles what the body allocated on the device. */
  #onDevice(body: () => void): void {
    const mark = this.#device.mark();
    try {
      body();
    } finally {
      this.#device.release(mark);
    }
  }

  /** Within one side. */
  #copy(dst: Tensor, at: number, src: Tensor, from: number, count: number): void {
    const { side, inner } = this.#tensors.own(dst, "copy to");
    if (side === "host") {
      this.#stream.settle();
      this.#rows.forget(inner);
    } else this.#prefetch.drop();
    this.sides[side].kernels.copy(inner, at, this.#tensors.on(side, src, "copy from"), from, count);
  }

  #append(segment: KvSegment, row: number, k: Tensor, v: Tensor): void {
    const [keys, values] = [k, v].map((x) => this.#toWrite(x, "append rows")) as [Tensor, Tensor];
    const to = this.#inner(segment);
    // Two at most are under way.
    this.#stream.settle(1);
    this.#stream.append(to, row, keys, values);
    this.#rows.append(to, row, keys, values);
  }

  /** Pieces of the past, one after the other, then the new rows among themselves. */
  #attendCausal(out: { readonly o: Tensor; readonly lse?: Tensor }, q: Tensor, kv: KvLayer): void {
    const queries = this.#tensors.on("device", q, "attendCausal q");
    const o = this.#toWrite(out.o, "attendCausal out");
    const lse = out.lse === undefined ? undefined : this.#tensors.on("device", out.lse, "attendCausal lse");
    const inner = this.#innerLayer(kv);
    const n = q.shape[0] as number;
    const begin = kv.segments[0]?.start ?? 0;
    const end = begin + kv.length;
    const { slidingWindow } = kv.shape;
    const first = slidingWindow === undefined ? end - n : Math.max(begin, end - n - slidingWindow + 1);
    const from = this.#rows.boundary(inner, first);
    const last = this.#rows.layer(inner, from, end);
    if (slidingWindow !== undefined || from === begin) {
      if (lse === undefined) this.#device.kernels.attendCausal(o, queries, last);
      else this.#near.attendCausalPart({ o, lse }, queries, last);
    } else {
      const whole = { o, lse: lse ?? this.#lse(queries) };
      this.#near.attendCausalPart(whole, queries, last);
      this.#addPieces(whole, queries, inner, [[begin, from]]);
    }
    this.#rows.trim(inner);
    // The device has this layer to do: what the one before it appended has come, and is taken up meanwhile.
    this.#stream.settle(1);
  }

  #attendWindow(out: AttentionPart, q: Tensor, kv: KvLayer, spans: Spans): void {
    const queries = this.#tensors.on("device", q, "attendWindow q");
    const part = this.#onDevicePart(out, "attendWindow");
    const inner = this.#innerLayer(kv);
    const ranges: [number, number][] = [];
    for (let i = 0; i < spans.length; i += 2) ranges.push([spans[i] as number, spans[i + 1] as number]);
    checkRanges(ranges, kv);
    this.#prefetch.drop();
    // A decode step's query goes down beside the window that is attended to, and what a search on the host wants of that follows it.
    const goesDown = q.shape[0] === 1;
    if (goesDown) this.#prefetch.begin(queries);
    try {
      if (ranges.every(([from, to]) => from === to)) {
        const begin = kv.segments[0]?.start ?? 0;
        const some = this.#rows.layer(inner, begin, Math.min(begin + kv.length, this.#rows.boundary(inner, begin) + 1));
        this.#near.attendWindow(part, queries, some, new Int32Array());
      } else this.#addPieces(part, queries, inner, ranges, true);
      if (goesDown && this.indexSide === "host") this.#prefetch.begin(part.lse);
    } catch (error) {
      this.#prefetch.drop();
      throw error;
    }
    this.#rows.trim(inner);
  }

  /** Merges attention of all queries to the ranges into `whole`, a bounded number of rows at a time. */
  #addPieces(
    whole: AttentionPart,
    q: Tensor,
    kv: KvLayer,
    ranges: readonly (readonly [number, number])[],
    isEmpty = false,
  ): void {
    let first = isEmpty;
    for (const [from, to] of ranges) {
      for (let at = from; at < to;) {
        const start = this.#rows.boundary(kv, at);
        const end = Math.min(to, start + STAGE);
        const mark = this.#device.mark();
        const rows = this.#rows.layer(kv, start, end);
        if (first) this.#near.attendWindow(whole, q, rows, Int32Array.of(at, end));
        else {
          const part = { o: this.#device.alloc(q.shape, "f32", "step"), lse: this.#lse(q) };
          this.#near.attendWindow(part, q, rows, Int32Array.of(at, end));
          this.#near.mergeParts(whole, [whole, part]);
        }
        this.#device.release(mark);
        first = false;
        at = end;
      }
    }
  }

  /** On the host; hits may lie on either side. Nobody waits for the result to have come up: the device's next kernel finds it there. */
  #attendTopk(out: AttentionPart, q: Tensor, kv: KvLayer, hits: Hits): void {
    const queries = this.#tensors.on("device", q, "attendTopk q");
    const to = this.#onDevicePart(out, "attendTopk");
    this.#stream.settle();
    const mark = this.#host.mark();
    try {
      const part = {
        o: this.#host.alloc(q.shape, "f32", "step"),
        lse: this.#host.alloc(q.shape.slice(0, 2), "f32", "step"),
      };
      const [query, found] = this.#onHost(queries, hits);
      this.#far.attendTopk(part, query, this.#innerLayer(kv), found);
      this.#device.write(to.o, this.#host.read(part.o));
      this.#device.write(to.lse, this.#host.read(part.lse));
    } finally {
      this.#prefetch.drop();
      this.#host.release(mark);
    }
  }

  /** Queries and hits as the host sees them. */
  #onHost(queries: Tensor, { tokens, counts, bias }: Hits): readonly [Tensor, Hits] {
    const named = Object.entries({ tokens, counts, ...(bias === undefined ? {} : { bias }) });
    const own = named.map(([name, tensor]) => [name, this.#tensors.own(tensor, `attendTopk ${name}`)] as const);
    const far = own.flatMap(([, { side, inner }]) => side === "device" ? [inner] : []);
    const [query, ...copies] = this.#prefetch.bring(queries, ...far);
    const there = own.map(([name, { side, inner }]) => [name, side === "host" ? inner : copies.shift() as Tensor]);
    return [query, Object.fromEntries(there) as Hits];
  }

  /** A tensor of the device that a kernel may write: what was begun to go down may be of such. */
  #toWrite(tensor: Tensor, what: string): Tensor {
    this.#prefetch.drop();
    return this.#tensors.on("device", tensor, what);
  }

  #lse(q: Tensor): Tensor {
    return this.#device.alloc(q.shape.slice(0, 2), "f32", "step");
  }

  #onDevicePart({ o, lse }: AttentionPart, what: string): AttentionPart {
    return { o: this.#tensors.on("device", o, `${what} o`), lse: this.#tensors.on("device", lse, `${what} lse`) };
  }

  /** What the host sees of a segment. */
  #inner(segment: KvSegment): KvSegment {
    const { start, count, sealed, keys, values, keyScales, valueScales } = segment;
    const on = (tensor: Tensor) => this.#tensors.on("host", tensor, "cache rows");
    const rows = { start, count, sealed, keys: on(keys), values: on(values) };
    if (keyScales === undefined || valueScales === undefined) return rows;
    return { ...rows, keyScales: on(keyScales), valueScales: on(valueScales) };
  }

  #innerLayer(kv: KvLayer): KvLayer {
    return { shape: kv.shape, length: kv.length, segments: kv.segments.map((s) => this.#inner(s)) };
  }

  /** Doors for an index: rows on the host, threads and queries where it works. */
  #lend(host: HostMemory, works: HostMemory, codes: Side): HostMemory {
    const onHost = (tensor: Tensor, what: string) => this.#tensors.on("host", tensor, what);
    return {
      ...(works.indexLibrary === undefined ? {} : { indexLibrary: works.indexLibrary }),
      executor: works.executor,
      attach: (library) => host.attach(library),
      ready: () => this.#stream.settle(),
      isApart: codes === "device",
      address: (tensor) => host.address(onHost(tensor, "tensor to lend")),
      memory: (tensor) => host.memory(onHost(tensor, "tensor to share")),
      input: (tensor) => {
        const { side, inner }: HybridTensor = this.#tensors.own(tensor, "tensor to lend");
        if (side === "host") return host.address(inner);
        return codes === "device" ? works.address(inner) : host.address(this.#prefetch.bring(inner)[0]);
      },
    };
  }
}
