/**
 * Where things lie in a file of recorded heads: docs/recorded_heads.md in code, for its writer and its reader.
 *
 * @module
 */
import type { LayerShape } from "../core/kv.ts";

/** Bytes of the header. */
export const HEADER_BYTES = 256;
/** Bytes of one entry of the layer table. */
export const LAYER_BYTES = 128;
/** Where the entry's seven offsets begin. */
export const OFFSETS_AT = 56;
const NAME_AT = 64;
const ALIGNMENT = 64;

/** What the header says. */
export interface RecordedHeader {
  /** The model's name. */
  readonly name: string;
  /** Tokens, at positions 0 … tokens − 1. */
  readonly tokens: number;
  /** So many of the last of them were decoded one by one. */
  readonly decoded: number;
  /** Every so-manieth prompt query was kept: positions stride − 1, 2·stride − 1, … */
  readonly stride: number;
  /** RoPE base that replaced the model's; 0 for its own. */
  readonly ropeBase: number;
}

/** One layer's place in a file: byte offsets of its arrays, whose shapes docs/recorded_heads.md gives. */
export interface RecordedPlaces {
  /** f64 */
  readonly frequencies: number;
  /** f16 */
  readonly keys: number;
  /** f16 */
  readonly values: number;
  /** i32 */
  readonly promptPositions: number;
  /** f16 */
  readonly promptQueries: number;
  /** f16 */
  readonly decodeQueries: number;
  /** f16 */
  readonly outputs: number;
}

/** One layer: which one of the model's, its geometry, and where it lies. */
export interface RecordedEntry {
  /** Number in the model. */
  readonly layer: number;
  /** Geometry. */
  readonly shape: LayerShape;
  /** Prompt queries kept. */
  readonly numPrompt: number;
  /** Where the arrays lie. */
  readonly at: RecordedPlaces;
}

/** Prompt queries kept of `header`'s tokens. */
export function numPromptQueries({ tokens, decoded, stride }: RecordedHeader): number {
  return Math.floor((tokens - decoded) / stride);
}

/** Places for the layers `shapes` (number in the model, geometry), one after the other; and the file's size. */
export function planFile(
  header: RecordedHeader,
  shapes: readonly (readonly [layer: number, shape: LayerShape])[],
): { readonly entries: readonly RecordedEntry[]; readonly bytes: number } {
  let end = HEADER_BYTES + LAYER_BYTES * shapes.length;
  const take = (bytes: number) => {
    const at = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    end = at + bytes;
    return at;
  };
  const numPrompt = numPromptQueries(header);
  const entries = shapes.map(([layer, shape]): RecordedEntry => {
    const { heads, kvHeads, headDim } = shape;
    const at = {
      frequencies: take(4 * (shape.rope?.dims ?? 0)),
      keys: take(2 * kvHeads * header.tokens * headDim),
      values: take(2 * kvHeads * header.tokens * headDim),
      promptPositions: take(4 * numPrompt),
      promptQueries: take(2 * numPrompt * heads * headDim),
      decodeQueries: take(2 * header.decoded * heads * headDim),
      outputs: take(2 * header.decoded * heads * headDim),
    };
    return { layer, shape, numPrompt, at };
  });
  return { entries, bytes: end };
}

/** Header and layer table as bytes. */
export function encodeTables(header: RecordedHeader, entries: readonly RecordedEntry[], bytes: number): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + LAYER_BYTES * entries.length);
  const view = new DataView(out.buffer);
  const u32 = (at: number, ...values: number[]) => values.forEach((x, i) => view.setUint32(at + 4 * i, x, true));
  const f64 = (at: number, ...values: number[]) => values.forEach((x, i) => view.setFloat64(at + 8 * i, x, true));
  out.set(new TextEncoder().encode("KVQK"));
  u32(4, 1);
  view.setBigUint64(8, BigInt(bytes), true);
  u32(16, entries.length, header.tokens, header.decoded, header.stride);
  f64(32, header.ropeBase);
  new TextEncoder().encodeInto(header.name, out.subarray(NAME_AT, HEADER_BYTES));
  entries.forEach(({ layer, shape, numPrompt, at }, i) => {
    const o = HEADER_BYTES + LAYER_BYTES * i;
    const { rope } = shape;
    u32(o, layer, shape.heads, shape.kvHeads, shape.headDim);
    u32(o + 16, rope?.dims ?? 0, rope?.pairing === "neighbours" ? 1 : 0, numPrompt);
    f64(o + 32, shape.scale, shape.softcap ?? 0, rope?.magnitude ?? 1);
    places(at).forEach((x, j) => view.setBigUint64(o + OFFSETS_AT + 8 * j, BigInt(x), true));
  });
  return out;
}

