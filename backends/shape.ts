/**
 * What every backend demands of a tensor's shape, so that errors read alike.
 *
 * @module
 */
import type { DType, Shape } from "../core/tensor.ts";
import { DTYPES, isBlockType } from "../core/dtype.ts";

/** Most dimensions of a tensor. */
export const MAX_RANK = 4;

/** Throws `RangeError` unless `shape` has 1 to 4 whole dimensions that suit `dtype` and the size is countable. */
export function checkShape(action: string, shape: Shape, dtype: DType): void {
  if (!Object.hasOwn(DTYPES, dtype)) {
    throw new RangeError(
      `Cannot ${action}: type "${dtype}" is unknown, expected one of ${Object.keys(DTYPES).join(", ")}`,
    );
  }
  if (shape.length < 1 || shape.length > MAX_RANK) {
    throw new RangeError(
      `Cannot ${action}: shape [${shape.join(", ")}] has ${shape.length} dimensions, expected 1 to 4`,
    );
  }
  let count = 1;
  for (const d of shape) {
    if (!Number.isInteger(d) || d < 0 || d > 0x7fffffff) {
      throw new RangeError(`Cannot ${action}: shape [${shape.join(", ")}] holds ${d}, expected 0 to 2147483647`);
    }
    count *= d;
  }
  // 2^48 elements exceed any address space in use; beyond 2^53 the arithmetic itself would be wrong.
  if (count > 2 ** 48) throw new RangeError(`Cannot ${action}: shape [${shape.join(", ")}] is too large`);
  const { elements } = DTYPES[dtype];
  if (isBlockType(dtype) && (shape[shape.length - 1] as number) % elements !== 0) {
    throw new RangeError(
      `Cannot ${action}: rows of ${shape[shape.length - 1]} are not whole blocks of ${elements} (${dtype})`,
    );
  }
}

/** Whether two shapes are the same. */
export function sameShape(a: Shape, b: Shape): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
