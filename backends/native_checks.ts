/**
 * What is checked of kernels' arguments before they become numbers, and the numbers of names: for kernels that are called and for those
 * that are written down.
 *
 * @module
 */
import type { Activation } from "./backend.ts";
import type { KvLayer, KvSegment, Rope } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";

/** An output for each weight. */
export function checkProducts(outs: readonly Tensor[], ws: readonly Tensor[]): void {
  if (outs.length !== ws.length) {
    throw new RangeError(`Cannot run matmul: ${outs.length} outputs, ${ws.length} weights`);
  }
}

/** A frequency for each pair of dimensions. */
export function checkFrequencies({ frequencies, dims }: Rope): void {
  if (frequencies.length * 2 !== dims) {
    throw new RangeError(`Cannot run ropeTable: ${frequencies.length} frequencies, expected ${dims / 2}`);
  }
}

/** A row for each segment. */
export function checkAppends(segments: readonly KvSegment[], rows: ArrayLike<number>): void {
  if (rows.length !== segments.length) {
    throw new RangeError(`Cannot append: ${rows.length} rows, ${segments.length} segments`);
  }
}

/** Rows may join it. */
export function checkOpen(segment: KvSegment): void {
  if (segment.sealed) throw new RangeError("Cannot append to cache: the segment is sealed");
}

/** A cache's segments hold `rows` rows. */
export function checkLength(kv: KvLayer, rows: number): void {
  if (rows !== kv.length) throw new RangeError(`Cannot attend: length ${kv.length}, segments of ${rows}`);
}

/** Of the header. */
export function activationCode(activation: Activation): number {
  return activation === "silu" ? 0 : 1;
}

/** Of the header. */
export function pairingCode(pairing: Rope["pairing"]): number {
  return pairing === "halves" ? 0 : 1;
}
