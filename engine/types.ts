/**
 * What callers of the engine say and hear. Types only; everything here can be posted between threads but functions.
 *
 * @module
 */
import type { BackendType } from "../backends/backend.ts";
import type { Conversation, ModelConfig } from "../model/model.ts";
import type { ContextUse, EngineContexts } from "./context_types.ts";
import type { RopeOverride } from "../model/rope_override.ts";
import type { IndexType } from "../index/index.ts";
import type { AttentionOptions, Policies } from "../attention/mod.ts";
import type { Looked, LookOptions } from "../attention/look.ts";
import type { Grammar } from "./grammar.ts";
import type { Prompt } from "./protocol.ts";
import type { StepTimes } from "../attention/step_clock.ts";
import type { PolicyStats } from "../attention/policy.ts";

/** How an engine is opened. */
export interface EngineOptions {
  /** A path, a folder, a name of `models list`, or `hf:user/repo:quant`. */
  readonly model: string;
  /** Backend spec, e.g. `cpu:threads=2` (default: `cpu`, or `reference` where it cannot be built). */
  readonly backend?: string;
  /** Tokens a sequence may hold; default: what the model was trained for. */
  readonly ctxSize?: number;
  /** Rotary embedding in place of the model's, to run past the length of its training. */
  readonly rope?: RopeOverride;
  /** Type of cached keys and values; default `f16`. */
  readonly kvType?: "f16" | "f32" | "i8";
  /** Most tokens of one prefill chunk; chunks shrink so that cancelling stays quick. Default 2048. */
  readonly batchSize?: number;
  /** Sequences that run at once; more wait. Default 4. */
  readonly parallel?: number;
  /** Attention method: a name of `presets` (default `kvasir`). */
  readonly preset?: string;
  /** Spec of an attention policy, in place of the preset's. */
  readonly policy?: string;
  /** Spec of an index, in place of the preset's. */
  readonly index?: string;
  /** Relative L2 error that retrieval aims at. */
  readonly error?: number;
  /** Keys per query head that retrieval takes instead. */
  readonly budget?: number;
  /**
   * Bytes of memory for sequences that have ended, so that a prompt which begins as one of them need not be read again; the
   * least recently used go first. Default 0: none stay, and prompts share nothing.
   */
  readonly contextRam?: number;
  /** Folder of saved contexts, absolute; absent: named contexts end with the engine. */
  readonly contextDir?: string;
  /** Bytes that the folder may hold: the least recently used go to make room. Default: no limit. */
  readonly contextDisk?: number;
  /**
   * Modules (paths or URLs) that export `backends`, `indexTypes` or `policies`, registered beside the built-in ones; they load
   * in the worker.
   */
  readonly plugins?: readonly string[];
  /** Backends as values. Functions cannot cross threads: with these the engine's loop runs on the caller's thread. */
  readonly backends?: Readonly<Record<string, BackendType>>;
  /** Index types as values, as `backends`. */
  readonly indexTypes?: Readonly<Record<string, IndexType>>;
  /** Attention policies as values, as `backends`. */
  readonly policies?: Policies;
  /** No network, ever. */
  readonly offline?: boolean;
  /** Hears of downloads, builds and loading. */
  readonly onProgress?: (progress: Progress) => void;
  /** One sentence that the user should read, e.g. why the reference backend was chosen. */
  readonly onNotice?: (text: string) => void;
  /** Aborting it gives up. */
  readonly signal?: AbortSignal;
}

/** One report of a long phase; `total` is 0 while unknown. */
export interface Progress {
  /** What is going on. */
  readonly phase: "download" | "build" | "load" | "prefill";
  /** Bytes, or tokens for prefill. */
  readonly done: number;
  /** In the unit of `done`. */
  readonly total: number;
  /** What exactly, for people. */
  readonly detail?: string;
}

/** How tokens are drawn and when generation ends. */
export interface Sampling {
  /** Default: until the context is full. */
  readonly maxTokens: number;
  /** End tokens are banned before. */
  readonly minTokens: number;
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** Keeps tokens whose surprise is near what is expected (Meister et al. 2023); 1 is off. */
  readonly typicalP: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly minP: number;
  /** 1 is off. */
  readonly repetitionPenalty: number;
  /** Subtracted from the logits of tokens that were drawn before. */
  readonly presencePenalty: number;
  /** The same, for each time. */
  readonly frequencyPenalty: number;
  /** Added to the logits of these ids. */
  readonly logitBias: Readonly<Record<number, number>>;
  /** Same seed, model, prompt and build give the same tokens; undefined draws one. */
  readonly seed: number | undefined;
  /** Generation ends before any of these; they are not returned. */
  readonly stop: readonly string[];
  /** Generation ends at any of these; their text is not returned. */
  readonly stopTokens: readonly number[];
  /** Bans the model's end tokens. */
  readonly ignoreEos: boolean;
  /** Undefined: none; 0: the chosen token's; k: also the k best (at most 20). From the raw softmax, before filters. */
  readonly logprobs: number | undefined;
}

/** One alternative at a position. */
export interface TokenLogprob {
  /** Its id. */
  readonly token: number;
  /** The bytes as text; U+FFFD where they are part of a character. */
  readonly text: string;
  /** What it stands for. */
  readonly bytes: readonly number[];
  /** In nats. */
  readonly logprob: number;
}

