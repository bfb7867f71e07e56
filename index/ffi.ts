/**
 * Symbols of `kvasir_index.h`. Contexts and what lies in a backend's memory are opaque pointers, segments and indexes u32
 * ids, everything else numbers and buffers of the caller, so that `--allow-ffi=<path of the library>` suffices.
 *
 * @module
 */
import { NATIVE_STATUS, NativeError, Unsupported } from "../core/errors.ts";
import { cString, fromCString } from "../backends/ffi.ts";

/** What this build speaks; equals `KVASIR_INDEX_ABI_VERSION`. */
export const INDEX_ABI_VERSION = 4;

const VERSION = { kvasir_index_abi_version: { parameters: [], result: "i32" } } as const;

const SYMBOLS = {
  kvasir_index_last_error: { parameters: ["buffer", "i32"], result: "i32" },
  kvasir_index_types: { parameters: ["buffer", "i32"], result: "i32" },
  kvasir_index_costs: { parameters: ["buffer", "i32", "buffer"], result: "i32" },
  kvasir_index_context_create: { parameters: ["buffer", "pointer"], result: "pointer" },
  kvasir_index_context_destroy: { parameters: ["pointer"], result: "i32" },
  kvasir_index_context_describe: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  kvasir_segment_create: {
    parameters: ["pointer", "buffer", "buffer", "pointer", "pointer", "pointer", "pointer"],
    result: "i32",
  },
  kvasir_segment_destroy: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_index_create: { parameters: ["pointer", "buffer", "buffer", "buffer", "buffer"], result: "i32" },
  kvasir_index_destroy: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_index_append_segment: { parameters: ["pointer", "u32", "u32"], result: "i32" },
  kvasir_index_add: { parameters: ["pointer", "u32", "i32", "i32"], result: "i32" },
  kvasir_index_observes: { parameters: ["pointer", "u32", "buffer"], result: "i32" },
  kvasir_index_observe: { parameters: ["pointer", "u32", "i32", "i32", "pointer"], result: "i32" },
  kvasir_index_commit: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_index_settle: { parameters: ["pointer", "u32"], result: "i32" },
  kvasir_index_search: {
    parameters: [
      "pointer",
      "u32",
      "pointer",
      "pointer",
      "pointer",
      "pointer",
      "buffer",
      "i32",
      "buffer",
      "pointer",
      "pointer",
      "pointer",
      "pointer",
    ],
    result: "i32",
  },
  kvasir_index_attend: {
    parameters: ["pointer", "u32", "pointer", "pointer", "buffer", "buffer", "pointer", "pointer"],
    result: "i32",
    optional: true,
  },
  kvasir_index_fork: { parameters: ["pointer", "buffer", "u32", "buffer", "i32"], result: "i32" },
  kvasir_index_save: { parameters: ["pointer", "u32", "buffer"], result: "i32" },
  kvasir_index_save_into: { parameters: ["pointer", "u32", "buffer", "buffer", "f64"], result: "i32" },
  kvasir_index_map_from: {
    parameters: ["pointer", "buffer", "buffer", "buffer", "buffer", "buffer", "buffer", "buffer", "i32"],
    result: "i32",
  },
  kvasir_index_stats: { parameters: ["pointer", "u32", "buffer", "buffer", "i32"], result: "i32" },
} as const;

/** A loaded library. */
export type IndexLibrary = Deno.DynamicLibrary<typeof SYMBOLS>;

/**
 * Loads the library at `path`. Throws `Unsupported` when it cannot be loaded, or speaks another version of the header, and
 * Deno's own error when `--allow-ffi` does not cover the path.
 */
export function loadIndexLibrary(path: string): IndexLibrary {
  try {
    // The version alone first: a library of another version may lack some of the other symbols.
    const probe = Deno.dlopen(path, VERSION);
    const version = probe.symbols.kvasir_index_abi_version();
    probe.close();
    if (version !== INDEX_ABI_VERSION) {
      throw new Unsupported(
        `Cannot load "${path}": it has interface version ${version}, expected ${INDEX_ABI_VERSION}`,
      );
    }
    return Deno.dlopen(path, SYMBOLS);
  } catch (error) {
    if (error instanceof Unsupported || error instanceof Deno.errors.NotCapable) throw error;
    throw new Unsupported(`Cannot load "${path}": ${error instanceof Error ? error.message : error}`);
  }
}

/** The error that a status other than `OK` stands for. */
export function indexErrorOf(library: IndexLibrary, status: number): Error {
  const bytes = new Uint8Array(1024);
  library.symbols.kvasir_index_last_error(bytes, bytes.length);
  const sentence = fromCString(bytes) || "the library gave no reason";
  if (status === NATIVE_STATUS.ARGUMENT) return new RangeError(sentence);
  if (status === NATIVE_STATUS.UNSUPPORTED) return new Unsupported(sentence);
  return new NativeError(status, sentence);
}

/** Text that a call writes into a buffer, which grows until it suffices. */
export function textOf(library: IndexLibrary, call: (buffer: Uint8Array<ArrayBuffer>) => number): string {
  for (let size = 1024;; size *= 4) {
    const buffer = new Uint8Array(size);
    const status = call(buffer);
    if (status === NATIVE_STATUS.OK) return fromCString(buffer);
    if (status !== NATIVE_STATUS.CAPACITY || size > 2 ** 26) throw indexErrorOf(library, status);
  }
}

export { cString };
