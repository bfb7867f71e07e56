/**
 * What the modules of `EngineOptions.plugins` bring: backends, index types, policies.
 *
 * @module
 */
import { loadPolicies, type Policies } from "../attention/mod.ts";
import { type Backends, loadPlugin } from "../backends/mod.ts";
import { type IndexTypes, loadIndexTypes } from "../index/mod.ts";

/** Entries by name; those of later modules win. */
export interface Plugins {
  /** From `backends`. */
  readonly backends: Backends;
  /** From `indexTypes`. */
  readonly indexTypes: IndexTypes;
  /** From `policies`. */
  readonly policies: Policies;
}

/** Nothing from outside. */
export const NO_PLUGINS: Plugins = { backends: {}, indexTypes: {}, policies: {} };

/** Throws `TypeError` for a module that exports none of them, or something else under these names. */
export async function loadPlugins(urls: readonly string[]): Promise<Plugins> {
  let all = NO_PLUGINS;
  for (const url of urls) {
    const backends = await loadPlugin(url, true);
    const indexTypes = await loadIndexTypes(url, true);
    const policies = await loadPolicies(url, true);
    if ([backends, indexTypes, policies].every((entries) => Object.keys(entries).length === 0)) {
      throw new TypeError(`Cannot load plugin "${url}": it exports no \`backends\`, \`indexTypes\` or \`policies\``);
    }
    all = {
      backends: { ...all.backends, ...backends },
      indexTypes: { ...all.indexTypes, ...indexTypes },
      policies: { ...all.policies, ...policies },
    };
  }
  return all;
}
