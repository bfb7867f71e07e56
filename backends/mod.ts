/**
 * The backend registry: a value, so that callers put their own backends beside ours without touching it.
 *
 * @module
 */
import type { Backend, BackendType } from "./backend.ts";
import { lookUp, parseSpec, resolveParams } from "../core/spec.ts";
import { loadEntries } from "../core/plugin.ts";
import { cpu } from "./cpu.ts";
import { cuda } from "./cuda.ts";
import { hybrid } from "./hybrid.ts";
import { reference } from "./reference.ts";

/** Backends by name. */
export type Backends = Readonly<Record<string, BackendType>>;

/** Those that come with Kvasir: one line each. */
export const builtinBackends: Backends = {
  cpu,
  cuda,
  reference,
  hybrid: hybrid({ cpu, cuda, reference }),
};

/**
 * Opens the backend a spec names, e.g. `cpu:threads=2`; `extra` are the caller's own, which win over built-in ones of the
 * same name. Throws `RangeError` that lists the names, or keys, there are, and `Unsupported` when this machine cannot run it.
 */
export function openBackend(spec: string, extra: Backends = {}): Backend {
  const parsed = parseSpec(spec);
  const type = lookUp("backend", parsed.name, { ...builtinBackends, ...extra });
  return type.open(resolveParams(parsed, type.defaults));
}

/**
 * Makes `openBackend(spec)` possible where that takes time: builds the native library, for one. `report` is told steps
 * done and in all (0 while unknown), and of what. Throws like `openBackend`.
 */
export async function prepareBackend(
  spec: string,
  extra: Backends = {},
  report: (done: number, total: number, detail: string) => void = () => {},
): Promise<void> {
  const parsed = parseSpec(spec);
  const type = lookUp("backend", parsed.name, { ...builtinBackends, ...extra });
  await type.prepare?.(report, resolveParams(parsed, type.defaults));
}

/**
 * Backends of a module that exports `backends`; a path is taken from the working directory. Throws `TypeError` when the
 * export's shape is another, and when there is none unless `isOptional`.
 */
export async function loadPlugin(url: string, isOptional = false): Promise<Backends> {
  return await loadEntries(url, { field: "backends", kind: "backend", methods: ["open"], isOptional }) as Backends;
}