/** What `generate` yields. */
export type TokenEvent =
  | { readonly type: "prefill"; readonly done: number; readonly total: number }
  | {
    readonly type: "token";
    readonly token: number;
    /** Whole UTF-8, perhaps empty. */
    readonly text: string;
    readonly logprob?: TokenLogprob;
    readonly top?: readonly TokenLogprob[];
  }
  | {
    readonly type: "done";
    readonly reason: "stop" | "length" | "cancelled";
    /** The stop string or token id that ended it. */
    readonly stop?: string | number;
    readonly timings: Timings;
    readonly seed: number;
    /** What its decode queries looked at. */
    readonly attended?: AttendedStats;
    /** Where the time of its decode steps went, sums over those that were clocked: one in 64 at least, the second token's first. */
    readonly stepTimes?: StepTimes;
    /** Where exact attention lay, and each stretch's text; with `look`. */
    readonly looked?: Looked & { readonly texts: readonly string[] };
    /** Id of the context that it began with. */
    readonly beganWith?: string;
    /** Id of the context that it was saved as. */
    readonly savedAs?: string;
  };

/** What decode queries looked at, summed over queries and over the layers whose policy may leave something out. */
export interface AttendedStats extends PolicyStats {
  /** So many layers. */
  readonly layers: number;
}

/** Where the time of one generation went, in milliseconds. */
export interface Timings {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Of those, tokens that a context or running sequence had read before. */
  readonly cachedTokens: number;
  /** From its first step to the first token. */
  readonly promptMs: number;
  /** Tokens drawn, an end token included. */
  readonly predictedTokens: number;
  /** From the first token to the last. */
  readonly predictedMs: number;
  /** From the request to the first token. */
  readonly firstTokenMs: number;
  /** From the request to its first step, `tokenizeMs` and `restoreMs` included. */
  readonly queueMs: number;
  /** Rendering and encoding the prompt, and making the tree of the vocabulary where its grammar is the model's first. */
  readonly tokenizeMs: number;
  /** Finding and forking what it begins with, from a file if need be. */
  readonly restoreMs: number;
}

/** What is loaded. */
export interface EngineInfo {
  /** Hyperparameters. */
  readonly config: ModelConfig;
  /** Canonical spec. */
  readonly backend: string;
  /** Tokens a sequence may hold. */
  readonly ctxSize: number;
  /** Type of cached keys and values. */
  readonly kvType: string;
  /** Canonical spec of the attention policy. */
  readonly policy: string;
  /** Spec of the index that it asks. */
  readonly index: string;
  /** Numbers that the model learned. */
  readonly params: number;
  /** Live bytes of weights and caches. */
  readonly bytes: number;
  /** Path of the file or folder. */
  readonly file: string;
  /** Whether conversations can be rendered. */
  readonly chatTemplate: boolean;
}

/** Teacher-forced scoring of a text, for perplexity and fidelity. */
export interface EvaluateOptions {
  /** Tokens `from … n − 1` are scored; at least 1. */
  readonly from: number;
  /** `decode` runs the scored tokens one by one, `prefill` in chunks. */
  readonly mode: "prefill" | "decode";
  /** Appends rows to this file (docs/logits_file.md). */
  readonly saveLogits?: string;
  /** Compares with rows of this file from `klRow` on. */
  readonly klBase?: string;
  /** Default 0. */
  readonly klRow?: number;
  /** Names the scored tokens, and so many of the likeliest at each place, 0 to 20. */
  readonly top?: number;
  /** How it attends, in place of what the engine was opened with. */
  readonly attention?: AttentionOptions;
  /** Begins with what a kept context of this way to attend has of the tokens that are not scored. Default: all are read anew. */
  readonly cachePrompt?: boolean;
  /** Aborting it gives up. */
  readonly signal?: AbortSignal;
}

/** One entry a scored token. */
export interface Evaluation {
  /** Tokens that a kept context had; see {@link EvaluateOptions.cachePrompt}. */
  readonly cachedTokens: number;
  /** Of the token that came, in nats. */
  readonly logprobs: Float32Array;
  /** The scored tokens themselves, and the likeliest at their places, best first; with `top`. */
  readonly tokens?: readonly { readonly logprob: TokenLogprob; readonly top: readonly TokenLogprob[] }[];
  /** KL divergence of the base's distribution from ours, in nats. */
  readonly kl?: Float32Array;
  /** 1 where the best token equals the base's. */
  readonly sameTop?: Uint8Array;
  /** What the scored queries looked at; with mode `decode`. */
  readonly attended?: AttendedStats;
}

/** How one generation differs from the engine's defaults. */
export interface GenerateOptions extends Partial<Sampling>, ContextUse {
  /** Compares some decode steps with exact attention, and notes where that lay. */
  readonly look?: LookOptions;
  /** What its text must look like. */
  readonly grammar?: Grammar;
  /** How it attends, in place of what the engine was opened with. */
  readonly attention?: AttentionOptions;
  /** Aborting it ends the generation. */
  readonly signal?: AbortSignal;
}

/** The façade's surface; the body is `Engine` in engine.ts. */
export interface EngineLike extends AsyncDisposable {
  /** What is loaded. */
  info(): Promise<EngineInfo>;
  /** Continues a text, a conversation or ids. */
  generate(
    prompt: Prompt,
    options?: GenerateOptions,
  ): AsyncIterable<TokenEvent>;
  /** The same, all that has come so far in one piece. */
  generateBatches(prompt: Prompt, options?: GenerateOptions): AsyncIterable<readonly TokenEvent[]>;
  /** Sequences that stay. */
  readonly contexts: EngineContexts;
  /** Scores a text. */
  evaluate(tokens: Int32Array, options: EvaluateOptions): Promise<Evaluation>;
  /** Ids of a text. */
  tokenize(text: string, options?: { readonly special?: boolean; readonly bos?: boolean }): Promise<Int32Array>;
  /** The ids that a generation would begin with. */
  encode(prompt: Prompt): Promise<Int32Array>;
  /** A conversation as the model's template writes it. */
  render(conversation: Conversation): Promise<string>;
  /** The text of ids. */
  detokenize(tokens: Int32Array): Promise<string>;
}
