/**
 * JSON schemas as parts of a network: what OpenAI's structured outputs have, nothing silently ignored.
 *
 * Properties come in the order in which the schema names them, each at most once, and only those. A schema's own value is a
 * rule, so that local references may point back at it.
 *
 * @module
 */
import type { Network, Part } from "./grammar.ts";
import { JsonParts } from "./json_grammar.ts";

/** Say nothing about what is valid. */
const ANNOTATIONS = new Set([
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "definitions",
]);
/** Those that are understood, and the types that they are about. */
const KEYWORDS = new Set([
  "type",
  "properties",
  "required",
  "enum",
  "const",
  "items",
  "minItems",
  "maxItems",
  "anyOf",
  "$ref",
  "additionalProperties",
]);
const TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"];
const MAX_DEPTH = 64;
const MAX_ITEMS = 10_000;

type Schema = Readonly<Record<string, unknown>>;

/** Compiles one schema into a network. */
export class SchemaCompiler {
  readonly #network: Network;
  readonly #json: JsonParts;
  readonly #root: unknown;
  readonly #refs = new Map<string, number>();
  /** References that are being resolved without anything read in between. */
  readonly #open = new Set<string>();

  constructor(network: Network, root: unknown) {
    this.#network = network;
    this.#json = new JsonParts(network);
    this.#root = root;
  }

  /** A value of the schema. Throws `RangeError` naming the keyword that is not understood, by its path. */
  part(): Part {
    return this.#reference("#", "#");
  }

