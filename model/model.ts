/**
 * The model contract: one architecture's forward pass over `Ops`, and what it is loaded from. Types only.
 *
 * A model file never knows which cache it is given, nor how attention is computed: both meet in `Step.attend`.
 * Weight names are GGUF's canonical names (`blk.0.attn_q.weight`), whatever file they come from.
 *
 * @module
 */
import type { Shape, Tensor } from "../core/tensor.ts";
import type { LayerShape } from "../core/kv.ts";
import type { Ops } from "../backends/ops.ts";

/** Hyperparameters, already checked and normalized from GGUF metadata or config.json. */
export interface ModelConfig {
  /** Canonical architecture name: `llama`, `qwen2`, `qwen3`, `gemma3`. */
  readonly architecture: string;
  /** As the file calls it; for people. */
  readonly name: string;
  /** Ids are 0 … vocab − 1. */
  readonly vocab: number;
  /** Dimensions of the residual stream. */
  readonly width: number;
  /** Inner dimensions of the feed-forward layers. */
  readonly mlpWidth: number;
  /** Added to the mean square. */
  readonly normEpsilon: number;
  /** Tokens the model was trained for. */
  readonly contextLength: number;
  /** One entry a layer. */
  readonly layers: readonly LayerShape[];
}

/** One batch through the model: rows of all sequences, side by side. */
export interface Step {
  /** Kernels to compute with. */
  readonly ops: Ops;
  /** i32 [n] */
  readonly tokens: Tensor;
  /** i32 [n]: absolute positions. */
  readonly positions: Tensor;
  /** Appends k, v [n, kvHeads, headDim] (rotated) to layer `layer` of each row's sequence; attention of q [n, heads, headDim], same shape. */
  attend(layer: number, q: Tensor, k: Tensor, v: Tensor): Tensor;
  /** The rows whose logits are wanted: [n, width] → [rows, width]. */
  lastRows(x: Tensor): Tensor;
}

/** A loaded model. */
export interface Model {
  /** What it was made from. */
  readonly config: ModelConfig;
  /** Logits f32 [rows, vocab]. */
  forward(step: Step): Tensor;
}

/** Named tensors of a model file, put on the backend as they are asked for. */
export interface Weights {
  /** The load site documents the shape: throws when the file's differs. */
  get(name: string, shape: Shape): Tensor;
  /** Whether the file has a tensor of that name. */
  has(name: string): boolean;
}

/** One entry of the architecture registry. */
export interface Architecture {
  /** What `ModelConfig.architecture` may say for it. */
  readonly names: readonly string[];
  /** Asks for all weights it needs. */
  load(config: ModelConfig, weights: Weights): Model;
}

/** Turns ids into text, holding back bytes until they form whole UTF-8. */
export interface TokenDecoder {
  /** Text that this token completes, perhaps empty. */
  push(token: number): string;
  /** What was held back; incomplete sequences become U+FFFD. */
  flush(): string;
}

/** Text ↔ token ids. */
export interface Tokenizer {
  /** Ids are 0 … vocab − 1. */
  readonly vocab: number;
  /** Begins a text, where there is one. */
  readonly bos: number | undefined;
  /** Tokens that end a generation. */
  readonly eos: ReadonlySet<number>;
  /** Whether prompts start with `bos`. */
  readonly addBos: boolean;
  /**
   * Special tokens in `text` stay text unless `special` is true (templates need it). The ids begin with `bos` where `addBos` says
   * so, or `options.bos`.
   */
  encode(text: string, options?: { readonly special?: boolean; readonly bos?: boolean }): number[];
  /**
   * A decoder of one stream; special tokens give text only if `special` is true. With `start` the ids begin a text, so that the
   * space which some encoders put there is taken away again; without it they go on from one.
   */
  decoder(options?: { readonly special?: boolean; readonly start?: boolean }): TokenDecoder;
  /** Whether `token` steers the model and is no text. */
  isControl(token: number): boolean;
  /** One token's bytes, for logprobs and stop strings. */
  bytes(token: number): Uint8Array;
}

/** One turn of a conversation. */
export interface Message {
  /** Who speaks. */
  readonly role: "system" | "user" | "assistant" | "tool";
  /** What is said. */
  readonly content: string;
  /** Calls that an assistant's turn made, as templates expect them: arguments are values, not text. */
  readonly tool_calls?: readonly unknown[];
  /** Which call a tool's turn answers. */
  readonly tool_call_id?: string;
  /** Of the speaker, or of the tool. */
  readonly name?: string;
}

/** A conversation, and how it is rendered. */
export interface Conversation {
  /** Its turns, oldest first. */
  readonly messages: readonly Message[];
  /** End with the beginning of the assistant's turn. Default true, false with `continueFinalMessage`. */
  readonly addGenerationPrompt?: boolean;
  /** End within the last message, so that the model goes on with it. Default false. */
  readonly continueFinalMessage?: boolean;
  /** JSON schemas of functions that the model may call. */
  readonly tools?: readonly unknown[];
  /** More variables for the template, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}
