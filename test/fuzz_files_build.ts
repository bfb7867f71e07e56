/**
 * Small, valid model files to test and to damage: a GGUF file as a list of its fields, a safetensors file, and the JSON of
 * a model folder.
 *
 * @module
 */
import { byteLength } from "../core/dtype.ts";
import type { DType, Shape } from "../core/tensor.ts";
import { GGUF_DTYPES, GGUF_VALUE as V } from "../model/gguf_types.ts";

/** One field of a binary file: what mutations pick. */
export type Field =
  | { readonly kind: "u8" | "u32"; readonly value: number }
  | { readonly kind: "f32"; readonly value: number }
  | { readonly kind: "u64"; readonly value: bigint }
  | { readonly kind: "string"; readonly value: Uint8Array<ArrayBuffer> }
  | { readonly kind: "bytes"; readonly value: Uint8Array<ArrayBuffer> }
  /** Zeros up to a multiple of `value`. */
  | { readonly kind: "align"; readonly value: number };

/** A metadata value as it is written. */
export type Value =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly u64: bigint }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly f32s: readonly number[] }
  | { readonly u32s: readonly number[] };

/** A tensor as it is written. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  /** Outermost first. */
  readonly shape: Shape;
  /** Default: zeros. */
  readonly data?: Uint8Array<ArrayBuffer>;
}

const utf8 = new TextEncoder();
const u8 = (value: number): Field => ({ kind: "u8", value });
const u32 = (value: number): Field => ({ kind: "u32", value });
const u64 = (value: number | bigint): Field => ({ kind: "u64", value: BigInt(value) });
const text = (value: string): Field => ({ kind: "string", value: utf8.encode(value) });

/** The fields of a GGUF file. */
export function ggufFields(
  metadata: readonly (readonly [string, Value])[],
  tensors: readonly TensorSpec[],
  version = 3,
): Field[] {
  const out: Field[] = [u32(0x46554747), u32(version), u64(tensors.length), u64(metadata.length)];
  for (const [key, value] of metadata) out.push(text(key), ...valueFields(value));
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    out.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(typeNumber(dtype)), u64(offset));
    offset = Math.ceil((offset + byteLength(shape, dtype)) / 32) * 32;
  }
  for (const { dtype, shape, data } of tensors) {
    out.push({ kind: "align", value: 32 });
    out.push({ kind: "bytes", value: data ?? new Uint8Array(byteLength(shape, dtype)) });
  }
  return out;
}

function valueFields(value: Value): Field[] {
  if ("u32" in value) return [u32(V.U32), u32(value.u32)];
  if ("f32" in value) return [u32(V.F32), { kind: "f32", value: value.f32 }];
  if ("u64" in value) return [u32(V.U64), u64(value.u64)];
  if ("bool" in value) return [u32(V.BOOL), u8(value.bool ? 1 : 0)];
  if ("text" in value) return [u32(V.STRING), text(value.text)];
  if ("texts" in value) return [u32(V.ARRAY), u32(V.STRING), u64(value.texts.length), ...value.texts.map(text)];
  if ("f32s" in value) {
    return [
      u32(V.ARRAY),
      u32(V.F32),
      u64(value.f32s.length),
      ...value.f32s.map((f): Field => ({ kind: "f32", value: f })),
    ];
  }
  return [u32(V.ARRAY), u32(V.U32), u64(value.u32s.length), ...value.u32s.map(u32)];
}

function typeNumber(dtype: DType): number {
  return Number(Object.entries(GGUF_DTYPES).find(([, name]) => name === dtype)?.[0]);
}

