/**
 * Modules from outside that export entries for a registry: backends, index types, policies.
 *
 * @module
 */

/** How one registry's entries look in a module. */
export interface PluginExport {
  /** Name of the export: an object of entries by name. */
  readonly field: string;
  /** What an entry is called in messages. */
  readonly kind: string;
  /** Functions that an entry must have, beside `summary` and `defaults`. */
  readonly methods: readonly string[];
  /** Booleans that an entry must have. */
  readonly facts?: readonly string[];
  /** A module without the export has no entries; otherwise that is an error. */
  readonly isOptional?: boolean;
}

/**
 * Entries of a module; a path is taken from the working directory. Throws `TypeError` for a module that does not load, and when
 * the export's shape is another.
 */
export async function loadEntries(
  url: string,
  { field, kind, methods, facts = [], isOptional }: PluginExport,
): Promise<object> {
  const complain = (why: string, cause?: unknown) => new TypeError(`Cannot load plugin "${url}": ${why}`, { cause });
  const module: Readonly<Record<string, unknown>> = await import(moduleUrl(url)).catch((error: unknown) => {
    throw complain(error instanceof Error ? error.message : String(error), error);
  });
  const found = module[field];
  if (found === undefined && isOptional === true) return {};
  if (typeof found !== "object" || found === null) throw complain(`it exports no \`${field}\` object`);
  for (const [name, entry] of Object.entries(found)) {
    if (!/^[a-z][a-z0-9_-]*$/.test(name)) {
      throw complain(`"${name}" is not ${/^[aeiou]/.test(kind) ? "an" : "a"} ${kind} name`);
    }
    if (typeof entry?.summary !== "string") throw complain(`${kind} "${name}" has no summary`);
    if (typeof entry.defaults !== "object" || entry.defaults === null) {
      throw complain(`${kind} "${name}" has no defaults`);
    }
    for (const [key, value] of Object.entries(entry.defaults)) {
      if (!["string", "number", "boolean"].includes(typeof value)) {
        throw complain(`default "${key}" of ${kind} "${name}" is no string, number or boolean`);
      }
    }
    for (const fact of facts) {
      if (typeof entry[fact] !== "boolean") throw complain(`${kind} "${name}" does not say ${fact}, true or false`);
    }
    for (const method of methods) {
      if (typeof entry[method] !== "function") throw complain(`${kind} "${name}" has no ${method}()`);
    }
  }
  return found;
}

function moduleUrl(url: string): string {
  if (/^[a-z][a-z0-9+.-]+:/i.test(url)) return url;
  const path = url.startsWith("/") ? url : `${Deno.cwd()}/${url}`;
  return new URL(`file://${encodeURI(path).replaceAll(/[?#]/g, encodeURIComponent)}`).href;
}
