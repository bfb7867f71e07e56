"""Writes rope.json: inverse frequencies as transformers computes them, for model/rope_test.ts.

Run with torch and transformers installed: python test/golden/make_rope.py
"""

import json
import pathlib

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CASES = [
    # base, rotated dims, scaling in transformers' words
    (10000.0, 20, {"rope_type": "linear", "factor": 4.0}),
    (500000.0, 64, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192}),
    (500000.0, 128, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192}),
    (10000.0, 128, {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}),
    (1000000.0, 128, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    (10000.0, 20, {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 32, "beta_fast": 8.0,
                   "beta_slow": 2.0, "attention_factor": 1.25}),
]


def main():
    cases = []
    for base, dims, scaling in CASES:
        config = LlamaConfig(hidden_size=4 * dims, num_attention_heads=4, head_dim=dims, max_position_embeddings=131072,
                             rope_parameters={"rope_theta": base, **scaling})
        inverse, magnitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu")
        cases.append({"base": base, "dims": dims, "scaling": scaling, "magnitude": magnitude,
                      "frequencies": [float(f"{f:.8g}") for f in inverse.tolist()]})
    path = pathlib.Path(__file__).with_name("rope.json")
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


main()
