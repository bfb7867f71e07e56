"""What torch's attention makes of the same prompt on the same device, and how ours compares: python3 bench/gpu_sdpa.py RESULTS.jsonl

Prints a JSON row: milliseconds of scaled_dot_product_attention, causal, bf16, 32 / 8 heads of 128, the best of five, and the share of
its speed that the rows "prompt attention, ..." of the results reach.
"""
import json
import sys

import torch
from torch.nn.functional import scaled_dot_product_attention as attend

HEADS, KV_HEADS, DIM = 32, 8, 128


def measure(length: int) -> float:
    q = torch.randn(1, HEADS, length, DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, KV_HEADS, length, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    # Repeated heads cost memory, not time that is counted: old versions know no groups.
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    best = float("inf")
    for turn in range(6):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        attend(q, k, v, is_causal=True)
        end.record()
        torch.cuda.synchronize()
        if turn > 0:
            best = min(best, begin.elapsed_time(end))
    return best


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.startswith("{")]
    ours = {row["row"]: row for row in rows if row["row"].startswith("prompt attention, ")}
    length = next((row["length"] for row in ours.values()), 32768)
    ms = measure(length)
    row = {"row": "torch SDPA", "torch": torch.__version__, "length": length, "ms": round(ms, 3),
           "tflop_per_s": round(2 * length * length * DIM * HEADS / ms / 1e9, 1)}
    for name, mine in ours.items():
        row[name.removeprefix("prompt attention, ") + "_of_torch"] = round(ms / mine["ms"], 3)
    print(json.dumps(row))


main()
