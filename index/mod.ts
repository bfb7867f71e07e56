/**
 * The index registry: a value, so that callers put their own index types beside ours without touching it.
 *
 * Types of the native library are registered by the library itself (`native/index/registry.cc`); those in TypeScript are
 * one line each. How to add one: `docs/index_types.md`.
 *
 * @module
 */
import type { KvLayer } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";
import type { FileRange, IndexType, KvIndex } from "./index.ts";
import { libraryPath } from "../backends/library.ts";
import { Unsupported } from "../core/errors.ts";
import { loadEntries } from "../core/plugin.ts";
import { formatSpec, lookUp, parseSpec, resolveParams } from "../core/spec.ts";
import { flatReference } from "./flat_reference.ts";
import { nativeIndexTypes } from "./native.ts";

/** Index types by name. */
export type IndexTypes = Readonly<Record<string, IndexType>>;

/** Those in TypeScript that come with Kvasir: one line each. */
export const builtinIndexTypes: IndexTypes = {
  "flat-reference": flatReference,
};

/** Index types that specs are looked up in, and a context of the native library a backend. Make one, keep it. */
export class IndexRegistry {
  /** All that there are. */
  readonly types: IndexTypes;
  readonly #missing: string;

  /**
   * Ours, and `extra`, the caller's own, which win over ours of the same name. Without the native library its types are
   * missing: what asks for one is told so.
   */
  constructor(extra: IndexTypes = {}) {
    const library = libraryPath("index");
    this.#missing = library === undefined
      ? "; those of libkvasir_index are missing, for it is not built: run ./kvasir doctor or deno run -A backends/build.ts"
      : "";
    this.types = { ...(library === undefined ? {} : nativeIndexTypes(library)), ...builtinIndexTypes, ...extra };
  }

  /**
   * An empty index over the cache of one layer. Throws `RangeError` that lists the names, or keys, there are, and
   * `Unsupported` when the type does not work on this backend.
   */
  create(spec: string, kv: KvLayer, on: Backend): KvIndex {
    const { type, params } = this.#resolve(spec);
    return type.create(kv, params, on);
  }

  /** A saved index over a cache with the rows it was built on; throws as `create`, and for a file that does not fit. */
  map(path: string, spec: string, kv: KvLayer, on: Backend, range?: FileRange): KvIndex {
    const { type, params } = this.#resolve(spec);
    return type.map(path, kv, params, on, range);
  }

  /** The spec with all parameters, keys sorted: as printed in every bench row. */
  canonical(spec: string): string {
    const { name, params } = this.#resolve(spec);
    return formatSpec(name, params);
  }

  #resolve(spec: string): { name: string; type: IndexType; params: IndexType["defaults"] } {
    const parsed = parseSpec(spec);
    try {
      const type = lookUp("index type", parsed.name, this.types);
      return { name: parsed.name, type, params: resolveParams(parsed, type.defaults) };
    } catch (error) {
      if (this.#missing === "" || Object.hasOwn(this.types, parsed.name)) throw error;
      throw new Unsupported((error as Error).message + this.#missing);
    }
  }
}

/**
 * Index types of a module that exports `indexTypes`; a path is taken from the working directory. Throws `TypeError` when the
 * export's shape is another, and when there is none unless `isOptional`.
 */
export async function loadIndexTypes(url: string, isOptional = false): Promise<IndexTypes> {
  const shape = { field: "indexTypes", kind: "index type", methods: ["create", "map"], isOptional };
  return await loadEntries(url, shape) as IndexTypes;
}
