/**
 * What the blocks of all architectures share: rotary angles once a step, and heads in and out of attention.
 *
 * @module
 */
import type { LayerShape, Rope } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Ops } from "../backends/ops.ts";
import type { Step, Weights } from "./model.ts";

/** Rotary tables of one step: one entry a layer, f32 [n, dims/2, 2]; undefined for a layer without rotation. */
export type Angles = readonly (Tensor | undefined)[];

/**
 * Prepares the tables of `layers`. Layers with equal ropes share one, so a step computes one table (two in gemma3)
 * however many layers there are.
 */
export function rotary(layers: readonly LayerShape[]): (step: Step) => Angles {
  const ropes: Rope[] = [];
  const ofLayer = layers.map(({ rope }) => {
    if (rope === undefined) return undefined;
    const known = ropes.findIndex((r) => sameRope(r, rope));
    return known >= 0 ? known : ropes.push(rope) - 1;
  });
  return ({ ops, positions }) => {
    const tables = ropes.map((rope) => ops.ropeTable(positions, rope));
    return ofLayer.map((i) => i === undefined ? undefined : tables[i]);
  };
}

/** The same x [n, heads · headDim] as [n, heads, headDim]. */
export function splitHeads(ops: Ops, x: Tensor, headDim: number): Tensor {
  const [n, width] = x.shape as readonly [number, number];
  return ops.reshape(x, [n, width / headDim, headDim]);
}

/** Rotates q [n, heads, headDim] and k [n, kvHeads, headDim] in place and attends with them and v: → q's shape. */
export function attend(
  step: Step,
  layer: number,
  { rope }: LayerShape,
  angles: Angles,
  q: Tensor,
  k: Tensor,
  v: Tensor,
): Tensor {
  const table = angles[layer];
  if (table !== undefined && rope !== undefined) step.ops.rope([q, k], table, rope.pairing);
  return step.attend(layer, q, k, v);
}

/** The output matrix [vocab, width]; the embedding table where the file ties them (it then has no `output.weight`). */
export function outputMatrix(weights: Weights, table: Tensor): Tensor {
  return weights.has("output.weight") ? weights.get("output.weight", table.shape) : table;
}

function sameRope(a: Rope, b: Rope): boolean {
  return a === b ||
    (a.dims === b.dims && a.pairing === b.pairing && a.magnitude === b.magnitude &&
      a.frequencies.length === b.frequencies.length && a.frequencies.every((f, i) => f === b.frequencies[i]));
}
