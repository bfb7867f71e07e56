/**
 * Memory of the reference backend: typed arrays, weights in their file format.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import type { DType, Shape, Tensor } from "../core/tensor.ts";
import { byteLength, DTYPES, elementCount } from "../core/dtype.ts";
import { NATIVE_STATUS, NativeError } from "../core/errors.ts";
import { DEQUANTIZE } from "./dequant.ts";
import { fromBfloat, HALF } from "./half.ts";

/** Halves and bfloat16 as bits, blocks as bytes. */
export type Storage =
  | Float32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

/** A tensor whose memory is a typed array. */
export class ReferenceTensor implements Tensor {
  #data: Storage | undefined;

  /** `owner` is the tensor that a view looks into; it goes stale with it. */
  constructor(
    readonly backend: Backend,
    readonly dtype: DType,
    readonly shape: Shape,
    data: Storage,
    readonly lasting: boolean,
    readonly owner?: ReferenceTensor,
  ) {
    this.#data = data;
  }

  /** Undefined once freed. */
  get data(): Storage | undefined {
    return this.owner !== undefined && this.owner.data === undefined ? undefined : this.#data;
  }

  /** Lets go of the memory. */
  drop(): void {
    this.#data = undefined;
  }
}

/** Zeroed memory for a checked shape; throws `NativeError` when there is none. */
export function makeStorage(shape: Shape, dtype: DType): Storage {
  const bytes = byteLength(shape, dtype);
  try {
    return asStorage(new ArrayBuffer(bytes), dtype);
  } catch {
    throw new NativeError(NATIVE_STATUS.MEMORY, `Cannot allocate tensor: ${bytes} bytes are not to be had`);
  }
}

function asStorage(buffer: ArrayBuffer, dtype: DType): Storage {
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer);
    case "f16":
    case "bf16":
      return new Uint16Array(buffer);
    case "i32":
      return new Int32Array(buffer);
    case "i8":
      return new Int8Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}

/** Elements `[offset, offset + count)` of plain storage, sharing memory. */
export function window(data: Storage, offset: number, count: number): Storage {
  return data.subarray(offset, offset + count);
}

/** Elements as they are, between tensors of one plain type. */
export function copy(
  to: { readonly dtype: DType; readonly data: Storage },
  at: number,
  { dtype, data }: { readonly dtype: DType; readonly data: Storage },
  from: number,
  count: number,
): void {
  if (to.dtype !== dtype) throw new RangeError(`Cannot copy tensor: ${dtype} to ${to.dtype}`);
  const whole = [at, from, count].every((x) => Number.isInteger(x) && x >= 0);
  if (!whole || at + count > to.data.length || from + count > data.length) {
    throw new RangeError(
      `Cannot copy tensor: ${count} elements from ${from} of ${data.length} to ${at} of ${to.data.length}`,
    );
  }
  to.data.set(data.subarray(from, from + count), at);
}

/** A copy of plain storage as f32, or i32 for whole numbers. */
export function widened(data: Storage, dtype: DType): Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> {
  switch (dtype) {
    case "f32":
      return new Float32Array(data);
    case "i32":
    case "i8":
      return new Int32Array(data);
    case "f16":
      return Float32Array.from(data, (bits) => HALF[bits] as number);
    case "bf16":
      return Float32Array.from(data, fromBfloat);
    default:
      throw new RangeError(`Cannot read tensor: ${dtype} holds blocks, only plain types can be read`);
  }
}

/** Reads rows of `width` of a weight of any type as f32: into the array it is given, from element 0. */
export function rowReader(t: ReferenceTensor, data: Storage): (out: Float32Array, row: number) => void {
  const width = t.shape[t.shape.length - 1] as number;
  switch (t.dtype) {
    case "f32":
      return (out, row) => out.set(data.subarray(row * width, (row + 1) * width));
    case "f16":
      return (out, row) => {
        for (let i = 0, at = row * width; i < width; i++, at++) out[i] = HALF[data[at] as number] as number;
      };
    case "bf16":
      return (out, row) => {
        for (let i = 0, at = row * width; i < width; i++, at++) out[i] = fromBfloat(data[at] as number);
      };
    case "i32":
    case "i8":
      throw new RangeError(`Cannot use ${t.dtype} as a weight: expected f32, f16, bf16 or a block type`);
    default: {
      const dequantize = DEQUANTIZE[t.dtype];
      const { elements, bytes } = DTYPES[t.dtype];
      return (out, row) => dequantize(out, data as Uint8Array, row * width / elements * bytes, width);
    }
  }
}

/** Rows of the last dimension. */
export function rowCount(shape: Shape): number {
  return elementCount(shape.slice(0, -1));
}
