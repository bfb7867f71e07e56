"""Writes dequant.json: random blocks of every format and the numbers that the gguf package reads from them.

    python test/golden/make_dequant.py
"""
import base64
import json
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

# type: (elements, bytes, byte offsets of the halves in a block)
TYPES = {
    "q4_0": (32, 18, [0]),
    "q4_1": (32, 20, [0, 2]),
    "q5_0": (32, 22, [0]),
    "q5_1": (32, 24, [0, 2]),
    "q8_0": (32, 34, [0]),
    "q3_k": (256, 110, [108]),
    "q4_k": (256, 144, [0, 2]),
    "q5_k": (256, 176, [0, 2]),
    "q6_k": (256, 210, [208]),
    "iq4_nl": (32, 18, [0]),
}

rng = np.random.default_rng(3)
golden = {}
for name, (elements, size, halves) in TYPES.items():
    blocks = rng.integers(0, 256, (4 if elements == 32 else 2, size), dtype=np.uint8)
    for at in halves:  # any byte but in the halves, which stay finite, some of them subnormal
        d = rng.normal(0, 0.02, len(blocks)).astype(np.float16)
        d[0] = np.float16(3e-6)
        blocks[:, at : at + 2] = d.view(np.uint8).reshape(-1, 2)
    values = dequantize(blocks, getattr(T, name.upper())).astype("<f4").reshape(-1)
    assert len(values) == len(blocks) * elements
    golden[name] = {
        "blocks": base64.b64encode(blocks.tobytes()).decode(),
        "values": base64.b64encode(values.tobytes()).decode(),
    }
pathlib.Path(__file__).with_name("dequant.json").write_text(json.dumps(golden, indent=1) + "\n")
