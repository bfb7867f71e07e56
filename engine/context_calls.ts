/**
 * The caller's side of contexts: each call is one request, but making one, which is a generation of nothing.
 *
 * @module
 */
import type { ContextChange, ContextInfo, ContextMatch, ContextOptions, EngineContexts } from "./context_types.ts";
import type { Message } from "../model/model.ts";
import type { GenerateHow, Prompt } from "./protocol.ts";
import type { GenerateOptions, Progress, TokenEvent } from "./types.ts";
import type { Connection } from "./connection.ts";

/** Runs a generation. */
export type Generate = (
  prompt: Prompt,
  options: GenerateOptions,
  how: Pick<GenerateHow, "isPromptOnly">,
) => AsyncIterable<readonly TokenEvent[]>;

/** Over a connection. */
export class ContextCalls implements EngineContexts {
  readonly #connection: Connection;
  readonly #generate: Generate;

  /** `generate` is the engine's own. */
  constructor(connection: Connection, generate: Generate) {
    this.#connection = connection;
    this.#generate = generate;
  }

  list(): Promise<ContextInfo[]> {
    return this.#connection.ask({ type: "context", call: { op: "list" } });
  }

  show(name: string): Promise<ContextInfo> {
    return this.#connection.ask({ type: "context", call: { op: "show", name } });
  }

  messages(name: string): Promise<readonly Message[] | undefined> {
    return this.#connection.ask({ type: "context", call: { op: "messages", name } });
  }

  async create(
    prompt: Prompt,
    { name, onProgress, ...options }: ContextOptions & {
      readonly name: string;
      readonly onProgress?: (progress: Progress) => void;
    },
  ): Promise<ContextInfo> {
    const { signal } = options;
    const batches = this.#generate(
      unanswered(prompt),
      { ...options, saveContext: name, maxTokens: 1, temperature: 0 },
      { isPromptOnly: true },
    );
    let saved: string | undefined;
    for await (const events of batches) {
      for (const event of events) {
        if (event.type === "prefill") onProgress?.({ phase: "prefill", done: event.done, total: event.total });
        else if (event.type === "done") saved = event.savedAs;
      }
    }
    if (saved === undefined) throw signal?.reason ?? new DOMException("Cancelled", "AbortError");
    return await this.show(saved);
  }

  async fork(
    name: string,
    { name: to, atToken }: { readonly name: string; readonly atToken?: number },
  ): Promise<ContextInfo> {
    const at = atToken === undefined ? {} : { atToken };
    const { id } = await this.#connection.ask<ContextInfo>({ type: "context", call: { op: "fork", name, to, ...at } });
    return await this.#save(id);
  }

  async update(name: string, change: ContextChange): Promise<ContextInfo> {
    const { id } = await this.#connection.ask<ContextInfo>({ type: "context", call: { op: "update", name, change } });
    return await this.#save(id);
  }

  /** To its file, where there is a folder and it is not as the file. */
  #save(name: string): Promise<ContextInfo> {
    return this.#connection.ask({ type: "context", call: { op: "save", name } });
  }

  delete(name: string): Promise<void> {
    return this.#connection.ask({ type: "context", call: { op: "delete", name } });
  }

  lookup(prompt: Prompt, options: Pick<GenerateOptions, "cacheSalt" | "attention"> = {}): Promise<ContextMatch[]> {
    return this.#connection.ask({ type: "context", call: { op: "lookup", prompt, how: options } });
  }
}

/** A conversation ends where its last turn does, unless the caller says otherwise. */
function unanswered(prompt: Prompt): Prompt {
  if (typeof prompt === "string" || prompt instanceof Int32Array) return prompt;
  return { addGenerationPrompt: false, ..."messages" in prompt ? prompt : { messages: prompt } };
}
