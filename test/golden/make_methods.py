"""Writes methods.json: which tokens published methods keep of one small layer, for test/method_golden_test.ts.

Run with torch, transformers and kvpress (0.5.5) installed: python test/golden/make_methods.py
SnapKV, H2O (as ObservedAttention) and StreamingLLM scores, and PyramidKV's budgets, are kvpress's own; Quest, H2O's undivided sums and
SnapKV by head are the papers' formulas in torch.
"""

import json
import pathlib
import types

import torch
from kvpress import ObservedAttentionPress, PyramidKVPress, SnapKVPress, StreamingLLMPress

N, DIM, HEADS, KV_HEADS, WINDOW, POOL, KEPT, PAGE, PAGES = 96, 8, 4, 2, 8, 5, 24, 8, 3
GROUP = HEADS // KV_HEADS


def rows(x):
    """Sorted token sets, one a row."""
    return [sorted(r) for r in x.tolist()]


def main():
    torch.manual_seed(7)
    # Multiples of 1/32: the same in float32, and short in a file.
    k = (torch.randn(KV_HEADS, N, DIM, dtype=torch.float64) * 32).round()
    q = (torch.randn(N, HEADS, DIM, dtype=torch.float64) * 32 * 1.5).round()
    keys, queries = k / 32, q / 32
    logits = torch.einsum("thd,hnd->htn", queries, keys.repeat_interleave(GROUP, 0)) / DIM**0.5
    causal = torch.tril(torch.ones(N, N, dtype=torch.bool))
    weights = torch.softmax(logits.masked_fill(~causal, float("-inf")), -1)[None]

    config = types.SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, num_hidden_layers=5)
    module = types.SimpleNamespace(config=config, head_dim=DIM)
    hidden = torch.zeros(1, N, HEADS * DIM)
    score = lambda press: press.score(module, hidden, keys[None], keys[None], weights, {})[0]

    snap = score(SnapKVPress(window_size=WINDOW, kernel_size=POOL))[:, : N - WINDOW]
    votes = weights[0, :, N - WINDOW :, : N - WINDOW].sum(1)
    pooled = torch.nn.functional.max_pool1d(votes, POOL, padding=POOL // 2, stride=1)
    # Neighbours share a maximum: each head's next budget that cuts no ties.
    ordered = [row.sort(descending=True).values for row in pooled]
    most = [next(k for k in range(KEPT, len(row)) if row[k - 1] > row[k]) for row in ordered]
    mean = torch.nn.functional.avg_pool1d(votes, POOL, padding=POOL // 2, stride=1)
    sums = weights[0].sum(1)
    ratio = 1 - 40 / 160
    pyramid = PyramidKVPress(compression_ratio=ratio, window_size=WINDOW, kernel_size=POOL, beta=4)
    budgets = []
    for layer in range(5):
        module.layer_idx = layer
        budgets.append(pyramid.get_layer_budget(module, 160))
    streaming = score(StreamingLLMPress(compression_ratio=0.75, n_sink=4))

    asked = queries[-1]
    pages = keys.reshape(KV_HEADS, N // PAGE, PAGE, DIM)
    low, high = pages.amin(2).repeat_interleave(GROUP, 0), pages.amax(2).repeat_interleave(GROUP, 0)
    bound = torch.maximum(asked[:, None] * low, asked[:, None] * high).sum(-1)
    quest = bound.topk(PAGES, -1).indices[..., None] * PAGE + torch.arange(PAGE)

    golden = {
        "length": N, "headDim": DIM, "heads": HEADS, "kvHeads": KV_HEADS, "window": WINDOW, "pool": POOL, "kept": KEPT, "page": PAGE,
        "keys": k.int().flatten().tolist(), "queries": q.int().flatten().tolist(),
        "snapMean": rows(snap.topk(KEPT, -1).indices),
        "snapHead": rows(mean.topk(KEPT, -1).indices),
        "snapMax": [sorted(row.topk(k).indices.tolist()) for row, k in zip(pooled, most)],
        "heavySum": rows(sums[:, : N - WINDOW].topk(KEPT, -1).indices),
        "heavyMean": rows(score(ObservedAttentionPress())[:, : N - WINDOW].topk(KEPT, -1).indices),
        "pyramidBudgets": budgets,
        "streaming": rows(streaming.topk(N // 4, -1).indices)[0],
        "quest": rows(quest.flatten(1)),
    }
    path = pathlib.Path(__file__).with_name("methods.json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