/** The bytes of fields, one after the other. */
export function serialize(fields: readonly Field[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const push = (bytes: Uint8Array) => {
    parts.push(bytes);
    length += bytes.length;
  };
  for (const field of fields) {
    const view = new DataView(new ArrayBuffer(8));
    switch (field.kind) {
      case "u8":
        push(new Uint8Array([field.value]));
        break;
      case "u32":
        view.setUint32(0, field.value, true);
        push(new Uint8Array(view.buffer, 0, 4));
        break;
      case "f32":
        view.setFloat32(0, field.value, true);
        push(new Uint8Array(view.buffer, 0, 4));
        break;
      case "u64":
        view.setBigUint64(0, BigInt.asUintN(64, field.value), true);
        push(new Uint8Array(view.buffer));
        break;
      case "string":
        view.setBigUint64(0, BigInt(field.value.length), true);
        push(new Uint8Array(view.buffer));
        push(field.value);
        break;
      case "bytes":
        push(field.value);
        break;
      case "align":
        push(new Uint8Array((field.value - length % field.value) % field.value));
    }
  }
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** A safetensors file of a header and as much data as it describes. */
export function safetensorsBytes(header: unknown, dataBytes: number): Uint8Array<ArrayBuffer> {
  const json = utf8.encode(JSON.stringify(header));
  return serialize([u64(json.length), { kind: "bytes", value: json }, {
    kind: "bytes",
    value: new Uint8Array(dataBytes),
  }]);
}

/** Shapes of the smallest model that has everything: 4 wide, 1 layer, 2 heads, a vocabulary of 6. */
export const TINY = { width: 4, mlpWidth: 4, heads: 2, kvHeads: 1, headDim: 2, vocab: 6 } as const;

/** Metadata of a tiny llama with a byte-pair vocabulary. */
export function tinyMetadata(): [string, Value][] {
  return [
    ["general.architecture", { text: "llama" }],
    ["general.name", { text: "tiny" }],
    ["llama.block_count", { u32: 1 }],
    ["llama.context_length", { u32: 32 }],
    ["llama.embedding_length", { u32: TINY.width }],
    ["llama.feed_forward_length", { u32: TINY.mlpWidth }],
    ["llama.attention.head_count", { u32: TINY.heads }],
    ["llama.attention.head_count_kv", { u32: TINY.kvHeads }],
    ["llama.attention.layer_norm_rms_epsilon", { f32: 1e-5 }],
    ["llama.rope.freq_base", { f32: 10000 }],
    ["llama.rope.dimension_count", { u32: TINY.headDim }],
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.pre", { text: "smollm" }],
    ["tokenizer.ggml.tokens", { texts: ["<s>", "</s>", "a", "b", "ab", "Ġ"] }],
    ["tokenizer.ggml.token_type", { u32s: [3, 3, 1, 1, 1, 1] }],
    ["tokenizer.ggml.merges", { texts: ["a b"] }],
    ["tokenizer.ggml.bos_token_id", { u32: 0 }],
    ["tokenizer.ggml.eos_token_id", { u32: 1 }],
    ["tokenizer.ggml.add_bos_token", { bool: true }],
    ["tokenizer.chat_template", { text: "{{ messages[0].content }}" }],
  ];
}

/** The same tiny model with a unigram (SentencePiece) vocabulary, and keys of further types. */
export function tinySentencePiece(): [string, Value][] {
  const others = tinyMetadata().filter(([key]) => !/tokenizer/.test(key));
  return [
    ...others,
    ["llama.rope.scaling.type", { text: "yarn" }],
    ["llama.rope.scaling.factor", { f32: 4 }],
    ["llama.rope.scaling.original_context_length", { u32: 8 }],
    ["general.sampling.temp", { f32: 0.7 }],
    ["general.file_size", { u64: 12n }],
    ["tokenizer.ggml.model", { text: "llama" }],
    ["tokenizer.ggml.tokens", { texts: ["<unk>", "<s>", "</s>", "▁", "a", "▁a"] }],
    ["tokenizer.ggml.scores", { f32s: [0, 0, 0, -1, -2, -3] }],
    ["tokenizer.ggml.token_type", { u32s: [2, 3, 3, 1, 1, 1] }],
    ["tokenizer.ggml.bos_token_id", { u32: 1 }],
    ["tokenizer.ggml.eos_token_id", { u32: 2 }],
    ["tokenizer.ggml.unknown_token_id", { u32: 0 }],
  ];
}

/** Weights of the tiny model under canonical names. */
export function tinyTensors(): TensorSpec[] {
  const { width, mlpWidth, heads, kvHeads, headDim, vocab } = TINY;
  const f32 = (name: string, ...shape: number[]): TensorSpec => ({ name, dtype: "f32", shape });
  return [
    f32("token_embd.weight", vocab, width),
    f32("output_norm.weight", width),
    f32("blk.0.attn_norm.weight", width),
    f32("blk.0.attn_q.weight", heads * headDim, width),
    f32("blk.0.attn_k.weight", kvHeads * headDim, width),
    f32("blk.0.attn_v.weight", kvHeads * headDim, width),
    f32("blk.0.attn_output.weight", width, heads * headDim),
    f32("blk.0.ffn_norm.weight", width),
    { name: "blk.0.ffn_gate.weight", dtype: "f16", shape: [mlpWidth, width] },
    { name: "blk.0.ffn_up.weight", dtype: "bf16", shape: [mlpWidth, width] },
    f32("blk.0.ffn_down.weight", width, mlpWidth),
  ];
}

/** Names that `transformers` gives to the same weights, and its header's entries for them. */
export function tinyHfHeader(): { header: Record<string, unknown>; dataBytes: number } {
  const names: Readonly<Record<string, string>> = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
  };
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let at = 0;
  for (const { name, dtype, shape } of tinyTensors()) {
    const end = at + byteLength(shape, dtype);
    header[names[name] as string] = { dtype: dtype.toUpperCase(), shape, data_offsets: [at, end] };
    at = end;
  }
  return { header, dataBytes: at };
}

/** config.json of the tiny model. */
export function tinyConfig(): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: TINY.width,
    intermediate_size: TINY.mlpWidth,
    num_hidden_layers: 1,
    num_attention_heads: TINY.heads,
    num_key_value_heads: TINY.kvHeads,
    max_position_embeddings: 32,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8,
    },
    tie_word_embeddings: true,
    vocab_size: TINY.vocab,
    torch_dtype: "float32",
  };
}

