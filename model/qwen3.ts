/**
 * Qwen 3 (Yang et al. 2025): llama's blocks, with a norm over each head's query and key before they are rotated.
 *
 * @module
 */
import type { Architecture, Model, ModelConfig, Step, Weights } from "./model.ts";
import type { Tensor } from "../core/tensor.ts";
import { attend, outputMatrix, rotary } from "./block.ts";

/** The architecture `qwen3`. */
export const qwen3: Architecture = {
  names: ["qwen3"],

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
        mlpNorm: get("ffn_norm", width),
        gate: get("ffn_gate", mlpWidth, width),
        up: get("ffn_up", mlpWidth, width),
        down: get("ffn_down", width, mlpWidth),
      };
    });
    // The norm before each layer, and the one after the last.
    const norms = [...layers.map((layer) => layer.attentionNorm), weights.get("output_norm.weight", [width])];
    const output = outputMatrix(weights, table);
    const anglesOf = rotary(config.layers);

    function forward(step: Step): Tensor {
      const { ops } = step;
      const angles = anglesOf(step);
      let x = ops.embed(table, step.tokens); // [n, width]
      let h = ops.rmsNorm(x, norms[0] as Tensor, normEpsilon); // always x's norm
      layers.forEach((layer, i) => {
        // After the last attention only rows whose logits are wanted go on.
        const isLast = i === layers.length - 1;
        const [kept, norm] = isLast ? [step.lastRows(x), step.lastRows(h)] : [x, h];
        ops.scope(() => {
          const [q, k, v] = ops.matmulHeads(h, layer.shape.headDim, layer.q, layer.k, layer.v);
          ops.rmsNormInPlace(q, layer.qNorm, normEpsilon);
          ops.rmsNormInPlace(k, layer.kNorm, normEpsilon);
          const attended = attend(step, i, layer.shape, angles, q, k, v);
          const [a] = ops.matmul(isLast ? step.lastRows(attended) : attended, layer.out);
          ops.addRmsNorm(norm, kept, a, layer.mlpNorm, normEpsilon);
        });
        ops.scope(() => {
          const [down] = ops.matmul(ops.matmulGlu(norm, layer.gate, layer.up, "silu"), layer.down);
          ops.addRmsNorm(norm, kept, down, norms[i + 1] as Tensor, normEpsilon);
        });
        [x, h] = [kept, norm];
      });
      const [logits] = ops.matmul(h, output);
      return logits;
    }

    return { config, forward };
  },
};
