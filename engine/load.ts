/**
 * Loads a model for the engine: backend, weights, tokenizer, template.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { Chat } from "../model/chat.ts";
import type { Loaded, LoadHooks } from "./loaded.ts";
import type { OpenOptions } from "./protocol.ts";
import { Unsupported } from "../core/errors.ts";
import { type Backends, openBackend, prepareBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { identifyFiles, identifyTokenizer } from "../model/identity.ts";
import { openModelFile } from "../model/open.ts";
import { loadTokenizer, type TextTokenizer } from "../model/tokenizer.ts";

/** See {@link Loaded}; throws what the parts throw, having freed all. */
export async function load(options: OpenOptions, hooks: LoadHooks): Promise<Loaded> {
  using opened = openModelFile(options.model, options.rope);
  const tokenizer = loadTokenizer(opened.tokenizerSource());
  const { files } = opened;
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
      numParams: weights.numParams,
      file: opened.path,
      identify: () => ({ model: identifyFiles(files), tokenizer: identifyTokenizer(tokenizer) }),
      chatTemplate: opened.chatTemplate !== undefined,
      ...chatOf(opened.chatTemplate, tokenizer),
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
async function chooseBackend({ backend }: OpenOptions, hooks: LoadHooks): Promise<Backend> {
  const extra = hooks.backends;
  if (backend !== undefined) return await openPrepared(backend, extra, hooks);
  try {
    return await openPrepared("cpu", extra, hooks);
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    hooks.notice(`running on the slow TypeScript backend. ${error.message}`);
    return openBackend("reference", extra);
  }
}

/** Opens at once where that is possible; builds what is missing only then. */
async function openPrepared(spec: string, extra: Backends, hooks: LoadHooks): Promise<Backend> {
  try {
    return openBackend(spec, extra);
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
  }
  await prepareBackend(spec, extra, (done, total, detail) => hooks.progress({ phase: "build", done, total, detail }));
  return openBackend(spec, extra);
}

/** The template engine is imported when the first conversation comes: many runs never need it. */
function chatOf(source: string | undefined, tokenizer: TextTokenizer): Pick<Loaded, "encodeChat" | "renderChat"> {
  let chat: Promise<Chat> | undefined;
  const load = () => chat ??= import("../model/chat.ts").then(({ Chat }) => new Chat(source, tokenizer));
  return {
    encodeChat: async ({ messages, ...options }) => (await load()).encode(messages, options),
    renderChat: async ({ messages, ...options }) => (await load()).render(messages, options),
  };
}
