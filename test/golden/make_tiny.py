"""Writes tiny/: random checkpoints of every architecture, and tiny.json: the logits transformers computes with them.

Run with torch, transformers and gguf installed: python test/golden/make_tiny.py

Sizes are odd and heads wider than usual, weights larger than a fresh model's: a mistake in a rotary table, a head group,
a norm or a window then moves the logits by far more than rounding does.
"""

import json
import pathlib
import shutil

import gguf
import numpy
import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCAB = 97
PROMPTS = [7, 41]  # tokens; the second is longer than every window and original context below
DECODE = 4  # tokens fed one by one after a prompt
COMMON = dict(vocab_size=VOCAB, hidden_size=36, intermediate_size=52, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=1, head_dim=20, max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
              pad_token_id=0)


def rope(kind="default", base=10000.0, **more):
    return {"rope_type": kind, "rope_theta": base, **more}


CASES = {
    # name: (class, stored type, shards, settings)
    "llama": ("Llama", "float32", 1, dict(rope_parameters=rope())),
    "llama_linear": ("Llama", "bfloat16", 1, dict(num_attention_heads=3, tie_word_embeddings=True,
                                                  rope_parameters=rope("linear", factor=4.0))),
    "llama_llama3": ("Llama", "bfloat16", 3, dict(num_attention_heads=6, num_key_value_heads=2,
        rope_parameters=rope("llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=32))),
    "llama_yarn": ("Llama", "bfloat16", 1, dict(head_dim=16, rope_parameters=rope("yarn", factor=4.0, beta_fast=8.0,
                                                beta_slow=1.0, original_max_position_embeddings=32))),
    "mistral": ("Mistral", "float16", 1, dict(num_key_value_heads=4, sliding_window=9, rope_parameters=rope())),
    "qwen2": ("Qwen2", "bfloat16", 1, dict(num_attention_heads=3, hidden_size=60, rope_parameters=rope(base=1e6))),
    "qwen3": ("Qwen3", "bfloat16", 1, dict(num_attention_heads=8, num_key_value_heads=1, head_dim=12,
                                           tie_word_embeddings=True, rope_parameters=rope(base=1e6))),
    "gemma3": ("Gemma3", "bfloat16", 1, dict(num_hidden_layers=3, sliding_window=9, query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": rope("linear", 1e6, factor=8.0), "sliding_attention": rope()})),
}
# These are stored the way configurations on hubs were written before transformers 5: rope_theta and rope_scaling.
OLD_STYLE = ["llama_llama3", "llama_yarn", "qwen2"]


def build(name, seed):
    kind, dtype, _, settings = CASES[name]
    text = "Text" if kind == "Gemma3" else ""
    settings = {**COMMON, **settings}
    if kind == "Qwen2":
        settings.pop("head_dim")
    config = getattr(transformers, f"{kind}{text}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            if key.endswith("norm.weight"):
                p.copy_((0.0 if kind == "Gemma3" else 1.0) + 0.3 * noise)
            elif key.endswith("bias"):
                p.copy_(0.5 * noise)
            elif "embed_tokens" in key:
                p.copy_(0.5 * noise)
            else:
                p.copy_(1.5 * noise / p.shape[1] ** 0.5)
            p.copy_(p.to(getattr(torch, dtype)).float())
    return model


def golden(model, seed):
    runs = []
    random = torch.Generator().manual_seed(1000 + seed)
    for length in PROMPTS:
        tokens = torch.randint(3, VOCAB, (length + DECODE,), generator=random)
        with torch.inference_mode():
            logits = model(tokens[None], use_cache=False).logits[0, length - 1 :]
        runs.append({"tokens": tokens.tolist(), "prompt": length,
                     "logits": [[float(f"{x:.8g}") for x in row] for row in logits.tolist()]})
    return runs


def save(model, name):
    _, dtype, shards, _ = CASES[name]
    folder = HERE / "tiny" / name
    shutil.rmtree(folder, ignore_errors=True)
    stored = model.to(getattr(torch, dtype))
    size = sum(p.numel() * p.element_size() for p in stored.parameters())
    stored.save_pretrained(folder, max_shard_size=size if shards == 1 else size // shards + 4096)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name in OLD_STYLE:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        scaling = config.pop("rope_parameters")
        config["rope_theta"] = scaling.pop("rope_theta")
        config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
        path.write_text(json.dumps(config, indent=2) + "\n")


def save_gguf(model, path):
    """llama as llama.cpp's converter writes it: q and k rows permuted so that rotary pairs are neighbours."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<unk>", "<s>", "</s>"] + [chr(ord("!") + i) for i in range(VOCAB - 3)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (VOCAB - 3))
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, p in model.state_dict().items():
        values = p.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in key:
                halves = values.reshape(heads, 2, values.shape[0] // heads // 2, -1)
                values = numpy.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    goldens = {}
    for seed, name in enumerate(CASES):
        model = build(name, seed)
        goldens[name] = golden(model, seed)
        if name == "llama":
            save_gguf(model, HERE / "tiny" / "llama_gguf" / "model.gguf")
        save(model, name)
        spread = torch.tensor(goldens[name][1]["logits"]).std().item()
        print(f"{name}: logits spread {spread:.2f}")
    runs = ",\n".join(f'"{name}": {json.dumps(g, separators=(",", ":"))}' for name, g in goldens.items())
    (HERE / "tiny.json").write_text("{\n" + runs + "\n}\n")


main()
