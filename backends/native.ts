/**
 * Any library that implements `kvasir_backend.h`, as a backend. Calls cost nanoseconds: argument buffers are made once,
 * and step memory replays (`step_memory.ts`).
 *
 * @module
 */
import type { Backend, Fetched, HostMemory, Kernels, Lifetime, Recorded, TensorFiles } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { elementCount, isBlockType } from "../core/dtype.ts";
import { type Context, cString, errorOf, fromCString, lastError, type Library, loadLibrary } from "./ffi.ts";
import { deviceFiles } from "./device_files.ts";
import { nativeFiles } from "./native_files.ts";
import { nativeKernels } from "./native_kernels.ts";
import { Recorder } from "./native_record.ts";
import { checkShape, MAX_RANK } from "./shape.ts";
import { StepMemory } from "./step_memory.ts";
import { Unsupported } from "../core/errors.ts";

/** Numbers of the header. */
const DTYPE_CODES: Readonly<Record<DType, number>> = {
  f32: 0,
  f16: 1,
  bf16: 2,
  i32: 3,
  i8: 4,
  q4_0: 5,
  q4_1: 6,
  q5_0: 7,
  q5_1: 8,
  q8_0: 9,
  q3_k: 10,
  q4_k: 11,
  q5_k: 12,
  q6_k: 13,
  iq4_nl: 14,
};
const LIFETIME_CODES: Readonly<Record<Lifetime, number>> = { model: 0, sequence: 1, step: 2 };

/** A tensor inside a native context. */
export class NativeTensor implements Tensor {
  /** 0 once destroyed. */
  id: number;

  /** `lasting` is false for step memory. */
  constructor(
    readonly backend: Backend,
    readonly dtype: DType,
    readonly shape: Shape,
    readonly lasting: boolean,
    id: number,
  ) {
    this.id = id;
  }
}

/** How a native backend is opened. */
export interface NativeOptions {
  /** Name in the registry, first part of the canonical spec. */
  readonly name: string;
  /** Path of the library. */
  readonly library: string;
  /** `key=value,…` as the library's `kvasir_context_create` reads them. */
  readonly options: string;
  /** Where tensors lie: over a device's memory the library has indexes itself. Default `host`. */
  readonly memory?: "host" | "device";
  /** Opens a backend of the host that keeps a device's files; without, there are none. */
  readonly openHost?: () => Backend;
}

/** Memory and kernels of one native context. */
export class NativeBackend implements Backend {
  /** The registry's name and the options in force. */
  readonly spec: string;
  /** Each checks its tensors and turns a status into an error; while a step is recorded, those that write down. */
  kernels: Kernels;
  readonly #library: Library;
  readonly #step: StepMemory<NativeTensor>;
  #context: Context | undefined;
  readonly #id = new Uint32Array(1);
  readonly #dims = new Int32Array(MAX_RANK);
  readonly #live = new Float64Array(3);
  /** Doors to the library's memory. */
  readonly host: HostMemory;
  /** Contexts are saved and mapped by the library, or the host's. */
  declare readonly files?: TensorFiles;
  /** Of a device's library. */
  declare readonly fetch?: (src: Tensor) => Fetched;
  /** Of a library that runs many kernels in one call. */
  declare readonly record?: <T>(run: () => T) => Recorded<T>;
  readonly #attached: Disposable[] = [];
  #recorder: Recorder | undefined;
  #recordings = 0;
  readonly #onUnload = () => this[Symbol.dispose]();

