"""Saves the logits of transformers float32 over a text, for bench/fidelity.ts and `kvasir perplexity --kl-base`.

    python bench/fidelity.py MODEL.gguf TOKENS OUT.kvlg PREFIX COUNT

The weights are those of the GGUF file, dequantized (test/golden/gguf_float32.py). TOKENS holds the text as little-endian
int32 ids (bench/fidelity.ts writes it); OUT receives COUNT rows (docs/logits_file.md), beginning with the prediction of
token PREFIX. Needs torch, transformers and gguf.
"""

import pathlib
import struct
import sys
import time

import numpy
import torch

sys.path.append(str(pathlib.Path(__file__).parent.parent / "test" / "golden"))
import gguf_float32  # noqa: E402


def save_logits(model, tokens_path, out_path, prefix, count):
    """Saves COUNT rows; gives all tokens that were read."""
    tokens = numpy.fromfile(tokens_path, dtype="<i4")[: prefix + count]
    if len(tokens) < prefix + count:
        raise SystemExit(f'Cannot score: "{tokens_path}" holds {len(tokens)} tokens, needs {prefix + count}')
    began = time.time()
    with torch.inference_mode():
        ids = torch.from_numpy(tokens[:-1].astype(numpy.int64))[None]
        logits = model(ids, logits_to_keep=count, use_cache=False).logits[0]
    print(f"{len(tokens) - 1} tokens in {time.time() - began:.1f} s")
    best = torch.log_softmax(logits.double(), -1)
    nll = -best[torch.arange(count), torch.from_numpy(tokens[prefix:].astype(numpy.int64))]
    print(f"perplexity of the {count} scored tokens {nll.mean().exp():.4f}")
    with open(out_path, "wb") as f:
        f.write(b"KVLG" + struct.pack("<III", 1, logits.shape[1], 0))
        for token, row in zip(tokens[prefix:], logits):
            f.write(struct.pack("<i", token))
            f.write(row.numpy().astype("<f4").tobytes())
    return tokens


if __name__ == "__main__":
    if len(sys.argv) != 6:
        raise SystemExit(__doc__)
    save_logits(gguf_float32.load(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]), int(sys.argv[5]))
