/**
 * config.json of Hugging Face's `transformers` → {@link ModelConfig}. Missing fields take that library's defaults.
 *
 * @module
 */
import { type ArchitectureName, buildConfig, defaultHeadDim } from "./config_build.ts";
import { Fields, LIMITS } from "./config_fields.ts";
import type { ModelConfig } from "./model.ts";
import { badFile, isList } from "./open_source.ts";
import type { RopeOptions, RopeScaling } from "./rope.ts";
import type { RopeOverride } from "./rope_override.ts";

type Json = Readonly<Record<string, unknown>>;

const MODEL_TYPES: Readonly<Record<string, ArchitectureName>> = {
  llama: "llama",
  mistral: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
  gemma3_text: "gemma3",
  gemma3: "gemma3",
};

/** Defaults of `Gemma3TextConfig`: published files of the larger models rely on them. */
const GEMMA3_DEFAULTS: Json = {
  vocab_size: 262208,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 131072,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  rope_theta: 1e6,
  hidden_activation: "gelu_pytorch_tanh",
};

/** A configuration, and whether the output matrix is the embedding table. */
export interface HfConfig {
  /** The canonical configuration. */
  readonly config: ModelConfig;
  /** Whether the output matrix is the embedding table. */
  readonly tied: boolean;
}

/** Checks `json`, the parsed config.json at `path`; throws `ModelFileError` naming the field and its value. */
export function fromHf(json: unknown, path: string, rope?: RopeOverride): HfConfig {
  const outer = asObject(json, path);
  const type = new Fields(path, (name) => outer[name]).text("model_type");
  const architecture = MODEL_TYPES[type];
  if (architecture === undefined || !Object.hasOwn(MODEL_TYPES, type)) {
    throw new Fields(path, (name) => outer[name]).bad(
      "model_type",
      `supported are ${Object.keys(MODEL_TYPES).join(", ")}`,
    );
  }
  const gemma = architecture === "gemma3";
  const inner = type === "gemma3" ? asObject(outer["text_config"], path, "text_config") : outer;
  const merged: Json = gemma ? { ...GEMMA3_DEFAULTS, ...inner } : inner;
  const f = new Fields(path, (name) => Object.hasOwn(merged, name) ? merged[name] : undefined);
  refuseVariants(f, gemma);

  const layers = f.int("num_hidden_layers", LIMITS.layers);
  const width = f.int("hidden_size", LIMITS.width);
  const heads = f.int("num_attention_heads", LIMITS.heads);
  const headDim = f.has("head_dim")
    ? f.int("head_dim", LIMITS.headDim)
    : architecture === "qwen3"
    ? 128
    : defaultHeadDim(f, width, heads, "head_dim");
  const contextLength = f.int("max_position_embeddings", LIMITS.context);
  const ropes = readRopes(f, headDim, contextLength, path);
  const sliding = readSliding(f, type, layers);
  const config = buildConfig({
    path,
    architecture,
    name: f.text("_name_or_path", "") || path.split("/").at(-2) || type,
    vocab: f.int("vocab_size", LIMITS.vocab),
    width,
    mlpWidth: f.int("intermediate_size", LIMITS.mlpWidth),
    normEpsilon: f.positive("rms_norm_eps", 1e-6),
    contextLength,
    heads: new Array<number>(layers).fill(heads),
    kvHeads: new Array<number>(layers).fill(f.int("num_key_value_heads", LIMITS.heads, heads)),
    headDim,
    scale: 1 / Math.sqrt(gemma ? f.positive("query_pre_attn_scalar") : headDim),
    softcap: f.has("attn_logit_softcapping") ? f.positive("attn_logit_softcapping") : undefined,
    slidingWindow: sliding.window,
    sliding: sliding.of,
    pairing: "halves",
    rope: ropes.global,
    localRope: gemma ? ropes.local : undefined,
  }, rope);
  const tied = new Fields(path, (name) => inner[name] ?? outer[name]).flag("tie_word_embeddings", gemma);
  return { config, tied };
}

function asObject(value: unknown, path: string, name?: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw badFile(path, `${name ?? "the file"} is no JSON object`);
}

/** Settings that change the arithmetic in ways these architectures do not have. */
function refuseVariants(f: Fields, gemma: boolean): void {
  const activation = f.has("hidden_activation") && gemma ? "hidden_activation" : "hidden_act";
  const wanted = gemma ? "gelu_pytorch_tanh" : "silu";
  if (f.text(activation, wanted) !== wanted) throw f.bad(activation, `${wanted} needed`);
  for (const name of ["num_local_experts", "final_logit_softcapping", "quantization_config"]) {
    if (f.has(name)) throw f.bad(name, "which is not supported");
  }
  for (const name of ["mlp_bias", "use_bidirectional_attention"]) {
    if (f.flag(name, false)) throw f.bad(name, "which is not supported");
  }
}