  /** Loads the library and opens a context; throws `Unsupported`, or `RangeError` for options it refuses. */
  constructor({ name, library, options, memory = "host", openHost }: NativeOptions) {
    this.#library = loadLibrary(library);
    try {
      const context = this.#library.symbols.kvasir_context_create(cString(options));
      if (context === null) throw new Unsupported(lastError(this.#library));
      this.#context = context;
      const described = new Uint8Array(1024);
      this.#check(this.#library.symbols.kvasir_context_describe(context, described, described.length));
      const text = fromCString(described);
      this.spec = text === "" ? name : `${name}:${text}`;
    } catch (error) {
      if (this.#context !== undefined) this.#library.symbols.kvasir_context_destroy(this.#context);
      this.#library.close();
      throw error;
    }
    this.#step = new StepMemory(this.#createView, (t) => this.#destroy(t));
    this.kernels = nativeKernels(this.#library, () => this.#open(), (t, what) => this.#own(t, what));
    const doors = this.#hostMemory();
    this.host = memory === "host" ? doors : { ...doors, indexLibrary: library };
    if (memory === "host") {
      this.files = nativeFiles(this.#library, {
        open: () => this.#open(),
        id: (t, what) => this.#own(t, what),
        adopt: (dtype, shape, id) => new NativeTensor(this, dtype, Object.freeze([...shape]), true, id),
        code: (dtype) => DTYPE_CODES[dtype],
      });
    } else if (openHost !== undefined) this.files = deviceFiles(this, openHost);
    if (this.#library.symbols.kvasir_tensor_fetch !== null) this.fetch = (src) => this.#fetch(src);
    if (this.#library.symbols.kvasir_commands_run !== null) this.record = (run) => this.#record(run);
    // The library's threads must be joined before the process ends; a worker that is terminated skips this.
    globalThis.addEventListener("unload", this.#onUnload);
  }

  /** Live bytes of model and sequence memory, as the library counts them (weights repacked). */
  get bytes(): number {
    if (this.#context === undefined) return 0;
    this.#check(this.#library.symbols.kvasir_context_bytes(this.#context, this.#live));
    return (this.#live[0] as number) + (this.#live[1] as number);
  }

  /** Live bytes of step memory. */
  get stepBytes(): number {
    if (this.#context === undefined) return 0;
    this.#check(this.#library.symbols.kvasir_context_bytes(this.#context, this.#live));
    return this.#live[2] as number;
  }

  /** Read bandwidth with all threads over that much memory, in GB/s, measured now. */
  bandwidth(megabytes: number): number {
    const out = new Float64Array(1);
    this.#check(this.#library.symbols.kvasir_context_bandwidth(this.#open(), out, megabytes));
    return out[0] as number;
  }

  /** Model and sequence memory is fresh; step memory is what the last step had there, where it fits. */
  alloc(shape: Shape, dtype: DType, life: Lifetime): Tensor {
    if (life === "step") {
      this.#alive();
      return this.#step.take(shape, dtype, this.#createStep);
    }
    return this.#create(shape, dtype, life);
  }

  readonly #createStep = (shape: Shape, dtype: DType): NativeTensor => this.#create(shape, dtype, "step");

  #create(shape: Shape, dtype: DType, life: Lifetime): NativeTensor {
    checkShape("allocate tensor", shape, dtype);
    const context = this.#alive();
    this.#dims.set(shape);
    this.#check(
      this.#library.symbols.kvasir_tensor_create(
        context,
        this.#id,
        DTYPE_CODES[dtype],
        shape.length,
        this.#dims,
        LIFETIME_CODES[life],
      ),
    );
    return new NativeTensor(this, dtype, Object.freeze([...shape]), life !== "step", this.#id[0] as number);
  }

  /** Frees model or sequence memory; again is nothing. */
  free(tensor: Tensor): void {
    if (tensor.backend !== this || !(tensor instanceof NativeTensor)) throw foreign(tensor, "tensor");
    if (!tensor.lasting) throw new RangeError("Cannot free tensor: it is step memory, which endStep recycles");
    if (tensor.id !== 0 && this.#context !== undefined) this.#destroy(tensor);
  }

  /** The same memory under another shape. */
  view(tensor: Tensor, shape: Shape, offset = 0): Tensor {
    this.#alive();
    if (this.#own(tensor, "tensor to view") === 0) throw new RangeError("Cannot view tensor: its memory was freed");
    return this.#step.takeView(tensor as NativeTensor, shape, offset);
  }

  readonly #createView = (parent: NativeTensor, shape: Shape, offset: number): NativeTensor => {
    if (isBlockType(parent.dtype)) {
      throw new RangeError(`Cannot view tensor: ${parent.dtype} holds blocks, only plain types can`);
    }
    checkShape("view tensor", shape, parent.dtype);
    this.#dims.set(shape);
    this.#check(
      this.#library.symbols.kvasir_tensor_view(
        this.#alive(),
        this.#id,
        parent.id,
        shape.length,
        this.#dims,
        offset,
      ),
    );
    return new NativeTensor(this, parent.dtype, Object.freeze([...shape]), false, this.#id[0] as number);
  };

  /** Copies whole rows in; weights are repacked by all threads. */
  write(dst: Tensor, src: ArrayBufferView<ArrayBuffer>, row = 0): void {
    const id = this.#own(dst, "tensor to write");
    if (!Number.isInteger(row) || row < 0 || row > 0x7fffffff) {
      throw new RangeError(`Cannot write tensor: row ${row} is no row`);
    }
    const bytes = new Uint8Array(src.buffer, src.byteOffset, src.byteLength);
    this.#check(this.#library.symbols.kvasir_tensor_write(this.#open(), id, bytes, bytes.length, row));
  }

  /** Copies out, widened; waits for the device. */
  read(src: Tensor): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
    const id = this.#own(src, "tensor to read");
    if (isBlockType(src.dtype)) {
      throw new RangeError(`Cannot read tensor: ${src.dtype} holds blocks, only plain types can be read`);
    }
    const count = elementCount(src.shape);
    const out = src.dtype === "i32" || src.dtype === "i8" ? new Int32Array(count) : new Float32Array(count);
    this.#check(this.#library.symbols.kvasir_tensor_read(this.#open(), out, id, count));
    return out;
  }

  #fetch(src: Tensor): Fetched {
    const symbols = this.#library.symbols;
    const begin = symbols.kvasir_tensor_fetch as NonNullable<typeof symbols.kvasir_tensor_fetch>;
    const end = symbols.kvasir_tensor_fetched as NonNullable<typeof symbols.kvasir_tensor_fetched>;
    const number = new Int32Array(1);
    const { shape, dtype } = src;
    this.#check(begin(this.#open(), number, this.#own(src, "tensor to fetch")));
    let isUnderWay = true;
    return {
      take: () => {
        const out = dtype === "i32" ? new Int32Array(elementCount(shape)) : new Float32Array(elementCount(shape));
        const context = this.#open();
        isUnderWay = false;
        this.#check(end(context, out, number[0] as number, out.length));
        return out;
      },
      [Symbol.dispose]: () => {
        if (isUnderWay && this.#context !== undefined) this.#check(end(this.#context, null, number[0] as number, 0));
        isUnderWay = false;
      },
    };
  }

  #record<T>(run: () => T): Recorded<T> {
    const recorder = this.#recorder ??= new Recorder({
      direct: this.kernels,
      id: (tensor, what) => this.#own(tensor, what),
      execute: (commands, size) => this.#execute(commands, size),
    });
    if (recorder.isRecording) throw new Error("Cannot record step: another is being recorded");
    const direct = this.kernels;
    const number = ++this.#recordings;
    recorder.begin();
    this.kernels = recorder.kernels;
    let value: T;
    try {
      value = run();
    } catch (error) {
      recorder.drop();
      throw error;
    } finally {
      this.kernels = direct;
    }
    if (!recorder.end()) return { value, again: undefined };
    const { cursor, losses } = this.#step;
    const again = (tokens: number, write: () => void) => {
      if (number !== this.#recordings || losses !== this.#step.losses || this.#step.cursor !== 0) return false;
      this.#step.repeat(cursor);
      write();
      recorder.again(tokens);
      return true;
    };
    return { value, again };
  }

  #execute(commands: Int32Array<ArrayBuffer>, size: number): void {
    const symbols = this.#library.symbols;
    const execute = symbols.kvasir_commands_run as NonNullable<typeof symbols.kvasir_commands_run>;
    this.#check(execute(this.#alive(), commands, size));
  }

  /** Copies rows out as they are stored. */
  readRows(src: Tensor, row: number, out: Uint8Array<ArrayBuffer>): void {
    const id = this.#own(src, "tensor to read");
    if (!Number.isInteger(row) || row < 0 || row > 0x7fffffff) {
      throw new RangeError(`Cannot read tensor: row ${row} is no row`);
    }
    this.#check(this.#library.symbols.kvasir_tensor_read_rows(this.#open(), out, id, out.length, row));
  }

  /** Position of the step stack. */
  mark(): number {
    return this.#step.cursor;
  }

  /** Recycles what was taken since. */
  release(mark: number): void {
    this.#step.release(mark);
  }

  /** Recycles all step memory. */
  endStep(): void {
    this.#step.endStep();
  }

  /** Of the host's memory. */
  keep(bytes: number): void {
    this.#check(this.#library.symbols.kvasir_context_keep(this.#open(), bytes));
  }

  /** Joins the library's threads and frees all it owns; again is nothing. */
  [Symbol.dispose](): void {
    const context = this.#context;
    if (context === undefined) return;
    globalThis.removeEventListener("unload", this.#onUnload);
    for (const library of this.#attached.splice(0)) library[Symbol.dispose]();
    // First, so that nothing can call into a library that is gone: every call goes through #open.
    this.#context = undefined;
    this.#library.symbols.kvasir_context_destroy(context);
    this.#library.close();
  }

  #hostMemory(): HostMemory {
    const { symbols } = this.#library;
    const executor = symbols.kvasir_context_executor(this.#open());
    if (executor === null) throw new Unsupported(lastError(this.#library));
    const address = (tensor: Tensor) => {
      // Asked for each time: the library knows whether the tensor, or what a view shows, is still there.
      const at = symbols.kvasir_tensor_address(this.#open(), this.#own(tensor, "tensor to lend"));
      if (at === null) throw new RangeError(lastError(this.#library));
      return at;
    };
    return {
      executor,
      attach: (library) => {
        this.#open();
        this.#attached.push(library);
      },
      address,
      input: address,
      memory: (tensor) => {
        const memory = symbols.kvasir_tensor_memory(this.#open(), this.#own(tensor, "tensor to share"));
        if (memory === null) throw new RangeError(lastError(this.#library));
        return memory;
      },
    };
  }

  /** For calls that touch memory: what was written down comes first. */
  #open(): Context {
    if (this.#recorder?.isRecording === true) this.#recorder.flush();
    return this.#alive();
  }

  #alive(): Context {
    if (this.#context === undefined) throw new Error(`Cannot use backend "${this.spec}": it was disposed`);
    return this.#context;
  }

  #own(tensor: Tensor, what: string): number {
    if (tensor.backend !== this || !(tensor instanceof NativeTensor)) throw foreign(tensor, what);
    return tensor.id;
  }

  #destroy(tensor: NativeTensor): void {
    this.#check(this.#library.symbols.kvasir_tensor_destroy(this.#open(), tensor.id));
    tensor.id = 0;
  }

  #check(status: number): void {
    if (status !== 0) throw errorOf(this.#library, status);
  }
}

function foreign(tensor: Tensor, what: string): RangeError {
  return new RangeError(`Cannot use ${what}: it belongs to another backend, "${tensor.backend.spec}"`);
}
