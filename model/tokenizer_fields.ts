/**
 * Reading fields of tokenizer.json and its companions, which are hostile until checked.
 *
 * @module
 */
import { ModelFileError } from "../core/errors.ts";

/** A JSON object. */
export type Json = Readonly<Record<string, unknown>>;

/** `value` as an object; `field` names it in the error. */
export function asObject(value: unknown, field: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return fail(field, "is no object");
  return value as Json;
}

/** `value` as an array; `field` names it in the error. */
export function asArray(value: unknown, field: string): readonly unknown[] {
  return Array.isArray(value) ? value : fail(field, value === undefined ? "is missing" : "is no array");
}

/** A value as errors show it, at most 60 characters. */
export function textOf(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 60 ? text.slice(0, 60) + "…" : text;
}

/** Throws the error of a wrong field. */
export function fail(field: string, state: string): never {
  throw new ModelFileError(`Cannot load tokenizer: ${field} ${state}`);
}
