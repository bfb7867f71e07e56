"""transformers float32 over a text, as bench/matrix/rivals/transformers.ts asks for it: its logits, and how long a token takes.

    python bench/rival/transformers_text.py MODEL.gguf TOKENS OUT.kvlg PREFIX COUNT STEPS THREADS

Saves logits as bench/fidelity.py does, then decodes STEPS tokens behind the text, over the library's own cache. The last line
printed is {"ms": median of a step}.
"""

import json
import pathlib
import sys
import time

import torch

sys.path.append(str(pathlib.Path(__file__).parent.parent))
from fidelity import gguf_float32, save_logits  # noqa: E402

CHUNK = 512


def median_step(model, tokens, steps):
    times = []
    with torch.inference_mode():
        ids, cache = torch.from_numpy(tokens.astype("int64"))[None], None
        for start in range(0, len(tokens), CHUNK):
            cache = model(ids[:, start : start + CHUNK], past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
        for i in range(steps):
            began = time.perf_counter()
            model(ids[:, i : i + 1], past_key_values=cache, use_cache=True)
            times.append(1000 * (time.perf_counter() - began))
    return sorted(times)[steps // 2]


if __name__ == "__main__":
    if len(sys.argv) != 8:
        raise SystemExit(__doc__)
    model_path, tokens_path, out_path = sys.argv[1:4]
    prefix, count, steps, threads = map(int, sys.argv[4:])
    torch.set_num_threads(threads)
    model = gguf_float32.load(model_path)
    tokens = save_logits(model, tokens_path, out_path, prefix, count)
    print(json.dumps({"ms": median_step(model, tokens, steps)}))
