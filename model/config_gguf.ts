/**
 * GGUF metadata → {@link ModelConfig}.
 *
 * @module
 */
import { type ArchitectureName, ARCHITECTURES, buildConfig, defaultHeadDim } from "./config_build.ts";
import { Fields, LIMITS } from "./config_fields.ts";
import type { GgufFile } from "./gguf.ts";
import type { ModelConfig } from "./model.ts";
import { badFile, isList, quoted, type TensorEntry } from "./open_source.ts";
import type { RopeScaling } from "./rope.ts";
import type { RopeOverride } from "./rope_override.ts";

/** Reads and checks the hyperparameters of a GGUF model; throws `ModelFileError` naming the key and its value. */
export function fromGguf(file: GgufFile, rope?: RopeOverride): ModelConfig {
  const path = file.paths[0] as string;
  const lookup = (key: string) => file.metadata.get(key);
  const general = new Fields(path, lookup, "general.");
  const architecture = architectureOf(general);
  const f = new Fields(path, lookup, `${architecture}.`);
  refuseVariants(f);

  const layers = f.int("block_count", LIMITS.layers);
  const width = f.int("embedding_length", LIMITS.width);
  const heads = f.intPerLayer("attention.head_count", layers, LIMITS.heads);
  const firstHeads = heads[0] as number;
  const headDim = f.has("attention.key_length")
    ? f.int("attention.key_length", LIMITS.headDim)
    : defaultHeadDim(f, width, firstHeads, "attention.key_length");
  const valueDim = f.int("attention.value_length", LIMITS.headDim, headDim);
  if (valueDim !== headDim) {
    throw badFile(path, `values of ${valueDim} and keys of ${headDim} dimensions, equal needed`);
  }
  const contextLength = f.int("context_length", LIMITS.context);
  const gemma = architecture === "gemma3";
  const base = f.positive("rope.freq_base", gemma ? undefined : 10000);
  const dims = f.int("rope.dimension_count", LIMITS.headDim, headDim);
  const scaling = ropeScaling(file, f, path, dims, contextLength);
  const softcap = f.has("attn_logit_softcapping") ? f.positive("attn_logit_softcapping") : undefined;
  const window = f.has("attention.sliding_window")
    ? f.int("attention.sliding_window", { min: 0, max: LIMITS.context.max })
    : 0;
  return buildConfig({
    path,
    architecture,
    name: general.text("name", path.replace(/^.*\//, "")),
    vocab: vocabOf(file, path, f.int("vocab_size", LIMITS.vocab, 0)),
    width,
    mlpWidth: f.int("feed_forward_length", LIMITS.mlpWidth),
    normEpsilon: f.positive("attention.layer_norm_rms_epsilon"),
    contextLength,
    heads,
    kvHeads: f.intPerLayer("attention.head_count_kv", layers, LIMITS.heads, heads),
    headDim,
    scale: f.has("attention.scale")
      ? f.positive("attention.scale")
      : scaleOf(architecture, layers, width, firstHeads, headDim),
    softcap,
    slidingWindow: window > 0 ? window : undefined,
    sliding: slidingLayers(f, layers, gemma ? 6 : 1),
    // Converters permute the rows of llama's query and key matrices so that pairs become neighbours.
    pairing: architecture === "llama" ? "neighbours" : "halves",
    rope: { base, dims, ...(scaling === undefined ? {} : { scaling }) },
    localRope: gemma ? { base: f.positive("rope.freq_base_swa", 10000), dims } : undefined,
  }, rope);
}

function architectureOf(general: Fields): ArchitectureName {
  const name = general.text("architecture");
  const known = ARCHITECTURES.find((a) => a === name);
  if (known === undefined) throw general.bad("architecture", `supported are ${ARCHITECTURES.join(", ")}`);
  return known;
}

/** Keys that change the arithmetic in ways these architectures do not have. */
function refuseVariants(f: Fields): void {
  for (const name of ["expert_count", "final_logit_softcapping", "logit_scale", "attention.max_alibi_bias"]) {
    if (f.has(name) && f.raw(name) !== 0) throw f.bad(name, "which is not supported");
  }
}

/** Rows of the embedding table; checked against what the metadata says. */
function vocabOf(file: GgufFile, path: string, declared: number): number {
  const table = file.tensors.get("token_embd.weight");
  if (table === undefined) throw badFile(path, 'tensor "token_embd.weight" is missing');
  const rows = table.shape[0] as number;
  if (table.shape.length !== 2 || rows > LIMITS.vocab.max) {
    throw badFile(path, `tensor "token_embd.weight" has shape [${table.shape.join(", ")}], two dimensions needed`);
  }
  if (declared !== 0 && declared !== rows) {
    throw badFile(path, `vocab_size is ${declared}, but tensor "token_embd.weight" has ${rows} rows`);
  }
  return rows;
}

/**
 * Factor on the logits. Gemma 3's files do not say theirs: it is `1/sqrt(headDim)` for every size but 27B (62 layers),
 * whose `query_pre_attn_scalar` is `width / heads`.
 */
function scaleOf(architecture: string, layers: number, width: number, heads: number, headDim: number): number {
  return 1 / Math.sqrt(architecture === "gemma3" && layers === 62 ? width / heads : headDim);
}

/** Which layers slide: all, or by a period (every `n`-th is global), or as the file lists them. */
function slidingLayers(f: Fields, layers: number, period: number): (layer: number) => boolean {
  const name = "attention.sliding_window_pattern";
  const value = f.raw(name);
  if (isList(value)) {
    if (value.length !== layers) throw f.bad(name, `${layers} entries needed, one a layer`);
    return (layer) => Boolean(value[layer]);
  }
  const n = f.int(name, LIMITS.layers, period);
  return (layer) => n === 1 || layer % n !== n - 1;
}

function ropeScaling(file: GgufFile, f: Fields, path: string, dims: number, context: number): RopeScaling | undefined {
  const factors = file.tensors.get("rope_freqs.weight");
  if (factors !== undefined) return { type: "factors", factors: readFactors(factors, dims, path) };
  // Old files have `rope.scale_linear` alone.
  const type = f.text("rope.scaling.type", f.has("rope.scale_linear") ? "linear" : "none");
  switch (type) {
    case "none":
      return undefined;
    case "linear": {
      const factor = f.positive(f.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear");
      return factor === 1 ? undefined : { type, factor };
    }
    case "yarn": {
      const attention = f.has("rope.scaling.attn_factor") ? f.positive("rope.scaling.attn_factor") : 1;
      const factor = f.positive("rope.scaling.factor");
      return {
        type,
        factor,
        originalContext: f.int("rope.scaling.original_context_length", LIMITS.context, context),
        betaFast: f.positive("rope.scaling.yarn_beta_fast", 32),
        betaSlow: f.positive("rope.scaling.yarn_beta_slow", 1),
        // GGUF's factor comes on top of the paper's.
        attentionFactor: attention * (factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1),
      };
    }
    default:
      throw f.bad("rope.scaling.type", "supported are none, linear, yarn");
  }
}

function readFactors(entry: TensorEntry, dims: number, path: string): Float64Array {
  if (entry.dtype !== "f32" || entry.shape.length !== 1 || entry.shape[0] !== dims / 2) {
    throw badFile(
      path,
      `tensor ${quoted("rope_freqs.weight")} is ${entry.dtype} [${entry.shape.join(", ")}], f32 [${dims / 2}] needed`,
    );
  }
  const bytes = new Uint8Array(entry.bytes);
  entry.source.readAt(entry.offset, bytes);
  return Float64Array.from(new Float32Array(bytes.buffer));
}
