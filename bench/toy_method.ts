/**
 * A method of your own, whole: `corner` scores keys by a few of their dimensions, those that the query is largest in (the idea of
 * SparQ, Ribar et al. 2024, without its remainder).
 *
 *     ./kvasir bench matrix --plugin bench/toy_method.ts --methods full exact-topk@corner exact-topk@corner:dims=8 -o results.jsonl
 *
 * @module
 */
import { scoredType } from "../index/flat_reference.ts";

/** The positions of the `count` largest values of `q[at …]`, by size. */
function largest(q: Float32Array, at: number, headDim: number, count: number): number[] {
  return Array.from({ length: headDim }, (_, i) => i)
    .sort((a, b) => Math.abs(q[at + b] as number) - Math.abs(q[at + a] as number) || a - b)
    .slice(0, count);
}

/** The last query's dimensions: all keys of a head are scored one after the other. */
let last: { q: Float32Array; at: number; count: number; dims: number[] } | undefined;

const corner = scoredType(
  "corner",
  "keys by the dimensions that the query is largest in",
  { dims: 16 },
  (q, qAt, k, kAt, d, { dims }) => {
    if (last?.q !== q || last.at !== qAt || last.count !== dims) {
      last = { q, at: qAt, count: dims, dims: largest(q, qAt, d, dims) };
    }
    let sum = 0;
    for (const i of last.dims) sum += (q[qAt + i] as number) * (k[kAt + i] as number);
    return sum;
  },
);

/** What a plugin exports; in the tree it would be a line of `builtinIndexTypes` in `index/mod.ts`. */
export const indexTypes = { corner };
