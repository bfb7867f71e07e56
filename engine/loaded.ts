/**
 * A loaded model with all that serving it takes. Types only.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { Conversation, Model, Tokenizer } from "../model/model.ts";
import type { Fingerprint } from "./context_types.ts";
import type { OpenOptions } from "./protocol.ts";
import type { EngineOptions, Progress, Sampling } from "./types.ts";

/** Owned by whoever loaded it; dispose frees weights and backend. */
export interface Loaded extends Disposable {
  /** The forward pass. */
  readonly model: Model;
  /** Where the weights are. */
  readonly backend: Backend;
  /** The model's. */
  readonly tokenizer: Tokenizer;
  /** Sampling that the model's makers recommend. */
  readonly sampling: Partial<Sampling>;
  /** Numbers that the model learned. */
  readonly numParams: number;
  /** The file or folder. */
  readonly file: string;
  /** Whether {@link encodeChat} works. */
  readonly chatTemplate: boolean;
  /** What tells it from other models; computed when it is first asked. */
  identify(): Pick<Fingerprint, "model" | "tokenizer">;
  /** Tokens of a conversation. Throws when there is no template. */
  encodeChat(conversation: Conversation): Promise<number[]>;
  /** The same as text, to look at. */
  renderChat(conversation: Conversation): Promise<string>;
}

/** What a loader reports to, and is told by. */
export interface LoadHooks {
  /** The caller's own. */
  readonly backends: NonNullable<EngineOptions["backends"]>;
  /** How far it is. */
  progress(progress: Progress): void;
  /** What the user should read. */
  notice(text: string): void;
  /** Looked at between pieces of work. */
  readonly signal: { readonly aborted: boolean };
}

/** Loads what `options` name. */
export type Loader = (options: OpenOptions, hooks: LoadHooks) => Promise<Loaded>;
