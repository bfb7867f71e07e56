"""Writes SmolLM2's weights again in Q4_0 and Q8_0, so that both engines are timed on formats the release does not have.

    python make_quants.py smollm2.gguf OUT_DIR        (needs the `gguf` package)
"""
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T, GGUFReader, GGUFWriter, quants

source, out_dir = sys.argv[1:]
reader = GGUFReader(source)
for kind in (T.Q4_0, T.Q8_0):
    writer = GGUFWriter(f"{out_dir}/smollm2-135m-{kind.name.lower()}.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value_type = field.types[0]
        sub = field.types[1] if value_type == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), value_type, sub)
    for tensor in reader.tensors:
        if tensor.tensor_type == T.Q4_1:
            full = quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, quants.quantize(full, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