/** config.json of a tiny gemma3, as part of a model that also sees. */
export function tinyGemmaConfig(): Record<string, unknown> {
  return {
    model_type: "gemma3",
    text_config: {
      model_type: "gemma3_text",
      hidden_activation: "gelu_pytorch_tanh",
      hidden_size: 8,
      intermediate_size: 8,
      num_hidden_layers: 3,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      vocab_size: 6,
      max_position_embeddings: 64,
      query_pre_attn_scalar: 4,
      sliding_window: 8,
      sliding_window_pattern: 3,
      layer_types: ["sliding_attention", "sliding_attention", "full_attention"],
      rope_theta: 1000000,
      rope_local_base_freq: 10000,
      rope_scaling: { rope_type: "linear", factor: 8 },
    },
  };
}

/** tokenizer.json of a byte-level vocabulary. */
export function tinyTokenizer(): Record<string, unknown> {
  return {
    version: "1.0",
    added_tokens: [
      { id: 0, content: "<s>", special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
      { id: 1, content: "</s>", special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
    ],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel" },
    model: {
      type: "BPE",
      unk_token: "<s>",
      vocab: { "<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, "Ġ": 5 },
      merges: ["a b"],
    },
  };
}

/** tokenizer_config.json to go with it. */
export function tinyTokenizerConfig(): Record<string, unknown> {
  return {
    add_bos_token: true,
    bos_token: "<s>",
    eos_token: { content: "</s>" },
    chat_template: "{{ messages[0].content }}",
    tokenizer_class: "GPT2Tokenizer",
  };
}
