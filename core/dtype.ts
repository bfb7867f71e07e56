/**
 * Sizes of element formats, and the byte arithmetic built on them.
 *
 * @module
 */
import type { BlockType, DType, Shape } from "./tensor.ts";

/** Elements and bytes of one block; plain types are blocks of one. Block layouts: GGUF's, `docs/gguf_types.md`. */
export const DTYPES: Readonly<Record<DType, { readonly elements: number; readonly bytes: number }>> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  i32: { elements: 1, bytes: 4 },
  i8: { elements: 1, bytes: 1 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  q8_0: { elements: 32, bytes: 34 },
  q3_k: { elements: 256, bytes: 110 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
  iq4_nl: { elements: 32, bytes: 18 },
};

/** Whether elements come in quantized blocks. */
export function isBlockType(dtype: DType): dtype is BlockType {
  return DTYPES[dtype].elements > 1;
}

/** Number of elements; 1 for a scalar shape. */
export function elementCount(shape: Shape): number {
  let count = 1;
  for (const d of shape) count *= d;
  return count;
}

/** Bytes of a tensor in its file format; throws `RangeError` when rows are not whole blocks. */
export function byteLength(shape: Shape, dtype: DType): number {
  const { elements, bytes } = DTYPES[dtype];
  const width = shape.length === 0 ? 1 : shape[shape.length - 1] as number;
  if (width % elements !== 0) {
    throw new RangeError(`Cannot size tensor: rows of ${width} are not whole blocks of ${elements} (${dtype})`);
  }
  return elementCount(shape) / elements * bytes;
}