function places(at: RecordedPlaces): number[] {
  const { frequencies, keys, values, promptPositions, promptQueries, decodeQueries, outputs } = at;
  return [frequencies, keys, values, promptPositions, promptQueries, decodeQueries, outputs];
}

/** The header alone; `size` is the file's. Throws `RangeError` for what is not such a file. */
export function decodeHeader(bytes: Uint8Array, size: number): { header: RecordedHeader; numLayers: number } {
  const bad = (why: string) => new RangeError(`Cannot read recorded heads: ${why}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || new TextDecoder().decode(bytes.subarray(0, 4)) !== "KVQK") {
    throw bad("the file does not begin with KVQK");
  }
  const u32 = (at: number) => view.getUint32(at, true);
  if (u32(4) !== 1) throw bad(`version ${u32(4)}, expected 1`);
  if (view.getBigUint64(8, true) !== BigInt(size)) {
    throw bad(`cut off at ${size} of ${view.getBigUint64(8, true)} bytes`);
  }
  const [numLayers, tokens, decoded, stride] = [u32(16), u32(20), u32(24), u32(28)];
  if (numLayers < 1 || numLayers > 1024 || tokens > 1 << 24 || decoded > tokens || stride < 1) {
    throw bad(`${numLayers} layers, ${tokens} tokens, ${decoded} decoded, stride ${stride}`);
  }
  const name = new TextDecoder().decode(bytes.subarray(NAME_AT, HEADER_BYTES)).replace(/\0+$/, "");
  return { header: { name, tokens, decoded, stride, ropeBase: view.getFloat64(32, true) }, numLayers };
}

/** Layer `i` of the table; frequencies come from `readFrequencies`. Throws `RangeError` for arrays beyond the file. */
export function decodeEntry(
  table: DataView,
  i: number,
  header: RecordedHeader,
  size: number,
  readFrequencies: (offset: number, count: number) => Float64Array,
): RecordedEntry {
  const o = LAYER_BYTES * i;
  const u32 = (at: number) => table.getUint32(o + at, true);
  const f64 = (at: number) => table.getFloat64(o + at, true);
  const [layer, heads, kvHeads, headDim, dims, pairing, numPrompt] = [0, 4, 8, 12, 16, 20, 24].map(u32) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const offsets = Array.from({ length: 7 }, (_, j) => Number(table.getBigUint64(o + OFFSETS_AT + 8 * j, true)));
  const rows = header.tokens * kvHeads * headDim * 2;
  const decode = header.decoded * heads * headDim * 2;
  const sizes = [4 * dims, rows, rows, 4 * numPrompt, 2 * numPrompt * heads * headDim, decode, decode];
  const fits = sizes.every((bytes, j) =>
    (offsets[j] as number) % ALIGNMENT === 0 && (offsets[j] as number) + bytes <= size
  );
  const sane = heads >= 1 && heads <= 1024 && kvHeads >= 1 && heads % kvHeads === 0 && headDim >= 2 &&
    headDim <= 1024 &&
    dims <= headDim && dims % 2 === 0 && numPrompt <= header.tokens;
  if (!fits || !sane) throw new RangeError(`Cannot read recorded heads: entry ${i} of the layer table is damaged`);
  const [frequencies, keys, values, promptPositions, promptQueries, decodeQueries, outputs] = offsets as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const at = { frequencies, keys, values, promptPositions, promptQueries, decodeQueries, outputs };
  const shape: LayerShape = {
    heads,
    kvHeads,
    headDim,
    scale: f64(32),
    ...(f64(40) === 0 ? {} : { softcap: f64(40) }),
    ...(dims === 0 ? {} : {
      rope: {
        frequencies: readFrequencies(frequencies, dims / 2),
        dims,
        pairing: pairing === 1 ? "neighbours" as const : "halves" as const,
        magnitude: f64(48),
      },
    }),
  };
  return { layer, shape, numPrompt, at };
}
