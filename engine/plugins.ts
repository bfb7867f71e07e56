/**
 * What the modules of `EngineOptions.plugins` bring: backends, index types, or both.
 *
 * @module
 */
import { type Backends, loadPlugin } from "../backends/mod.ts";
import { type IndexTypes, loadIndexTypes } from "../index/mod.ts";

/** Entries by name; those of later modules win. */
export interface Plugins {
  /** From `backends`. */
  readonly backends: Backends;
  /** From `indexTypes`. */
  readonly indexTypes: IndexTypes;
}

/** Throws `TypeError` for a module that exports neither, or something else under these names. */
export async function loadPlugins(urls: readonly string[]): Promise<Plugins> {
  let backends: Backends = {};
  let indexTypes: IndexTypes = {};
  for (const url of urls) {
    const [ofBackends, ofIndexes] = [await loadPlugin(url, true), await loadIndexTypes(url, true)];
    if (Object.keys(ofBackends).length + Object.keys(ofIndexes).length === 0) {
      throw new TypeError(`Cannot load plugin "${url}": it exports neither \`backends\` nor \`indexTypes\``);
    }
    backends = { ...backends, ...ofBackends };
    indexTypes = { ...indexTypes, ...ofIndexes };
  }
  return { backends, indexTypes };
}
