/**
 * Loads a model for the engine: backend, weights, tokenizer, template.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { Loaded, LoadHooks } from "./loaded.ts";
import type { OpenOptions } from "./protocol.ts";
import { Unsupported } from "../core/errors.ts";
import { type Backends, builtinBackends, loadPlugin, openBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { type OpenedModel, openModelFile } from "../model/open.ts";
import { loadTokenizer, type TokenizerSource } from "../model/tokenizer.ts";

/** See {@link Loaded}; throws what the parts throw, having freed all. */
export async function load(options: OpenOptions, hooks: LoadHooks): Promise<Loaded> {
  using opened = openModelFile(options.model);
  const tokenizer = loadTokenizer(tokenizerSource(opened));
  const backend = await chooseBackend(options, hooks);
  try {
    const weights = opened.openWeights(backend, {
      signal: hooks.signal,
      onProgress: (done, total) => hooks.progress({ phase: "load", done, total }),
    });
    const model = loadModel(opened.config, weights);
    weights.finish();
    return {
      model,
      backend,
      tokenizer,
      sampling: opened.generationDefaults,
      file: opened.path,
      chatTemplate: opened.chatTemplate !== undefined,
      encodeChat: () => Promise.reject(new Unsupported("Cannot render conversation: the model has no chat template")),
      [Symbol.dispose]: () => {
        weights[Symbol.dispose]();
        backend[Symbol.dispose]();
      },
    };
  } catch (error) {
    backend[Symbol.dispose]();
    throw error;
  }
}

/** What was asked for, or the best there is: a named backend that cannot run is an error, a default one is not. */
async function chooseBackend({ backend, plugins = [] }: OpenOptions, hooks: LoadHooks): Promise<Backend> {
  let extra: Backends = hooks.backends;
  for (const url of plugins) extra = { ...extra, ...await loadPlugin(url) };
  if (backend !== undefined) return openBackend(backend, extra);
  if (Object.hasOwn({ ...builtinBackends, ...extra }, "cpu")) {
    try {
      return openBackend("cpu", extra);
    } catch (error) {
      if (!(error instanceof Unsupported)) throw error;
      hooks.notice(`running on the slow reference backend. ${error.message}`);
    }
  }
  return openBackend("reference", extra);
}

function tokenizerSource(opened: OpenedModel): TokenizerSource {
  const source = opened.tokenizerSource();
  if (source.kind === "gguf") return source;
  return {
    kind: "hf",
    tokenizerJson: source.tokenizer,
    tokenizerConfig: source.tokenizerConfig,
    specialTokensMap: source.specialTokens,
    generationConfig: source.generationConfig,
  };
}
