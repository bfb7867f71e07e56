/**
 * What the caller's thread and the engine's thread say to each other. Types only; all of it can be posted.
 *
 * Every request with an answer has an id of its own. `generate` is answered by `events` until one of type `done`, the
 * others by one `result`; either may be answered by an `error` instead.
 *
 * @module
 */
import type { Conversation, Message } from "../model/model.ts";
import type { EngineOptions, EvaluateOptions, Progress, Sampling } from "./types.ts";
import type { AttentionOptions } from "../attention/mod.ts";
import type { Grammar } from "./grammar.ts";
import type { RequestEvents } from "./outbox.ts";
import type { RemoteError } from "./remote_error.ts";

/** Options of `open` that can be posted. */
export type OpenOptions = Omit<EngineOptions, "backends" | "indexTypes" | "onProgress" | "onNotice" | "signal">;

/** What a caller may give as a prompt. */
export type Prompt = string | readonly Message[] | Conversation | Int32Array;

/** From the caller. */
export type Request =
  | { readonly type: "open"; readonly id: number; readonly options: OpenOptions }
  | { readonly type: "info"; readonly id: number }
  | {
    readonly type: "generate";
    readonly id: number;
    readonly prompt: Prompt;
    readonly sampling: Partial<Sampling>;
    /** What the text must look like. */
    readonly grammar?: Grammar;
    /** In place of the engine's. */
    readonly attention?: AttentionOptions;
  }
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
