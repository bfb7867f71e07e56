"""Writes texts_NAME.json: what transformers float32 generates greedily from the prompts of prompts.ts.

    python test/golden/make_texts.py MODEL.gguf NAME IDS.json

IDS.json maps each prompt's name to its token ids (test/golden/tokenize.ts writes it). Short prompts are stored as ids;
of long ones only the hash, the text being in genesis.txt. Needs torch, transformers and gguf.
"""

import hashlib
import json
import pathlib
import sys
import time

import gguf
import numpy
import torch

import gguf_float32

STEPS = 64
SHORT = 64  # tokens


def main(model_path, name, ids_path):
    model = gguf_float32.load(model_path)
    vocab = gguf.GGUFReader(model_path).get_field("tokenizer.ggml.tokens").contents()
    texts = []
    for prompt, ids in json.loads(pathlib.Path(ids_path).read_text()).items():
        began = time.time()
        tokens, logprobs, margins, cache = [], [], [], None
        feed = torch.tensor([ids])
        with torch.inference_mode():
            for _ in range(STEPS):
                out = model(feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = out.past_key_values
                best = torch.log_softmax(out.logits[0, -1].double(), -1).topk(2)
                tokens.append(best.indices[0].item())
                logprobs.append(round(best.values[0].item(), 5))
                margins.append((best.values[0] - best.values[1]).item())
                feed = torch.tensor([[tokens[-1]]])
        digest = hashlib.sha256(numpy.array(ids, dtype="<i4").tobytes()).hexdigest()
        texts.append({"name": prompt, "promptTokens": len(ids), "promptSha256": digest,
                      **({"prompt": ids} if len(ids) <= SHORT else {}), "tokens": tokens, "logprobs": logprobs,
                      "closest": round(min(margins), 5)})
        text = "".join(vocab[t] for t in tokens)
        print(f"{prompt}: {len(ids)} + {STEPS} tokens in {time.time() - began:.0f} s, closest {min(margins):.4f}\n  {text}",
              flush=True)
    path = pathlib.Path(__file__).with_name(f"texts_{name}.json")
    path.write_text("[\n" + ",\n".join(json.dumps(t, separators=(",", ":")) for t in texts) + "\n]\n")


main(*sys.argv[1:4])
