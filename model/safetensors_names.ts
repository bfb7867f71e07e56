/**
 * Names that `transformers` gives to weights → GGUF's canonical names.
 *
 * @module
 */

/** What to do with one tensor of the file. */
export interface NameMapping {
  /** Canonical, or the file's own name when it is unknown: loading then reports it. */
  readonly name: string;
  /** Gemma's norms are stored as `w` and used as `1 + w`. */
  readonly addOne: boolean;
}

const GLOBAL: Readonly<Record<string, string>> = {
  "embed_tokens.weight": "token_embd.weight",
  "norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

const IN_LAYER: Readonly<Record<string, string>> = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "input_layernorm": "attn_norm",
};

/** Gemma 3 has norms on both sides of each half of a block. */
const NORMS: Readonly<Record<"gemma3" | "other", Readonly<Record<string, string>>>> = {
  gemma3: {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
  },
  other: { "post_attention_layernorm": "ffn_norm" },
};

/** Where the language model lies: alone, or inside a model that also sees. */
const PREFIXES = ["language_model.model.", "model.language_model.", "language_model.", "model."];
/** The parts that see, and buffers that old files carry. */
const IGNORED = /^(model\.)?(vision_tower|vision_model|multi_modal_projector)\.|\.rotary_emb\.inv_freq$/;

/** The canonical name of `hfName`, or undefined for tensors that text generation does not need. */
export function mapName(hfName: string, architecture: string): NameMapping | undefined {
  if (IGNORED.test(hfName)) return undefined;
  const prefix = PREFIXES.find((p) => hfName.startsWith(p)) ?? "";
  const rest = hfName.slice(prefix.length);
  const addOne = architecture === "gemma3" && rest.endsWith("norm.weight");
  if (Object.hasOwn(GLOBAL, rest)) return { name: GLOBAL[rest] as string, addOne };
  const match = /^layers\.(0|[1-9]\d{0,3})\.(.+)\.(weight|bias)$/.exec(rest);
  if (match === null) return { name: hfName, addOne: false };
  const [, layer, part, kind] = match as unknown as [string, string, string, string];
  const norms = NORMS[architecture === "gemma3" ? "gemma3" : "other"];
  const name = Object.hasOwn(IN_LAYER, part) ? IN_LAYER[part] : Object.hasOwn(norms, part) ? norms[part] : undefined;
  return name === undefined ? { name: hfName, addOne: false } : { name: `blk.${layer}.${name}.${kind}`, addOne };
}
