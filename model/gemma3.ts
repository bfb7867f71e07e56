/**
 * Gemma 3 (Gemma Team 2025), text only: norms before and after each half of a block and over each head's query and key,
 * GeGLU, scaled embeddings; layers that see a sliding window, with a rotary base of their own, between global ones.
 *
 * Which layer slides, with which base, is in its `LayerShape`. Norm weights already include Gemma's "+ 1".
 *
 * @module
 */
import type { Architecture, Model, ModelConfig, Step, Weights } from "./model.ts";
import type { Tensor } from "../core/tensor.ts";
import { attend, outputMatrix, rotary, splitHeads } from "./block.ts";

/** The architecture `gemma3`. */
export const gemma3: Architecture = {
  names: ["gemma3"],

  load(config: ModelConfig, weights: Weights): Model {
    const { vocab, width, mlpWidth, normEpsilon } = config;
    const table = weights.get("token_embd.weight", [vocab, width]);
    const layers = config.layers.map((shape, i) => {
      const { heads, kvHeads, headDim } = shape;
      const get = (name: string, ...shape: number[]) => weights.get(`blk.${i}.${name}.weight`, shape);
      return {
        shape,
        attentionNorm: get("attn_norm", width),
        q: get("attn_q", heads * headDim, width),
        k: get("attn_k", kvHeads * headDim, width),
        v: get("attn_v", kvHeads * headDim, width),
        qNorm: get("attn_q_norm", headDim),
        kNorm: get("attn_k_norm", headDim),
        out: get("attn_output", width, heads * headDim),
        postAttentionNorm: get("post_attention_norm", width),
        mlpNorm: get("ffn_norm", width),
        gate: get("ffn_gate", mlpWidth, width),
        up: get("ffn_up", mlpWidth, width),
        down: get("ffn_down", width, mlpWidth),
        postMlpNorm: get("post_ffw_norm", width),
      };
    });
    const outputNorm = weights.get("output_norm.weight", [width]);
    const output = outputMatrix(weights, table);
    const anglesOf = rotary(config.layers);

    function forward(step: Step): Tensor {
      const { ops } = step;
      const angles = anglesOf(step);
      let x = ops.embed(table, step.tokens, Math.sqrt(width)); // [n, width]
      layers.forEach((layer, i) => {
        // After the last attention only rows whose logits are wanted go on.
        const kept = i === layers.length - 1 ? step.lastRows(x) : x;
        ops.scope(() => {
          const h = ops.rmsNorm(x, layer.attentionNorm, normEpsilon);
          const qkv = ops.matmul(h, layer.q, layer.k, layer.v);
          ops.rmsNormInPlace(splitHeads(ops, qkv[0], layer.shape.headDim), layer.qNorm, normEpsilon);
          ops.rmsNormInPlace(splitHeads(ops, qkv[1], layer.shape.headDim), layer.kNorm, normEpsilon);
          const attended = attend(step, i, layer.shape, angles, qkv);
          const [a] = ops.matmul(kept === x ? attended : step.lastRows(attended), layer.out);
          ops.rmsNormInPlace(a, layer.postAttentionNorm, normEpsilon);
          ops.add(kept, a);

          const m = ops.rmsNorm(kept, layer.mlpNorm, normEpsilon);
          const [gate, up] = ops.matmul(m, layer.gate, layer.up);
          const [down] = ops.matmul(ops.glu(gate, up, "gelu"), layer.down);
          ops.rmsNormInPlace(down, layer.postMlpNorm, normEpsilon);
          ops.add(kept, down);
        });
        x = kept;
      });
      const [logits] = ops.matmul(ops.rmsNorm(x, outputNorm, normEpsilon), output);
      return logits;
    }

    return { config, forward };
  },
};
