// deno-lint-ignore-file no-explicit-any -- signatures as published by @std/assert
type Constructor<T> = abstract new (...args: any[]) => T;
/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg?: string): asserts expr;
/** Fails unless the two differ by at most `tolerance` (default 1e-7 relative). */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void;
/** Fails unless the two are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
/** Fails when `actual` is null or undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T>;
/** Fails unless `actual` is an instance of `type`. */
export function assertInstanceOf<T>(actual: unknown, type: Constructor<T>, msg?: string): asserts actual is T;
/** Fails when the two are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless the promise rejects, with the given class and message part. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  type: Constructor<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void;
/** Fails unless `fn` throws, with the given class and message part. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  type: Constructor<E>,
  msgIncludes?: string,
  msg?: string,
): E;
/** Fails always. */
export function fail(msg?: string): never;