/** Which layers slide over which window. */
function readSliding(f: Fields, type: string, layers: number) {
  const window = f.has("sliding_window") ? f.int("sliding_window", LIMITS.context) : undefined;
  const full = { window: undefined, of: () => false };
  switch (type) {
    case "mistral":
      return { window, of: () => true };
    case "llama":
      return full;
    case "qwen2":
    case "qwen3": {
      if (!f.flag("use_sliding_window", false)) return full;
      const from = f.int("max_window_layers", { min: 0, max: LIMITS.layers.max }, 28);
      return { window, of: byType(f, layers) ?? ((layer: number) => layer >= from) };
    }
    default: {
      const period = f.int("sliding_window_pattern", LIMITS.layers, f.int("_sliding_window_pattern", LIMITS.layers, 6));
      return { window, of: byType(f, layers) ?? ((layer: number) => (layer + 1) % period !== 0) };
    }
  }
}

/** `layer_types`, where there is one. */
function byType(f: Fields, layers: number): ((layer: number) => boolean) | undefined {
  const types = f.raw("layer_types") ?? undefined;
  if (types === undefined) return undefined;
  if (!isList(types) || types.length !== layers) throw f.bad("layer_types", `${layers} entries needed, one a layer`);
  const slides = Array.from(types, (type) => {
    if (type === "sliding_attention") return true;
    if (type === "full_attention") return false;
    throw f.bad("layer_types", "entries full_attention and sliding_attention are supported");
  });
  return (layer) => slides[layer] as boolean;
}

/** Both generations of the format: `rope_theta` with `rope_scaling`, and `rope_parameters` (for gemma3, by layer type). */
function readRopes(f: Fields, headDim: number, context: number, path: string) {
  const parameters = f.has("rope_parameters") ? asObject(f.raw("rope_parameters"), path, "rope_parameters") : {};
  const theta = f.positive("rope_theta", 10000);
  const localTheta = f.positive("rope_local_base_freq", 10000);
  const old = f.has("rope_scaling") ? asObject(f.raw("rope_scaling"), path, "rope_scaling") : undefined;
  const globalPart = "full_attention" in parameters
    ? asObject(parameters["full_attention"], path, "rope_parameters.full_attention")
    : parameters;
  const localPart = "sliding_attention" in parameters
    ? asObject(parameters["sliding_attention"], path, "rope_parameters.sliding_attention")
    : {};
  return {
    global: readRope(f, old === undefined ? globalPart : { ...globalPart, ...old }, theta, headDim, context),
    local: readRope(f, localPart, localTheta, headDim, context),
  };
}

function readRope(outer: Fields, part: Json, theta: number, headDim: number, context: number): RopeOptions {
  const f = new Fields(outer.path, (name) => Object.hasOwn(part, name) ? part[name] : undefined);
  const base = f.positive("rope_theta", theta);
  const partial = f.positive("partial_rotary_factor", outer.positive("partial_rotary_factor", 1));
  const dims = Math.trunc(headDim * Math.min(1, partial));
  const scaling = readScaling(f, context);
  return { base, dims, ...(scaling === undefined ? {} : { scaling }) };
}

function readScaling(f: Fields, context: number): RopeScaling | undefined {
  const name = f.has("rope_type") ? "rope_type" : "type";
  const type = f.text(name, "default");
  switch (type) {
    case "default":
      return undefined;
    case "linear":
      return { type, factor: f.positive("factor") };
    case "llama3":
      return {
        type,
        factor: f.positive("factor"),
        lowFreqFactor: f.positive("low_freq_factor"),
        highFreqFactor: f.positive("high_freq_factor"),
        originalContext: f.int("original_max_position_embeddings", LIMITS.context),
      };
    case "yarn": {
      if (!f.flag("truncate", true)) throw f.bad("truncate", "which is not supported");
      if (f.has("mscale_all_dim")) throw f.bad("mscale_all_dim", "which is not supported");
      const originalContext = f.int("original_max_position_embeddings", LIMITS.context, context);
      return {
        type,
        factor: f.positive("factor", context / originalContext),
        originalContext,
        betaFast: f.positive("beta_fast", 32),
        betaSlow: f.positive("beta_slow", 1),
        ...(f.has("attention_factor") ? { attentionFactor: f.positive("attention_factor") } : {}),
      };
    }
    default:
      throw f.bad(name, "supported are default, linear, llama3, yarn");
  }
}
