/**
 * The engine's façade: what programs use. The work is done in a worker (engine/worker.ts), so that nothing here blocks.
 *
 * @module
 */
import type { EngineContexts } from "./context_types.ts";
import type {
  EngineInfo,
  EngineLike,
  EngineOptions,
  EvaluateOptions,
  Evaluation,
  GenerateOptions,
  TokenEvent,
} from "./types.ts";
import type { Conversation } from "../model/model.ts";
import type { GenerateHow, Prompt } from "./protocol.ts";
import { ContextCalls } from "./context_calls.ts";
import { Connection } from "./connection.ts";
import { type Link, localLink, type Receiver, workerLink } from "./link.ts";

/**
 * A loaded model, ready to generate. Several calls may run at once: their sequences share steps.
 *
 * ```ts
 * import { Engine } from "./engine.ts";
 *
 * if (import.meta.main) {
 *   await using engine = await Engine.open({ model: "smollm2-135m-instruct" });
 *   for await (const event of engine.generate([{ role: "user", content: "Why is the sky blue?" }])) {
 *     if (event.type === "token") Deno.stdout.writeSync(new TextEncoder().encode(event.text));
 *   }
 * }
 * ```
 */
export class Engine implements EngineLike {
  /** Sequences that stay when they have ended. */
  readonly contexts: EngineContexts;
  readonly #connection: Connection;
  #closing: Promise<void> | undefined;

