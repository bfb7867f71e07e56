/**
 * What callers of the engine say and hear of contexts: sequences that stay when they have ended. Types only.
 *
 * @module
 */
import type { Message } from "../model/model.ts";
import type { Prompt } from "./protocol.ts";
import type { GenerateOptions, Progress } from "./types.ts";

/** How a generation begins, and what stays of it. */
export interface ContextUse {
  /**
   * Name or id of a context that the prompt continues: messages follow those it was made from (or repeat them first), text and
   * ids follow its tokens.
   */
  readonly context?: string;
  /** Name under which prompt and answer stay; a context of that name is replaced. */
  readonly saveContext?: string;
  /** Seconds since its last use after which the saved context goes; 0 (default): never. */
  readonly ttlSeconds?: number;
  /** Of the saved context; at most 16 entries. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Whether to begin with the longest prefix that any context or running sequence holds. Default true. */
  readonly cachePrompt?: boolean;
  /** Only what was made with the same salt is shared. Default: none. */
  readonly cacheSalt?: string;
}

/** Names what a context was made with; another model or other settings make other keys and values. */
export interface Fingerprint {
  /** Of the weights and hyperparameters. */
  readonly model: string;
  /** Of the vocabulary. */
  readonly tokenizer: string;
  /** Type of cached keys and values. */
  readonly kvType: string;
  /** Of the rotary frequencies of all layers. */
  readonly rope: string;
  /** Canonical spec. */
  readonly policy: string;
  /** Canonical spec; empty where none is asked. */
  readonly index: string;
  /** Of the program. */
  readonly version: string;
}

/** A stored context. Times are milliseconds since 1970. */
export interface ContextInfo {
  /** `ctx_…`, for ever. */
  readonly id: string;
  /** Absent: the engine keeps it as long as there is room. */
  readonly name?: string;
  /** How many it begins a prompt with. */
  readonly tokens: number;
  /** Keys, values and indexes; what contexts share counts in each. */
  readonly bytes: { readonly memory: number; readonly disk: number };
  /** When it was made. */
  readonly createdMs: number;
  /** When a generation last began with it. */
  readonly lastUsedMs: number;
  /** When it goes, unless it is used before; absent: never. */
  readonly expiresMs?: number;
  /** Id of the context that it began with. */
  readonly parent?: string;
  /** The caller's. */
  readonly metadata: Readonly<Record<string, string>>;
  /** See {@link Fingerprint}. */
  readonly fingerprint: Fingerprint;
}

/** A context that begins as a prompt does. */
export interface ContextMatch {
  /** Which. */
  readonly context: ContextInfo;
  /** So many tokens are the same. */
  readonly matchedTokens: number;
}

/** Contexts of an engine: sequences that stay when they have ended, under names. Names match `[A-Za-z0-9._-]{1,64}`. */
export interface EngineContexts {
  /** All, the most recently used first. */
  list(): Promise<ContextInfo[]>;
  /** Throws `ContextError` `missing`. */
  show(name: string): Promise<ContextInfo>;
  /** The conversation that it was made from; undefined: a text. Throws `ContextError` `missing`. */
  messages(name: string): Promise<readonly Message[] | undefined>;
  /**
   * Reads a prompt and keeps it under a name; of conversations without opening the assistant's turn. `context` continues
   * another one. Resolves when it is stored; `onProgress` hears of tokens read.
   */
  create(
    prompt: Prompt,
    options: ContextOptions & { readonly name: string; readonly onProgress?: (progress: Progress) => void },
  ): Promise<ContextInfo>;
  /** A context with the first `atToken` tokens (default: all) of another; nothing is copied until one of them goes on. */
  fork(name: string, options: { readonly name: string; readonly atToken?: number }): Promise<ContextInfo>;
  /** Changes what is given. Throws `ContextError` `exists` when the new name is taken. */
  update(name: string, change: ContextChange): Promise<ContextInfo>;
  /** Generations that have begun with it go on. */
  delete(name: string): Promise<void>;
  /** Contexts that a prompt begins with, the longest match first. */
  lookup(prompt: Prompt, options?: Pick<GenerateOptions, "cacheSalt" | "attention">): Promise<ContextMatch[]>;
}

/** How a context is made. */
export type ContextOptions = Pick<
  GenerateOptions,
  "attention" | "signal" | "context" | "cachePrompt" | "cacheSalt" | "ttlSeconds" | "metadata"
>;

/** What can be changed of a context. */
export interface ContextChange {
  /** Its new name. */
  readonly name?: string;
  /** Seconds since its last use after which it goes; 0: never. */
  readonly ttlSeconds?: number;
  /** In place of what there is. */
  readonly metadata?: Readonly<Record<string, string>>;
}
