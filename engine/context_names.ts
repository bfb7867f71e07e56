/**
 * Names, ids and prefixes of contexts, and what of their options is checked.
 *
 * @module
 */
import type { ContextChange } from "./context_types.ts";

const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const MOST_METADATA = 16;

/** Whether files and requests may call a context so. */
export function isContextName(name: string): boolean {
  return NAME.test(name) && !/^\.+$/.test(name) && !name.startsWith("ctx_");
}

/** How many of their first tokens are the same, of `most` at most. */
export function sharedPrefix(a: ArrayLike<number>, b: ArrayLike<number>, most = b.length): number {
  const n = Math.min(a.length, b.length, most);
  let i = 0;
  while (i < n && a[i] === b[i]) i++;
  return i;
}

/** Whether `tokens` start with `prefix`. */
export function begins(tokens: ArrayLike<number>, prefix: ArrayLike<number>): boolean {
  return sharedPrefix(tokens, prefix) === prefix.length;
}

/** `ctx_` and 96 random bits. */
export function newContextId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `ctx_${Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

/** Throws `RangeError` unless `name` is 1 to 64 letters, digits, dots, dashes and underscores, and no id. */
export function checkContextName(name: string): string {
  if (typeof name === "string" && isContextName(name)) return name;
  throw new RangeError(
    `Cannot name context ${JSON.stringify(String(name).slice(0, 80))}: ` +
      'expected 1 to 64 letters, digits, ".", "-" and "_", not all dots, not ctx_…',
  );
}

/** Throws `RangeError` for a lifetime or metadata out of range. */
export function checkContextOptions<T extends Pick<ContextChange, "ttlSeconds" | "metadata">>(options: T): T {
  const { ttlSeconds, metadata } = options;
  if (ttlSeconds !== undefined && !(Number.isFinite(ttlSeconds) && ttlSeconds >= 0 && ttlSeconds <= 1e10)) {
    throw new RangeError(`Cannot keep context: ttlSeconds is ${ttlSeconds}, expected seconds, 0 for ever`);
  }
  if (metadata === undefined) return options;
  const entries = Object.entries(metadata);
  const fits = ([key, value]: [string, unknown]) =>
    key.length > 0 && key.length <= 64 && typeof value === "string" && value.length <= 512;
  if (entries.length > MOST_METADATA || !entries.every(fits)) {
    throw new RangeError(
      `Cannot keep context: metadata may have ${MOST_METADATA} entries, keys of 64 and texts of 512 characters`,
    );
  }
  return options;
}