  private constructor(connection: Connection) {
    this.#connection = connection;
    this.contexts = new ContextCalls(connection, (prompt, options, how) => this.#batches(prompt, options, how));
  }

  /**
   * Loads a model. Rejects with `ModelFileError`, `Unsupported`, `NativeError`, `DoesNotFit` or `RangeError`, each saying
   * what to do, or with the signal's reason when that aborts first.
   */
  static open(options: EngineOptions): Promise<Engine> {
    const { backends, indexTypes, policies } = options;
    const resolved = { ...options, resolve: resolveModel };
    const own = {
      ...(backends === undefined ? {} : { backends }),
      ...(indexTypes === undefined ? {} : { indexTypes }),
      ...(policies === undefined ? {} : { policies }),
    };
    if (Object.keys(own).length === 0) return Engine.openOver((to) => workerLink(to), resolved);
    return Engine.openOver(async (to) => await localLink(to, (await import("./load.ts")).load, own), resolved);
  }

  /**
   * Like {@link open}, over a link of the caller's making; `resolve` turns the model's name into a path.
   *
   * @internal
   */
  static async openOver(
    makeLink: (to: Receiver) => Link | Promise<Link>,
    options: EngineOptions & { readonly resolve?: (options: EngineOptions) => Promise<string> },
  ): Promise<Engine> {
    const { onProgress, onNotice, signal, backends: _, indexTypes: __, policies: ___, resolve, ...open } = options;
    signal?.throwIfAborted();
    const connection = new Connection({
      progress: (progress) => onProgress?.(progress),
      notice: (text) => onNotice?.(text),
    });
    connection.attach(await makeLink(connection));
    try {
      // The worker starts meanwhile.
      const model = await resolve?.(options) ?? options.model;
      await connection.ask({ type: "open", options: { ...open, model } }, signal);
      return new Engine(connection);
    } catch (error) {
      connection.close(error as Error);
      throw error;
    }
  }

  /** What is loaded, and how many bytes it takes now. */
  info(): Promise<EngineInfo> {
    return this.#connection.ask({ type: "info" });
  }

  /**
   * Generates from a text, a conversation (through the model's chat template) or token ids. The last event has type
   * `done`; aborting the signal gives one with reason `cancelled`, leaving the loop early cancels too. By then all that
   * the generation held is freed. Throws `DoesNotFit` for a prompt beyond the context, `RangeError` for wrong options.
   */
  async *generate(
    prompt: Prompt,
    options: GenerateOptions = {},
  ): AsyncGenerator<TokenEvent, void, undefined> {
    for await (const events of this.generateBatches(prompt, options)) yield* events;
  }

  /** As {@link generate}; yields all that has come so far in one piece, at least one event. */
  generateBatches(
    prompt: Prompt,
    options: GenerateOptions = {},
  ): AsyncGenerator<readonly TokenEvent[], void, undefined> {
    return this.#batches(prompt, options);
  }

  async *#batches(
    prompt: Prompt,
    options: GenerateOptions,
    more: Pick<GenerateHow, "isPromptOnly"> = {},
  ): AsyncGenerator<readonly TokenEvent[], void, undefined> {
    const { signal, attention, grammar, look, ...rest } = options;
    const { context, saveContext, ttlSeconds, metadata, cachePrompt, cacheSalt, ...sampling } = rest;
    const how = given({
      attention,
      grammar,
      look,
      context,
      saveContext,
      ttlSeconds,
      metadata,
      cachePrompt,
      cacheSalt,
      ...more,
    });
    const queue: TokenEvent[] = [];
    let failure: Error | undefined;
    let ended = false;
    let wake = () => {};
    const id = this.#connection.stream(
      { type: "generate", prompt, sampling, how },
      (events) => {
        for (const event of events) queue.push(event);
        ended = events.at(-1)?.type === "done";
        wake();
      },
      (error) => {
        failure = error;
        ended = true;
        wake();
      },
    );
    const cancel = () => this.#connection.cancel(id);
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel);
    const news = async () => {
      while (queue.length === 0 && !ended) await new Promise<void>((heard) => wake = heard);
    };
    try {
      for (;;) {
        await news();
        // All that has come so far, in order; the consumer may be slower than the engine.
        const events = queue.splice(0);
        const last = events.at(-1);
        // It is stored when the caller hears that it is.
        if (last?.type === "done" && last.savedAs !== undefined) await this.#save(last.savedAs);
        if (events.length > 0) yield events;
        if (queue.length === 0 && ended) break;
      }
      if (failure !== undefined) throw failure;
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!ended) {
        cancel();
        while (!ended) await new Promise<void>((heard) => wake = heard);
      }
    }
  }

  #save(name: string): Promise<void> {
    return this.#connection.ask({ type: "context", call: { op: "save", name } });
  }

  /** Scores a text, token by token. Aborting the signal rejects with its reason. */
  evaluate(tokens: Int32Array, options: EvaluateOptions): Promise<Evaluation> {
    const { signal, ...rest } = options;
    return this.#connection.ask({ type: "evaluate", tokens, options: rest }, signal);
  }

  /** Ids of a text. */
  tokenize(
    text: string,
    options: { readonly special?: boolean; readonly bos?: boolean } = {},
  ): Promise<Int32Array> {
    return this.#connection.ask({ type: "tokenize", text, options });
  }

  /** The ids that a generation would begin with; throws as {@link generate} does. */
  encode(prompt: Prompt): Promise<Int32Array> {
    return this.#connection.ask({ type: "encode", prompt });
  }

  /** A conversation as the model's template writes it. Throws `Unsupported` when it has none, `RangeError` when it refuses. */
  render(conversation: Conversation): Promise<string> {
    return this.#connection.ask({ type: "render", conversation });
  }

  /** The text of ids, special tokens included. */
  detokenize(tokens: Int32Array): Promise<string> {
    return this.#connection.ask({ type: "detokenize", tokens });
  }

  /** Cancels what runs, frees everything and ends the worker. Idempotent. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#connection.ask({ type: "close" });
    } catch (error) {
      // Who waited has heard of a crash already; there is nothing left to free.
      if (!this.#connection.isGone) throw error;
    } finally {
      this.#connection.close(new TypeError("Cannot use engine: it was closed"));
    }
  }
}

/** Entries that are not undefined. */
function given(how: { readonly [K in keyof GenerateHow]: GenerateHow[K] | undefined }): GenerateHow {
  return Object.fromEntries(Object.entries(how).filter(([, value]) => value !== undefined));
}

/** The path of the model, downloaded if need be. The hub is only imported for what is not plainly a path. */
async function resolveModel({ model, offline, onProgress, onNotice, signal }: EngineOptions): Promise<string> {
  if (/^[./]/.test(model) || model.endsWith(".gguf") && !/^(hf:|https?:)/.test(model)) return model;
  const hub = await import("../model/hub.ts");
  return await hub.resolveModel(model, {
    ...(offline === undefined ? {} : { offline }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(onNotice === undefined ? {} : { onNotice }),
    ...(signal === undefined ? {} : { signal }),
  });
}
