/**
 * Error classes for meanings that built-in ones do not cover.
 *
 * Messages follow one form: action, colon, state, then the remedy: `Cannot open model: file ends at byte 1024,
 * tensor "blk.0.attn_q.weight" needs 331776`. A wrong argument is a `RangeError` or `TypeError`; the command line turns
 * each class into its exit code (`cli/exit.ts`).
 *
 * @module
 */

/** Status of native calls, equal to the constants of `kvasir_abi.h`. */
export const NATIVE_STATUS = {
  OK: 0,
  ARGUMENT: 1,
  MEMORY: 2,
  DEVICE: 3,
  UNSUPPORTED: 4,
  INTERNAL: 5,
  CAPACITY: 6,
} as const;

/** A native call failed. */
export class NativeError extends Error {
  /** For logs, and errors that cross threads. */
  override readonly name = "NativeError";
  /** `code` is one of {@link NATIVE_STATUS}. */
  constructor(readonly code: number, message: string) {
    super(message);
  }
}

/** Something valid that this build, backend or machine does not do; the message says why and what to use instead. */
export class Unsupported extends Error {
  /** For logs, and errors that cross threads. */
  override readonly name = "Unsupported";
}

/** A model file (or tokenizer, or configuration) that cannot be read: names the file, the field and the remedy. */
export class ModelFileError extends Error {
  /** For logs, and errors that cross threads. */
  override readonly name = "ModelFileError";
}

/**
 * Why a context cannot be used. `missing`: there is none of that name; `exists`: the name is taken; `mismatch`: it was made
 * by another model or with other settings; `damaged`: its file is not what was written; `full`: there is no room for it.
 */
export type ContextErrorKind = "missing" | "exists" | "mismatch" | "damaged" | "full";

/** A stored context that cannot be had, or made. */
export class ContextError extends Error {
  /** For logs, and errors that cross threads. */
  override readonly name = "ContextError";
  /** `field` is the part of the fingerprint that differs. */
  constructor(readonly kind: ContextErrorKind, message: string, readonly field?: string) {
    super(message);
  }
}

/** Memory or context does not suffice for what was asked. */
export class DoesNotFit extends Error {
  /** For logs, and errors that cross threads. */
  override readonly name = "DoesNotFit";
  /** `counts` are there when a prompt is longer than the context. */
  constructor(message: string, readonly counts?: { readonly promptTokens: number; readonly ctxSize: number }) {
    super(message);
  }
}
