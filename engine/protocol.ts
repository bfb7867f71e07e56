/**
 * What the caller's thread and the engine's thread say to each other. Types only; all of it can be posted.
 *
 * Every request with an answer has an id of its own. `generate` is answered by `events` until one of type `done`, the
 * others by one `result`; either may be answered by an `error` instead.
 *
 * @module
 */
import type { Conversation, Message } from "../model/model.ts";
import type { ContextChange } from "./context_types.ts";
import type { EngineOptions, EvaluateOptions, GenerateOptions, Progress, Sampling } from "./types.ts";
import type { RequestEvents } from "./outbox.ts";
import type { RemoteError } from "./remote_error.ts";

/** Options of `open` that can be posted. */
export type OpenOptions = Omit<EngineOptions, "backends" | "indexTypes" | "onProgress" | "onNotice" | "signal">;

/** What a caller may give as a prompt. */
export type Prompt = string | readonly Message[] | Conversation | Int32Array;

/** How a generation attends and begins, and what stays of it. */
export type GenerateHow = Omit<GenerateOptions, keyof Sampling | "signal"> & {
  /** Nothing is generated: the prompt is read and stays. */
  readonly isPromptOnly?: boolean;
};

/** What can be asked of contexts; the answers are those of `EngineContexts`. */
export type ContextCall =
  | { readonly op: "list" }
  | { readonly op: "show"; readonly name: string }
  | { readonly op: "save"; readonly name: string }
  | { readonly op: "messages"; readonly name: string }
  | { readonly op: "fork"; readonly name: string; readonly to: string; readonly atToken?: number }
  | { readonly op: "update"; readonly name: string; readonly change: ContextChange }
  | { readonly op: "delete"; readonly name: string }
  | { readonly op: "lookup"; readonly prompt: Prompt; readonly how: Pick<GenerateHow, "cacheSalt" | "attention"> };

/** From the caller. */
export type Request =
  | { readonly type: "open"; readonly id: number; readonly options: OpenOptions }
  | { readonly type: "info"; readonly id: number }
  | {
    readonly type: "generate";
    readonly id: number;
    readonly prompt: Prompt;
    readonly sampling: Partial<Sampling>;
    readonly how: GenerateHow;
  }
  | { readonly type: "context"; readonly id: number; readonly call: ContextCall }
  | {
    readonly type: "evaluate";
    readonly id: number;
    readonly tokens: Int32Array;
    readonly options: Omit<EvaluateOptions, "signal">;
  }
  | {
    readonly type: "tokenize";
    readonly id: number;
    readonly text: string;
    readonly options: { readonly special?: boolean; readonly bos?: boolean };
  }
  /** Answered by the conversation's text. */
  | { readonly type: "render"; readonly id: number; readonly conversation: Conversation }
  /** Answered by the ids that a generation would begin with. */
  | { readonly type: "encode"; readonly id: number; readonly prompt: Prompt }
  | { readonly type: "detokenize"; readonly id: number; readonly tokens: Int32Array }
  /** Ends the request of that id; without effect when it is over. */
  | { readonly type: "cancel"; readonly id: number }
  /** Frees everything. */
  | { readonly type: "close"; readonly id: number };

/** From the engine. */
export type Reply =
  | { readonly type: "result"; readonly id: number; readonly value: unknown }
  | { readonly type: "events"; readonly all: readonly RequestEvents[] }
  | { readonly type: "error"; readonly id: number; readonly error: RemoteError }
  | { readonly type: "progress"; readonly progress: Progress }
  | { readonly type: "notice"; readonly text: string };