  #value(schema: unknown, path: string, depth: number): Part {
    if (schema === true) return this.#json.any;
    if (depth > MAX_DEPTH) throw bad(path, `schemas nest deeper than ${MAX_DEPTH}`);
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) throw bad(path, "it is no schema");
    const s = schema as Schema;
    for (const key of Object.keys(s)) {
      if (!KEYWORDS.has(key) && !ANNOTATIONS.has(key)) throw bad(`${path}/${key}`, "this keyword is not understood");
    }
    const { $ref, anyOf } = s;
    if ($ref !== undefined) {
      only(s, ["$ref"], path);
      if (typeof $ref !== "string" || !/^#(\/|$)/.test($ref)) {
        throw bad(`${path}/$ref`, "only local references are understood");
      }
      return this.#reference($ref, path);
    }
    if (anyOf !== undefined) {
      only(s, ["anyOf"], path);
      if (!Array.isArray(anyOf) || anyOf.length === 0) throw bad(`${path}/anyOf`, "it must be a list of schemas");
      return this.#network.anyOf(...anyOf.map((inner, i) => this.#value(inner, `${path}/anyOf/${i}`, depth + 1)));
    }
    if (s["const"] !== undefined || s["enum"] !== undefined) return this.#choices(s, path);
    const types = typesOf(s, path);
    if (types === undefined) return this.#json.any;
    return this.#network.anyOf(...types.map((type) => this.#typed(type, s, path, depth)));
  }

  #typed(type: string, s: Schema, path: string, depth: number): Part {
    switch (type) {
      case "object":
        return this.#object(s, path, depth);
      case "array":
        return this.#array(s, path, depth);
      case "string":
        return this.#json.string;
      case "number":
        return this.#json.number;
      case "integer":
        return this.#json.integer;
      case "boolean":
        return this.#json.boolean;
      default:
        return this.#network.text("null");
    }
  }

  #choices(s: Schema, path: string): Part {
    only(s, ["type", "const", "enum"], path);
    const listed = s["enum"];
    if (listed !== undefined && (!Array.isArray(listed) || listed.length === 0)) {
      throw bad(`${path}/enum`, "it must be a list of values");
    }
    const types = typesOf(s, path);
    const constant = s["const"] === undefined ? undefined : JSON.stringify(s["const"]);
    const values = ((listed as unknown[] | undefined) ?? [s["const"]])
      .filter((value) => types === undefined || types.some((type) => isOf(value, type)))
      .map((value) => JSON.stringify(value))
      .filter((text) => constant === undefined || text === constant);
    if (values.length === 0) throw bad(path, "no value is valid");
    return this.#network.anyOf(...values.map((text) => this.#network.text(text)));
  }

  #array(s: Schema, path: string, depth: number): Part {
    const count = (key: string, fallback: number) => {
      const value = s[key] ?? fallback;
      if (value === Infinity || Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_ITEMS) {
        return value as number;
      }
      throw bad(`${path}/${key}`, `it must be a whole number up to ${MAX_ITEMS}`);
    };
    const [min, max] = [count("minItems", 0), count("maxItems", Infinity)];
    if (min > max) throw bad(`${path}/minItems`, "it exceeds maxItems");
    if (max === 0) return this.#json.array((from) => from, 0, 0);
    const rule = this.#network.rule();
    this.#within(() => this.#network.fill(rule, this.#value(s["items"] ?? true, `${path}/items`, depth + 1)));
    return this.#json.array(this.#network.call(rule), min, max);
  }

  #object(s: Schema, path: string, depth: number): Part {
    const properties = s["properties"] ?? {};
    if (typeof properties !== "object" || properties === null || Array.isArray(properties)) {
      throw bad(`${path}/properties`, "it must be an object");
    }
    const required = s["required"] ?? [];
    if (!Array.isArray(required) || required.some((name) => typeof name !== "string")) {
      throw bad(`${path}/required`, "it must be a list of names");
    }
    const others = s["additionalProperties"] ?? true;
    if (typeof others !== "boolean") throw bad(`${path}/additionalProperties`, "only true and false are understood");
    const named = new Map(Object.entries(properties as Schema));
    for (const name of required as string[]) {
      if (named.has(name)) continue;
      if (!others) throw bad(`${path}/required`, `"${name}" is required and not allowed`);
      named.set(name, true);
    }
    if (named.size === 0) return others ? this.#json.object : this.#json.braces((from) => from);
    const isRequired = new Set(required as string[]);
    const pairs = [...named].map(([name, schema]) => ({
      isRequired: isRequired.has(name),
      part: this.#pair(name, schema, `${path}/properties/${name}`, depth),
    }));
    return this.#json.braces((from) => this.#pairs(pairs, from));
  }

  #pair(name: string, schema: unknown, path: string, depth: number): Part {
    const rule = this.#network.rule();
    this.#within(() => {
      const value = this.#value(schema, path, depth + 1);
      this.#network.fill(rule, this.#json.pair(this.#network.text(JSON.stringify(name)), value));
    });
    return this.#network.call(rule);
  }

  /** Two rows of states: before the first pair that is written, and after it, where a comma comes first. */
  #pairs(pairs: readonly { readonly isRequired: boolean; readonly part: Part }[], from: number): number {
    const n = this.#network;
    let before: number | undefined = from;
    let after = n.state();
    for (const { isRequired, part } of pairs) {
      const next = n.state();
      if (before !== undefined) n.skip(part(before), next);
      n.skip(part(this.#json.comma(after)), next);
      if (isRequired) {
        before = undefined;
      } else {
        n.skip(after, next);
        if (before !== undefined) {
          const skipped = n.state();
          n.skip(before, skipped);
          before = skipped;
        }
      }
      after = next;
    }
    if (before !== undefined) n.skip(before, after);
    return after;
  }

  /** The rule of what `ref` points at. */
  #reference(ref: string, path: string): Part {
    const at = decodeURIComponent(ref.slice(1));
    if (this.#open.has(at)) throw bad(path, `"${ref}" refers to itself`);
    let rule = this.#refs.get(at);
    if (rule === undefined) {
      this.#refs.set(at, rule = this.#network.rule());
      this.#open.add(at);
      this.#network.fill(rule, this.#value(this.#find(at, path), `#${at}`, 0));
      this.#open.delete(at);
    }
    return this.#network.call(rule);
  }

  /** What is compiled inside is only reached after something was read: references may point back. */
  #within(compile: () => void): void {
    const open = [...this.#open];
    this.#open.clear();
    compile();
    for (const at of open) this.#open.add(at);
  }

  #find(pointer: string, path: string): unknown {
    let value = this.#root;
    for (const key of pointer.split("/").slice(1)) {
      const name = key.replaceAll("~1", "/").replaceAll("~0", "~");
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) {
        throw bad(path, `"#${pointer}" points at nothing`);
      }
      value = (value as Schema)[name];
    }
    return value;
  }
}

function typesOf(s: Schema, path: string): readonly string[] | undefined {
  const { type } = s;
  if (type === undefined) {
    const isObject = ["properties", "required", "additionalProperties"].some((key) => s[key] !== undefined);
    if (isObject) return ["object"];
    if (s["items"] !== undefined || s["minItems"] !== undefined || s["maxItems"] !== undefined) return ["array"];
    return undefined;
  }
  const types = Array.isArray(type) ? type : [type];
  if (types.length === 0 || types.some((t) => !TYPES.includes(t))) {
    throw bad(`${path}/type`, `it must be of ${TYPES.join(", ")}`);
  }
  return types;
}

function isOf(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  const kind: string = typeof value;
  return kind === type;
}

function only(s: Schema, keys: readonly string[], path: string): void {
  const other = Object.keys(s).find((key) => KEYWORDS.has(key) && !keys.includes(key));
  if (other !== undefined) throw bad(`${path}/${other}`, `it cannot stand beside ${keys[0]}`);
}

function bad(path: string, why: string): RangeError {
  return new RangeError(`Cannot use schema: ${path}: ${why}`);
}
