/**
 * Seeded damage to model files: fields of binary formats, and nodes of JSON.
 *
 * @module
 */
import type { Field } from "./fuzz_files_build.ts";

/** Random numbers that a seed determines (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 2^32). */
  bits(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** Uniform in 0 … n − 1. */
  below(n: number): number {
    return Math.floor(this.bits() / 2 ** 32 * n);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

const NUMBERS = [
  ...[0n, 1n, 2n, 3n, 4n, 8n, 12n, 16n, 24n, 31n, 32n, 33n, 64n, 127n, 128n, 255n, 256n, 1000n, 65535n, 65536n],
  ...[(1n << 31n) - 1n, 1n << 31n, (1n << 32n) - 1n, 1n << 32n, (1n << 40n) - 1n, (1n << 53n) - 1n, 1n << 53n],
  ...[(1n << 61n) - 1n, (1n << 62n) + 1n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n],
];
const FLOATS = [0, -0, 1, -1, 0.5, NaN, Infinity, -Infinity, 1e-45, 3e38, 1e300, 2 ** 24];
const TEXTS = [
  "",
  "a",
  "llama",
  "gemma3",
  "qwen2",
  "\u0000",
  "\ufeff",
  "▁",
  "x".repeat(300),
  "__proto__",
  "constructor",
  "../../x",
];
const encoder = new TextEncoder();

/** Changes one to three fields, then perhaps bytes. The fields are left as they are. */
export function mutateFields(fields: readonly Field[], random: Random): Field[] {
  const out = [...fields];
  for (let n = 1 + random.below(3); n > 0; n--) {
    // The header is where structure is: the first fields are picked as often as all others.
    const at = random.below(random.below(2) === 0 ? Math.min(out.length, 40) : out.length);
    const field = out[at];
    if (field === undefined) break;
    switch (random.below(8)) {
      case 0:
        out.splice(at, 1);
        break;
      case 1:
        out.splice(at, 0, random.pick(out));
        break;
      case 2: {
        const other = random.below(out.length);
        out[at] = out[other] as Field;
        out[other] = field;
        break;
      }
      default:
        out[at] = mutateField(field, fields, random);
    }
  }
  return out;
}

function mutateField(field: Field, all: readonly Field[], random: Random): Field {
  switch (field.kind) {
    case "u8":
      return { kind: "u8", value: random.below(256) };
    case "f32":
      return { kind: "f32", value: random.pick(FLOATS) };
    case "u32": {
      const value = random.below(3) === 0
        ? field.value + random.below(9) - 4
        : Number(random.pick(NUMBERS) % (1n << 32n));
      return { kind: "u32", value: value >>> 0 };
    }
    case "u64": {
      const near = random.below(3) === 0;
      return { kind: "u64", value: near ? field.value + BigInt(random.below(9) - 4) : random.pick(NUMBERS) };
    }
    case "align":
      return { kind: "align", value: random.pick([1, 2, 8, 32, 64, 256]) };
    case "bytes": {
      const length = random.below(2) === 0 ? field.value.length : random.below(2 * field.value.length + 1);
      return { kind: "bytes", value: Uint8Array.from({ length }, () => random.below(256)) };
    }
    case "string": {
      const strings = all.filter((f) => f.kind === "string");
      const texts = [
        ...TEXTS.map((t) => encoder.encode(t)),
        new Uint8Array([0xff, 0xfe, 0x80]),
        random.pick(strings).value,
      ];
      return { kind: "string", value: random.pick(texts) };
    }
  }
}

/** Flips, cuts and appends bytes; leaves most files as they are. */
export function mutateBytes(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  switch (random.below(8)) {
    case 0:
      return bytes.slice(0, random.below(bytes.length + 1));
    case 1: {
      const out = bytes.slice();
      for (let n = 1 + random.below(4); n > 0; n--) out[random.below(out.length)] = random.below(256);
      return out;
    }
    case 2: {
      const out = new Uint8Array(bytes.length + random.below(64));
      out.set(bytes);
      return out;
    }
    default:
      return bytes;
  }
}

type Container = Record<string, unknown> | unknown[];

/** Changes one to three nodes of a copy of `json`. */
export function mutateJson(json: unknown, random: Random): unknown {
  const root = { json: structuredClone(json) };
  for (let n = 1 + random.below(3); n > 0; n--) {
    const [parent, key] = random.pick(slots(root));
    const at = parent as Record<string, unknown>;
    switch (random.below(8)) {
      case 0:
        if (parent !== root) delete at[key];
        break;
      case 1:
        if (parent !== root && !Array.isArray(parent)) {
          at[random.pick(TEXTS.slice(0, 8)) + key] = at[key];
          delete at[key];
        }
        break;
      case 2: {
        const [other, otherKey] = random.pick(slots(root));
        // A copy: the same node twice could contain itself.
        at[key] = structuredClone((other as Record<string, unknown>)[otherKey]);
        break;
      }
      case 3:
        if (Array.isArray(at[key])) (at[key] as unknown[]).push(random.pick(at[key] as unknown[]));
        break;
      default:
        at[key] = jsonValue(at[key], random);
    }
  }
  return root.json;
}

function slots(root: Container): [Container, string][] {
  const out: [Container, string][] = [];
  const visit = (node: Container) => {
    for (const [key, value] of Object.entries(node)) {
      out.push([node, key]);
      if (typeof value === "object" && value !== null) visit(value as Container);
    }
  };
  visit(root);
  return out;
}

function jsonValue(old: unknown, random: Random): unknown {
  if (typeof old === "number" && random.below(3) === 0) return old + random.below(9) - 4;
  if (typeof old === "string" && random.below(3) === 0) return old.slice(random.below(old.length + 1));
  let nested: unknown = 1;
  for (let depth = random.below(60); depth > 0; depth--) nested = random.below(2) === 0 ? [nested] : { a: nested };
  return random.pick([
    ...[null, true, false, 0, -1, 1, 0.5, 7, 1e9, 2 ** 31, 2 ** 53, 1e308, -1e308, [], {}, [[]], nested],
    ...TEXTS,
    ...[
      "F16",
      "BF16",
      "I64",
      "gemma3",
      "mistral",
      "yarn",
      "dynamic",
      "linear",
      "sliding_attention",
      "(((a+)+)+)$",
      "[",
      "\\",
    ],
    [0, 1],
    [1, 0],
    [0, 2 ** 53],
    [-4, 0],
    new Array(random.below(100)).fill(4),
  ]);
}
