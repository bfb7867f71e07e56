"""Token ids of texts by Hugging Face's `tokenizers`: the second rival of bench/tokenizers.ts.

    python bench/tokenizers_hf.py tokenizer.json < TEXTS > IDS

Reads a JSON array of strings, writes a JSON array of arrays. Added tokens that are special are left out, so that they stay
text, which the library has no switch for.
"""

import json
import sys

import tokenizers

spec = json.load(open(sys.argv[1], encoding="utf-8"))
spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["special"]]
spec["post_processor"] = None
tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
texts = json.load(sys.stdin)
json.dump([e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)], sys.stdout)
