/**
 * GGUF's numbers: value types of metadata and element types of tensors (`docs/gguf_types.md`).
 *
 * @module
 */
import type { DType } from "../core/tensor.ts";

/** Types of metadata values. */
export const GGUF_VALUE = {
  U8: 0,
  I8: 1,
  U16: 2,
  I16: 3,
  U32: 4,
  I32: 5,
  F32: 6,
  BOOL: 7,
  STRING: 8,
  ARRAY: 9,
  U64: 10,
  I64: 11,
  F64: 12,
} as const;

/** Element types that kernels understand, by GGUF's number. */
export const GGUF_DTYPES: Readonly<Record<number, DType>> = {
  0: "f32",
  1: "f16",
  2: "q4_0",
  3: "q4_1",
  6: "q5_0",
  7: "q5_1",
  8: "q8_0",
  11: "q3_k",
  12: "q4_k",
  13: "q5_k",
  14: "q6_k",
  20: "iq4_nl",
  24: "i8",
  26: "i32",
  30: "bf16",
};

/** Element types that exist but are not supported, so that errors can name them. */
export const GGUF_UNSUPPORTED: Readonly<Record<number, string>> = {
  4: "Q4_2",
  5: "Q4_3",
  9: "Q8_1",
  10: "Q2_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  25: "I16",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  31: "Q4_0_4_4",
  32: "Q4_0_4_8",
  33: "Q4_0_8_8",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

/** `F32, F16, …`: the weight formats that can be loaded, for error messages. */
export function supportedTypes(): string {
  return Object.values(GGUF_DTYPES).filter((d) => d !== "i8" && d !== "i32").map((d) => d.toUpperCase()).join(", ");
}
