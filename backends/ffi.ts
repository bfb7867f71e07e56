/**
 * Symbols of `kvasir_backend.h`. Contexts are opaque pointers, tensors u32 ids, everything else numbers and buffers of the
 * caller, so that `--allow-ffi=<path of the library>` suffices.
 *
 * @module
 */
import { NATIVE_STATUS, NativeError, Unsupported } from "../core/errors.ts";

/** What this build speaks; equals `KVASIR_ABI_VERSION`. */
export const ABI_VERSION = 6;

const VERSION = { kvasir_abi_version: { parameters: [], result: "i32" } } as const;

const SYMBOLS = {
  kvasir_last_error: { parameters: ["buffer", "i32"], result: "i32" },
  kvasir_context_create: { parameters: ["buffer"], result: "pointer" },
  kvasir_context_destroy: { parameters: ["pointer"], result: "i32" },
  kvasir_context_describe: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  kvasir_context_bytes: { parameters: ["pointer", "buffer"], result: "i32" },
  kvasir_context_bandwidth: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  kvasir_context_keep: { parameters: ["pointer", "f64"], result: "i32" },
  kvasir_tensor_create: { parameters: ["pointer", "buffer", "i32", "i32", "buffer", "i32"], result: "i32" },
  kvasir_tensor_view: { parameters: ["pointer", "buffer", "u32", "i32", "buffer", "f64"], result: "i32" },
  kvasir_tensor_destroy: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_tensor_write: { parameters: ["pointer", "u32", "buffer", "f64", "i32"], result: "i32" },
  kvasir_tensor_read: { parameters: ["pointer", "buffer", "u32", "f64"], result: "i32" },
  kvasir_tensor_read_rows: { parameters: ["pointer", "buffer", "u32", "f64", "i32"], result: "i32" },
  kvasir_tensor_fetch: { parameters: ["pointer", "buffer", "u32"], result: "i32", optional: true },
  kvasir_tensor_fetched: { parameters: ["pointer", "buffer", "i32", "f64"], result: "i32", optional: true },
  kvasir_commands_run: { parameters: ["pointer", "buffer", "i32"], result: "i32", optional: true },
  kvasir_tensor_address: { parameters: ["pointer", "u32"], result: "pointer" },
  kvasir_tensor_memory: { parameters: ["pointer", "u32"], result: "pointer" },
  kvasir_context_executor: { parameters: ["pointer"], result: "pointer" },
  kvasir_embed: { parameters: ["pointer", "u32", "u32", "u32", "f32"], result: "i32" },
  kvasir_rms_norm: { parameters: ["pointer", "u32", "u32", "u32", "f32"], result: "i32" },
  kvasir_add_rms_norm: { parameters: ["pointer", "u32", "u32", "u32", "u32", "f32"], result: "i32" },
  kvasir_matmul: { parameters: ["pointer", "buffer", "u32", "buffer", "i32"], result: "i32" },
  kvasir_matmul_glu: { parameters: ["pointer", "u32", "u32", "u32", "u32", "i32"], result: "i32" },
  kvasir_add: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" },
  kvasir_glu: { parameters: ["pointer", "u32", "u32", "u32", "i32"], result: "i32" },
  kvasir_rope_table: { parameters: ["pointer", "u32", "u32", "buffer", "i32", "f32"], result: "i32" },
  kvasir_rope: { parameters: ["pointer", "buffer", "i32", "u32", "i32"], result: "i32" },
  kvasir_tensor_copy: { parameters: ["pointer", "u32", "f64", "u32", "f64", "f64"], result: "i32" },
  kvasir_file_create: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  kvasir_file_add: { parameters: ["pointer", "u32", "buffer", "buffer", "f64"], result: "i32" },
  kvasir_file_add_rows: { parameters: ["pointer", "u32", "buffer", "buffer", "buffer", "i32"], result: "i32" },
  kvasir_file_begin: { parameters: ["pointer", "u32", "buffer", "buffer", "i32", "buffer"], result: "i32" },
  kvasir_file_end: { parameters: ["pointer", "u32", "f64"], result: "i32" },
  kvasir_file_commit: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_file_open: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  kvasir_file_close: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_file_find: { parameters: ["pointer", "u32", "buffer", "buffer"], result: "i32" },
  kvasir_file_verify: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_file_read: { parameters: ["pointer", "u32", "buffer", "f64", "buffer"], result: "i32" },
  kvasir_tensor_map: { parameters: ["pointer", "buffer", "u32", "buffer", "i32", "i32", "buffer"], result: "i32" },
  kvasir_append: { parameters: ["pointer", "buffer", "i32", "u32", "u32"], result: "i32" },
  kvasir_append_each: { parameters: ["pointer", "buffer", "buffer", "i32", "u32", "u32"], result: "i32" },
  kvasir_attend_each: {
    parameters: ["pointer", "u32", "u32", "buffer", "buffer", "i32", "f32", "f32", "i32"],
    result: "i32",
  },
  kvasir_attend_causal: {
    parameters: ["pointer", "u32", "u32", "buffer", "i32", "f32", "f32", "i32"],
    result: "i32",
  },
  kvasir_attend_causal_part: {
    parameters: ["pointer", "u32", "u32", "u32", "buffer", "i32", "f32", "f32", "i32"],
    result: "i32",
  },
  kvasir_attend_causal_sink: {
    parameters: ["pointer", "u32", "u32", "buffer", "i32", "f32", "f32", "i32", "i32", "u32", "u32", "u32"],
    result: "i32",
  },
  kvasir_attend_window: {
    parameters: ["pointer", "u32", "u32", "u32", "buffer", "i32", "f32", "f32", "buffer", "i32"],
    result: "i32",
  },
  kvasir_attend_topk: {
    parameters: ["pointer", "u32", "u32", "u32", "buffer", "i32", "f32", "f32", "u32", "u32", "u32"],
    result: "i32",
  },
  kvasir_merge: { parameters: ["pointer", "u32", "buffer", "i32"], result: "i32" },
  kvasir_merge_parts: { parameters: ["pointer", "u32", "u32", "buffer", "i32"], result: "i32" },
  kvasir_add_logits: { parameters: ["pointer", "u32", "i32", "buffer", "buffer", "i32"], result: "i32" },
  kvasir_penalize: {
    parameters: ["pointer", "u32", "i32", "buffer", "buffer", "i32", "f32", "f32", "f32"],
    result: "i32",
  },
  kvasir_sample: { parameters: ["pointer", "u32", "u32", "buffer"], result: "i32" },
  kvasir_token_logprobs: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" },
  kvasir_top_logprobs: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" },
  kvasir_kl_divergence: { parameters: ["pointer", "u32", "u32", "u32"], result: "i32" },
} as const;

