/**
 * Llama (Touvron et al. 2023) and what shares its blocks: Llama 2, 3.x, Mistral, SmolLM2, Yi.
 *
 * Pre-norm blocks, rotary positions, grouped-query attention, SwiGLU, no biases.
 *
 * @module
 */
import type { Architecture, Model, ModelConfig, Step, Weights } from "./model.ts";
import type { Tensor } from "../core/tensor.ts";
import { attend, outputMatrix, rotary } from "./block.ts";

/** The architecture `llama`. */
export const llama: Architecture = {
  names: ["llama"],

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
        out: get("attn_output", width, heads * headDim),
        mlpNorm: get("ffn_norm", width),
        gate: get("ffn_gate", mlpWidth, width),
        up: get("ffn_up", mlpWidth, width),
        down: get("ffn_down", width, mlpWidth),
      };
    });
    const outputNorm = weights.get("output_norm.weight", [width]);
    const output = outputMatrix(weights, table);
    const anglesOf = rotary(config.layers);

    function forward(step: Step): Tensor {
      const { ops } = step;
      const angles = anglesOf(step);
      let x = ops.embed(table, step.tokens); // [n, width]
      layers.forEach((layer, i) => {
        // After the last attention only rows whose logits are wanted go on.
        const kept = i === layers.length - 1 ? step.lastRows(x) : x;
        ops.scope(() => {
          const h = ops.rmsNorm(x, layer.attentionNorm, normEpsilon);
          const qkv = ops.matmul(h, layer.q, layer.k, layer.v);
          const attended = attend(step, i, layer.shape, angles, qkv);
          const [a] = ops.matmul(kept === x ? attended : step.lastRows(attended), layer.out);
          ops.add(kept, a);

          const m = ops.rmsNorm(kept, layer.mlpNorm, normEpsilon);
          const [gate, up] = ops.matmul(m, layer.gate, layer.up);
          const [down] = ops.matmul(ops.glu(gate, up, "silu"), layer.down);
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
