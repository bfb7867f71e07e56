/**
 * A random Llama of a few kilobytes with a byte tokenizer, for tests of the engine: quick on the slowest backend.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { Shape, Tensor } from "../core/tensor.ts";
import type { Conversation, Tokenizer } from "../model/model.ts";
import type { Loader } from "./loaded.ts";
import { openBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { uniform } from "./sampler.ts";

/** Tokens 32 … 126 are ASCII, 0 ends a generation, 1 to 4 are the bytes of "😀". */
export const TINY_VOCAB = 127;
const EMOJI = new TextEncoder().encode("😀");
const WIDTH = 32;
const SHAPE = { heads: 4, kvHeads: 2, headDim: 8, scale: 8 ** -0.5 };

/** Weights drawn from `seed`, of the names and shapes asked for. */
function weights(backend: Backend, seed: number) {
  let count = 0;
  const made: Tensor[] = [];
  return {
    made,
    has: (name: string) => name !== "output.weight",
    get(name: string, shape: Shape): Tensor {
      const size = shape.reduce((a, b) => a * b, 1);
      // Norms near one; matrices large enough that the text does not settle on one token.
      const norm = name.includes("norm");
      const values = Float32Array.from({ length: size }, () => {
        const u = uniform(seed, count++) - 0.5;
        return norm ? 1 + u / 4 : 4 * u / Math.sqrt(shape[1] ?? 1);
      });
      const tensor = backend.alloc(shape, "f32", "model");
      backend.write(tensor, values);
      made.push(tensor);
      return tensor;
    },
  };
}

/** Every byte a token. */
export const tinyTokenizer: Tokenizer = {
  vocab: TINY_VOCAB,
  bos: undefined,
  eos: new Set([0]),
  addBos: false,
  encode: (text) => [...new TextEncoder().encode(text)].map((b) => EMOJI.includes(b) ? 1 + EMOJI.indexOf(b) : b),
  decoder() {
    const decoder = new TextDecoder();
    return {
      push: (token) => decoder.decode(tinyTokenizer.bytes(token), { stream: true }),
      flush: () => decoder.decode(),
    };
  },
  isControl: (token) => token === 0,
  bytes: (token) => token >= 1 && token <= 4 ? EMOJI.slice(token - 1, token) : Uint8Array.of(token),
};

/** One line a turn. */
function render({ messages, continueFinalMessage }: Conversation): string {
  const text = messages.map((m) => `${m.role}: ${m.content}\n`).join("");
  return continueFinalMessage ? text.slice(0, -1) : text;
}

/** What a test may want to change or look at. */
export interface TinyOptions {
  /** Of the weights; default 1. */
  readonly seed?: number;
  /** Default 600. */
  readonly contextLength?: number;
  /** Sees the backend once it is open, and may change it. */
  readonly onBackend?: (backend: Backend) => void;
}

/** Loads the tiny model, whatever the options name. */
export function tinyLoader({ seed = 1, contextLength = 600, onBackend }: TinyOptions = {}): Loader {
  return (options, hooks) => {
    const backend = openBackend(options.backend ?? "reference", hooks.backends);
    onBackend?.(backend);
    const rope = {
      frequencies: Float64Array.from([1, 0.1, 0.01, 0.001]),
      dims: 8,
      pairing: "halves",
      magnitude: 1,
    } as const;
    const config = {
      architecture: "llama",
      name: "tiny",
      vocab: TINY_VOCAB,
      width: WIDTH,
      mlpWidth: 48,
      normEpsilon: 1e-5,
      contextLength,
      layers: [{ ...SHAPE, rope }, { ...SHAPE, rope }],
    };
    const drawn = weights(backend, seed);
    const model = loadModel(config, drawn);
    return Promise.resolve({
      model,
      backend,
      tokenizer: tinyTokenizer,
      sampling: {},
      numParams: drawn.made.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
      file: "tiny",
      identify: () => ({ model: `tiny-${seed}`, tokenizer: "bytes" }),
      chatTemplate: true,
      encodeChat: (conversation) => Promise.resolve(tinyTokenizer.encode(render(conversation))),
      renderChat: (conversation) => Promise.resolve(render(conversation)),
      [Symbol.dispose]: () => backend[Symbol.dispose](),
    });
  };
}
