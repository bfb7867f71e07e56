"""A transformers float32 model with exactly the (dequantized) weights of a GGUF file: the oracle of the real models.

transformers can read GGUF itself; here the tensors are mapped by hand, so that nothing of its conversion is taken on
trust: names, the rotary order of llama's q and k rows, and gemma's norm weights that GGUF stores with 1 added.
"""

import gguf
import numpy
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(path, attention="sdpa"):
    """The model of the file at `path`, on the CPU, in evaluation mode."""
    reader = gguf.GGUFReader(path)

    def field(key, default=None):
        found = reader.get_field(key)
        return default if found is None else found.contents()

    arch = field("general.architecture")
    heads = field(f"{arch}.attention.head_count")
    width = field(f"{arch}.embedding_length")
    common = dict(
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").data),
        hidden_size=width,
        intermediate_size=field(f"{arch}.feed_forward_length"),
        num_hidden_layers=field(f"{arch}.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(f"{arch}.attention.head_count_kv", heads),
        head_dim=field(f"{arch}.attention.key_length", width // heads),
        max_position_embeddings=field(f"{arch}.context_length"),
        rms_norm_eps=field(f"{arch}.attention.layer_norm_rms_epsilon"),
        tie_word_embeddings=not any(t.name == "output.weight" for t in reader.tensors),
        attn_implementation=attention,
    )
    base = field(f"{arch}.rope.freq_base", 10000.0)
    if arch == "llama":
        names = {**LAYER, "ffn_norm": "post_attention_layernorm"}
        config = LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": base}, **common)
        model = LlamaForCausalLM(config)
    elif arch == "gemma3":
        names = {
            **LAYER,
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
        config = Gemma3TextConfig(
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": base},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            sliding_window=field(f"{arch}.attention.sliding_window"),
            query_pre_attn_scalar=common["head_dim"],
            **common,
        )
        model = Gemma3ForCausalLM(config)
    else:
        raise SystemExit(f'Cannot load "{path}": architecture "{arch}" is not llama or gemma3')

    state = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        values = values.reshape([int(d) for d in reversed(tensor.shape)])
        if arch == "gemma3" and tensor.name.endswith("norm.weight"):
            values = values - 1  # exact: transformers adds the 1 back
        part = tensor.name.split(".")
        if part[0] == "blk":
            if arch == "llama" and part[2] in ("attn_q", "attn_k"):
                n = heads if part[2] == "attn_q" else common["num_key_value_heads"]
                # GGUF pairs neighbouring rows, transformers the two halves of a head.
                values = values.reshape(n, values.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
            name = f"model.layers.{part[1]}.{names[part[2]]}.{part[3]}"
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
                    "output.weight": "lm_head.weight"}[tensor.name]
        state[name] = torch.from_numpy(numpy.ascontiguousarray(values))
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name != "lm_head.weight" or not common["tie_word_embeddings"]]
    if missing or unexpected:
        raise SystemExit(f'Cannot load "{path}": missing {missing}, unexpected {unexpected}')
    model.tie_weights()
    return model.float().eval()