/** A loaded library. */
export type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

/** A context inside it. */
export type Context = Exclude<Deno.PointerValue, null>;

/**
 * Loads the library at `path`. Throws `Unsupported` when it cannot be loaded, or speaks another version of the header, and
 * Deno's own error when `--allow-ffi` does not cover the path.
 */
export function loadLibrary(path: string): Library {
  try {
    // The version alone first: a library of another version may lack some of the other symbols.
    const probe = Deno.dlopen(path, VERSION);
    const version = probe.symbols.kvasir_abi_version();
    probe.close();
    if (version !== ABI_VERSION) {
      throw new Unsupported(`Cannot load "${path}": it has interface version ${version}, expected ${ABI_VERSION}`);
    }
    return Deno.dlopen(path, SYMBOLS);
  } catch (error) {
    if (error instanceof Unsupported || error instanceof Deno.errors.NotCapable) throw error;
    throw new Unsupported(`Cannot load "${path}": ${error instanceof Error ? error.message : error}`);
  }
}

/** Text as the library reads it: UTF-8, NUL-terminated. Throws `RangeError` when it holds a NUL itself. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new RangeError(`Cannot pass ${JSON.stringify(text)}: it holds a NUL character`);
  return new TextEncoder().encode(text + "\0");
}

/** Text that the library wrote. */
export function fromCString(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? bytes.length : end));
}

/** The thread's last error sentence. */
export function lastError(library: Library): string {
  const sentence = new Uint8Array(1024);
  library.symbols.kvasir_last_error(sentence, sentence.length);
  return fromCString(sentence) || "the library gave no reason";
}

/** The error that a status other than `OK` stands for. */
export function errorOf(library: Library, status: number): Error {
  const sentence = lastError(library);
  if (status === NATIVE_STATUS.ARGUMENT) return new RangeError(sentence);
  if (status === NATIVE_STATUS.UNSUPPORTED) return new Unsupported(sentence);
  return new NativeError(status, sentence);
}
