/**
 * Specs name anything swappable, with its parameters, in one line: `cpu:isa=avx2,threads=1`.
 *
 * ```text
 * spec   = name [ ":" pair { "," pair } ]
 * pair   = key "=" value
 * name   = letter { letter | digit | "-" | "_" }      lower case
 * key    = letter { letter | digit | "_" }            lower case
 * value  = bare | "(" text ")"
 * bare   = one or more characters but "," "(" ")"
 * text   = any characters whose parentheses balance
 * ```
 *
 * Only `,` `(` `)` separate, so a bare value may hold `:`, `=`, `/` and spaces, and a spec can be the value of another:
 * `hybrid:device=cuda:device=0,host=(cpu:isa=avx2,threads=1)`. Control characters are refused everywhere. Parameters are
 * typed by their defaults. Canonical form: keys sorted, parentheses only where a bare value would not do.
 *
 * @module
 */

/** What a parameter may be. */
export type ParamValue = string | number | boolean;

/** A spec as written: values are still text. */
export interface Spec {
  /** What is meant; a registry's key. */
  readonly name: string;
  /** Text of each parameter, in the order written. */
  readonly params: ReadonlyMap<string, string>;
}

/** Longest spec that is read: nothing real comes near, and parsing stays linear in it. */
const MAX_LENGTH = 4096;
const MAX_PARAMS = 64;
const NAME = /^[a-z][a-z0-9_-]*$/;
const KEY = /^[a-z][a-z0-9_]*$/;
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
// deno-lint-ignore no-control-regex -- refusing them is the point: specs are printed in tables and terminals
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

/**
 * Splits a spec into its name and its parameters' text; throws `RangeError` saying what is wrong with it.
 */
export function parseSpec(text: string): Spec {
  if (text.length > MAX_LENGTH) throw new RangeError(`Cannot read spec: it is longer than ${MAX_LENGTH} characters`);
  if (CONTROL.test(text)) throw bad(text, "it holds a control character");
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  if (!NAME.test(name)) throw bad(text, `"${name}" is not a name, expected lower-case letters, digits, "-" or "_"`);
  const params = new Map<string, string>();
  if (colon < 0) return { name, params };
  for (const pair of splitPairs(text, colon + 1)) {
    const equals = pair.indexOf("=");
    if (equals < 0) throw bad(text, `"${pair}" is not key=value`);
    const key = pair.slice(0, equals);
    if (!KEY.test(key)) throw bad(text, `"${key}" is not a key, expected lower-case letters, digits or "_"`);
    if (params.has(key)) throw bad(text, `"${key}" is given twice`);
    params.set(key, unwrap(text, key, pair.slice(equals + 1)));
    if (params.size > MAX_PARAMS) throw bad(text, `it has more than ${MAX_PARAMS} parameters`);
  }
  return { name, params };
}

/** Pieces between the commas that no parenthesis encloses. */
function splitPairs(text: string, from: number): string[] {
  const pairs: string[] = [];
  let depth = 0;
  let start = from;
  for (let i = from; i < text.length; i++) {
    const c = text[i];
    if (c === "(") depth++;
    else if (c === ")" && --depth < 0) throw bad(text, `")" at character ${i + 1} closes nothing`);
    else if (c === "," && depth === 0) {
      pairs.push(text.slice(start, i));
      start = i + 1;
    }
  }
  if (depth > 0) throw bad(text, `${depth} "(" left open`);
  pairs.push(text.slice(start));
  return pairs;
}

function unwrap(text: string, key: string, value: string): string {
  if (value === "") throw bad(text, `"${key}" has no value, write ${key}=() for an empty one`);
  if (!/[()]/.test(value)) return value;
  let depth = 0;
  for (let i = 0; i < value.length; i++) {
    if (value[i] === "(") depth++;
    else if (value[i] === ")") depth--;
    if (depth === 0 && i < value.length - 1) {
      throw bad(text, `parentheses of "${key}" must enclose the whole value`);
    }
  }
  return value.slice(1, -1);
}

function bad(text: string, why: string): RangeError {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return new RangeError(`Cannot read spec "${shown.replaceAll(new RegExp(CONTROL, "g"), "\ufffd")}": ${why}`);
}

/**
 * The defaults, with the spec's parameters in place of them, each converted to its default's type. Throws `RangeError`
 * that lists the keys there are, or says what type is expected.
 */
export function resolveParams<P extends Readonly<Record<string, ParamValue>>>(spec: Spec, defaults: P): P {
  const params: Record<string, ParamValue> = { ...defaults };
  for (const [key, text] of spec.params) {
    if (!Object.hasOwn(defaults, key)) {
      const keys = Object.keys(defaults).sort();
      throw new RangeError(
        `Cannot use "${spec.name}": it has no parameter "${key}", ${
          keys.length === 0 ? "it takes none" : `expected one of ${keys.join(", ")}`
        }`,
      );
    }
    params[key] = convert(spec.name, key, text, defaults[key] as ParamValue);
  }
  return params as P;
}

function convert(name: string, key: string, text: string, like: ParamValue): ParamValue {
  if (typeof like === "string") return text;
  if (typeof like === "boolean") {
    if (text === "true" || text === "false") return text === "true";
    throw new RangeError(`Cannot use "${name}": ${key} is "${text}", expected true or false`);
  }
  const number = Number(text);
  if (NUMBER.test(text) && Number.isFinite(number)) return number;
  throw new RangeError(`Cannot use "${name}": ${key} is "${text}", expected a number like ${like}`);
}

/** Canonical text of a name and its parameters; throws `RangeError` for what the grammar cannot say. */
export function formatSpec(name: string, params: Readonly<Record<string, ParamValue>> = {}): string {
  const pairs = formatParams(params);
  const text = pairs === "" ? name : `${name}:${pairs}`;
  parseSpec(text);
  return text;
}

/** The part after the name: `key=value,…`, keys sorted; empty without parameters. */
export function formatParams(params: Readonly<Record<string, ParamValue>>): string {
  return Object.keys(params).sort().map((key) => `${key}=${formatValue(params[key] as ParamValue)}`).join(",");
}

function formatValue(value: ParamValue): string {
  const text = Object.is(value, -0) ? "-0" : String(value);
  return text === "" || /[(),]/.test(text) ? `(${text})` : text;
}

/** The registry's entry of that name; throws `RangeError` that lists the names there are. `kind` is for the message. */
export function lookUp<T>(kind: string, name: string, registry: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(registry, name)) return registry[name] as T;
  throw new RangeError(
    `Cannot find ${kind} "${name}": expected one of ${Object.keys(registry).sort().join(", ") || "none"}`,
  );
}
