/**
 * Metadata values of GGUF: scalars, strings and arrays.
 *
 * @module
 */
import { GGUF_VALUE as V } from "./gguf_types.ts";
import type { HeaderReader } from "./gguf_reader.ts";
import { GgufStrings } from "./gguf_strings.ts";

/** Arrays keep the type they have in the file; booleans become 0 and 1. */
export type GgufArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array
  | GgufStrings
  | readonly GgufValue[];

/** One metadata value; 64-bit integers beyond 2^53 are bigints. */
export type GgufValue = number | bigint | boolean | string | GgufArray;

const MAX_DEPTH = 3;
/** What a small typed array takes, buffers and all, measured; keeps files of many tiny arrays inside the budget. */
const OBJECT_BYTES = 512;

const NUMERIC = {
  [V.U8]: Uint8Array,
  [V.I8]: Int8Array,
  [V.U16]: Uint16Array,
  [V.I16]: Int16Array,
  [V.U32]: Uint32Array,
  [V.I32]: Int32Array,
  [V.F32]: Float32Array,
  [V.BOOL]: Uint8Array,
  [V.U64]: BigUint64Array,
  [V.I64]: BigInt64Array,
  [V.F64]: Float64Array,
} as const;

/** Reads one value of `type`; `what` names its key in errors. */
export function readValue(r: HeaderReader, type: number, what: string): GgufValue {
  return read(r, type, what, 0);
}

function read(r: HeaderReader, type: number, what: string, depth: number): GgufValue {
  switch (type) {
    case V.U8:
      return r.u8(what);
    case V.I8:
      return r.u8(what) << 24 >> 24;
    case V.U16:
      return r.u16(what);
    case V.I16:
      return r.i16(what);
    case V.U32:
      return r.u32(what);
    case V.I32:
      return r.i32(what);
    case V.F32:
      return r.f32(what);
    case V.BOOL:
      return r.u8(what) !== 0;
    case V.STRING:
      return r.string(what, false);
    case V.ARRAY:
      return readArray(r, what, depth);
    case V.U64:
      return r.u64(what);
    case V.I64:
      return r.i64(what);
    case V.F64:
      return r.f64(what);
    default:
      return r.fail(`${what} has unknown value type ${type}`);
  }
}

function readArray(r: HeaderReader, what: string, depth: number): GgufArray {
  if (depth >= MAX_DEPTH) r.fail(`${what} nests arrays deeper than ${MAX_DEPTH}`);
  const type = r.u32(what);
  if (type === V.STRING) return readStrings(r, r.count(`length of ${what}`, (r.remaining - 8) / 8), what);
  if (type === V.ARRAY) {
    // An inner array takes 12 bytes of the file at least.
    const count = r.count(`length of ${what}`, (r.remaining - 8) / 12);
    r.budget.take(count * OBJECT_BYTES, what);
    const out: GgufValue[] = [];
    for (let i = 0; i < count; i++) out.push(readArray(r, what, depth + 1));
    return out;
  }
  const Numbers = NUMERIC[type as keyof typeof NUMERIC];
  if (Numbers === undefined) r.fail(`${what} has unknown element type ${type}`);
  const count = r.count(`length of ${what}`, (r.remaining - 8) / Numbers.BYTES_PER_ELEMENT);
  return new Numbers(r.bytes(count * Numbers.BYTES_PER_ELEMENT, what).buffer);
}

/** Two passes: the first finds the array's end, the second reads it at once and squeezes the lengths out. */
function readStrings(r: HeaderReader, count: number, what: string): GgufStrings {
  r.budget.take(4 * (count + 1), what);
  const offsets = new Uint32Array(count + 1);
  const start = r.position;
  let total = 0;
  for (let i = 0; i < count; i++) {
    const length = r.skipString(what);
    total += length;
    if (total >= 2 ** 32) r.fail(`${what} holds more than 4 GiB of text`);
    offsets[i + 1] = total;
  }
  const size = r.position - start;
  r.budget.take(size, what);
  const data = new Uint8Array(size);
  r.source.readAt(start, data);
  for (let i = 0; i < count; i++) {
    const to = offsets[i] as number, end = offsets[i + 1] as number;
    const from = to + 8 * (i + 1);
    // Tokens are short: a loop beats a call of copyWithin.
    if (end - to < 64) { for (let j = to, k = from; j < end; j++, k++) data[j] = data[k] as number; }
    else data.copyWithin(to, from, from + end - to);
  }
  return new GgufStrings(data.subarray(0, total), offsets);
}
