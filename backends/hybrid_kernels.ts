/**
 * Kernels of one side for tensors of both: each is checked to lie there.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer } from "../core/kv.ts";
import type { AttentionPart, Backend, Kernels } from "./backend.ts";
import { Unsupported } from "../core/errors.ts";

/** What attention in parts takes. */
export type Parts = Required<
  Pick<Kernels, "attendWindow" | "attendTopk" | "merge" | "attendCausalPart" | "mergeParts">
>;

/** All that need no cache. */
export function deviceKernels(
  inner: Kernels,
  at: (tensor: Tensor, what: string) => Tensor,
): Omit<Kernels, "copy" | "append" | "attendCausal" | "attendCausalPart" | "attendWindow" | "attendTopk"> {
  const all = (tensors: readonly Tensor[], what: string) => tensors.map((t) => at(t, what));
  const parts = (list: readonly AttentionPart[]) =>
    list.map(({ o, lse }) => ({ o: at(o, "merge o"), lse: at(lse, "merge lse") }));
  return {
    embed: (out, table, tokens, scale) =>
      inner.embed(at(out, "embed out"), at(table, "embed table"), at(tokens, "embed tokens"), scale),
    rmsNorm: (out, x, weight, epsilon) =>
      inner.rmsNorm(at(out, "rmsNorm out"), at(x, "rmsNorm x"), at(weight, "rmsNorm weight"), epsilon),
    addRmsNorm: (out, x, y, weight, epsilon) =>
      inner.addRmsNorm(
        at(out, "addRmsNorm out"),
        at(x, "addRmsNorm x"),
        at(y, "addRmsNorm y"),
        at(weight, "addRmsNorm weight"),
        epsilon,
      ),
    matmul: (outs, x, ws) => inner.matmul(all(outs, "matmul out"), at(x, "matmul x"), all(ws, "matmul weight")),
    matmulGlu: (out, x, gate, up, activation) =>
      inner.matmulGlu(
        at(out, "matmulGlu out"),
        at(x, "matmulGlu x"),
        at(gate, "matmulGlu gate"),
        at(up, "matmulGlu up"),
        activation,
      ),
    add: (out, x, y) => inner.add(at(out, "add out"), at(x, "add x"), at(y, "add y")),
    glu: (out, gate, up, activation) =>
      inner.glu(at(out, "glu out"), at(gate, "glu gate"), at(up, "glu up"), activation),
    ropeTable: (out, positions, rope) =>
      inner.ropeTable(at(out, "ropeTable out"), at(positions, "ropeTable positions"), rope),
    rope: (xs, table, pairing) => inner.rope(all(xs, "rope x"), at(table, "rope table"), pairing),
    addLogits: (logits, row, ids, values) => inner.addLogits(at(logits, "logits"), row, ids, values),
    penalize: (logits, row, penalties) => inner.penalize(at(logits, "logits"), row, penalties),
    sample: (out, logits, params) => inner.sample(at(out, "sample out"), at(logits, "logits"), params),
    tokenLogprobs: (out, logits, tokens) =>
      inner.tokenLogprobs(at(out, "tokenLogprobs out"), at(logits, "logits"), at(tokens, "tokenLogprobs tokens")),
    topLogprobs: (ids, logprobs, logits) =>
      inner.topLogprobs(at(ids, "topLogprobs ids"), at(logprobs, "topLogprobs logprobs"), at(logits, "logits")),
    klDivergence: (out, base, logits) =>
      inner.klDivergence(at(out, "klDivergence out"), at(base, "klDivergence base"), at(logits, "logits")),
    merge: (out, list) => needed(inner.merge)(at(out, "merge out"), parts(list)),
    mergeParts: ({ o, lse }, list) =>
      needed(inner.mergeParts)({ o: at(o, "merged o"), lse: at(lse, "merged lse") }, parts(list)),
  };
}

function needed<T>(kernel: T | undefined): T {
  if (kernel === undefined) throw new Unsupported("Cannot merge attention: the device lacks the kernel");
  return kernel;
}

/** Of a side; throws `Unsupported` where it lacks them. */
export function partsOf({ spec, kernels }: Backend): Parts {
  const { attendWindow, attendTopk, merge, attendCausalPart, mergeParts } = kernels;
  if (
    attendWindow !== undefined && attendTopk !== undefined && merge !== undefined && attendCausalPart !== undefined &&
    mergeParts !== undefined
  ) return { attendWindow, attendTopk, merge, attendCausalPart, mergeParts };
  throw new Unsupported(`Cannot use "${spec}" in a hybrid: it lacks attention in parts`);
}

/** As every backend checks spans. */
export function checkRanges(ranges: readonly (readonly [number, number])[], kv: KvLayer): void {
  const begin = kv.segments[0]?.start ?? 0;
  let last = begin;
  for (const [from, to] of ranges) {
    if (!(from >= last && to >= from && to <= begin + kv.length)) {
      throw new RangeError(`Cannot attend: span ${from} to ${to}, the cache holds ${begin} to ${begin + kv.length}`);
    }
    last = to;
  }
}
