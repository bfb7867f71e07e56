/**
 * Ways to attend as one word: `PRESET[:key=value,…][@INDEX]`, `kvasir:error=0.025` or `exact-topk@flat:codes=f16`.
 *
 * @module
 */
import { formatSpec, lookUp, parseSpec } from "../core/spec.ts";
import { presets } from "./presets.ts";

/** What an engine, or one request of it, is told. */
export interface Method {
  /** As given, for tables. */
  readonly name: string;
  /** Preset, and what is taken in place of its own. */
  readonly options: { readonly preset: string; readonly policy: string; readonly index?: string };
}

/**
 * Reads one; throws `RangeError` that lists the presets there are. `extra` parameters are given to policies that draw, `seed`
 * above all.
 */
export function parseMethod(text: string, extra: Readonly<Record<string, string>> = {}): Method {
  const at = text.indexOf("@");
  const { name, params } = parseSpec(at < 0 ? text : text.slice(0, at));
  const preset = lookUp("preset", name, presets);
  const policy = parseSpec(preset.policy);
  const merged = new Map([...policy.params, ...params]);
  if (policy.name === "retrieval") { for (const [key, value] of Object.entries(extra)) merged.set(key, value); }
  const index = at < 0 ? preset.index : text.slice(at + 1);
  const options = {
    preset: name,
    policy: formatSpec(policy.name, Object.fromEntries(merged)),
    ...(index === undefined ? {} : { index }),
  };
  return { name: text, options };
}
