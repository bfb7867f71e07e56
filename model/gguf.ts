/**
 * Reads GGUF files, versions 2 and 3, whole or split: metadata, and where each tensor lies. No tensor data is read.
 *
 * The format is the one of ggml's `docs/gguf.md`. Everything in a file is checked before use: counts against the bytes that
 * are left, allocations against a budget, tensors against the file's end and each other.
 *
 * @module
 */
import { byteLength } from "../core/dtype.ts";
import type { DType, Shape } from "../core/tensor.ts";
import { GGUF_DTYPES, GGUF_UNSUPPORTED, supportedTypes } from "./gguf_types.ts";
import { badFile, type ByteSource, FileSource, quoted, shown, type TensorEntry } from "./open_source.ts";
import { HeaderReader } from "./gguf_reader.ts";
import { type GgufValue, readValue } from "./gguf_values.ts";

/** A parsed GGUF model: metadata of the first part, tensors of all parts. */
export interface GgufFile extends Disposable {
  /** 2 or 3. */
  readonly version: number;
  /** By full key: `llama.block_count`. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Where the first part's tensor data begins. */
  readonly dataOffset: number;
  /** One path a part. */
  readonly paths: readonly string[];
}

const MAGIC = 0x46554747; // "GGUF"
const MAX_DIMS = 4;
const MAX_SPLITS = 1024;

/** Parses one part. Throws `ModelFileError`; `source` stays open and belongs to the caller. */
export function parseGguf(source: ByteSource): GgufFile {
  const r: HeaderReader = new HeaderReader(source);
  if (source.size < 24) r.fail(`file has ${source.size} bytes, a GGUF header needs 24`);
  const magic = r.u32("magic");
  if (magic !== MAGIC) r.fail(`not a GGUF file, it begins with 0x${magic.toString(16).padStart(8, "0")}`);
  const version = r.u32("version");
  if (version !== 0 && version % 65536 === 0) r.fail("big-endian GGUF, convert it with gguf_convert_endian.py");
  if (version !== 2 && version !== 3) r.fail(`GGUF version ${version}, versions 2 and 3 are supported`);
  // A tensor takes at least 24 bytes of the header, a key 13.
  const tensorCount = r.count("tensor count", r.remaining / 24);
  const keyCount = r.count("metadata count", r.remaining / 13);
  const metadata = readMetadata(r, keyCount);
  const infos = readInfos(r, tensorCount);
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || !(alignment >= 1) || alignment > 65536 || (alignment & (alignment - 1)) !== 0) {
    r.fail(`general.alignment is ${shown(alignment)}, a power of two is needed`);
  }
  const dataOffset = Math.ceil(r.position / alignment) * alignment;
  const tensors = place(source, infos, dataOffset, alignment);
  return { version, metadata, tensors, dataOffset, paths: [source.path], [Symbol.dispose]: () => source.close() };
}

function readMetadata(r: HeaderReader, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    r.budget.take(96, "metadata");
    const key = r.string(`metadata key ${i}`, true);
    if (metadata.has(key)) r.fail(`metadata key ${quoted(key)} occurs twice`);
    const what = `metadata key ${quoted(key)}`;
    metadata.set(key, readValue(r, r.u32(what), what));
  }
  return metadata;
}

interface Info {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** From the start of the data. */
  readonly offset: number;
  readonly bytes: number;
}

function readInfos(r: HeaderReader, count: number): Info[] {
  const infos: Info[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    r.budget.take(256, "tensor list");
    const name = r.string(`name of tensor ${i}`, true);
    if (seen.has(name)) r.fail(`tensor ${quoted(name)} occurs twice`);
    seen.add(name);
    const what = `tensor ${quoted(name)}`;
    const dims = r.u32(what);
    if (dims < 1 || dims > MAX_DIMS) r.fail(`${what} has ${dims} dimensions, 1 to ${MAX_DIMS} are possible`);
    const shape: number[] = [];
    for (let d = 0; d < dims; d++) shape.unshift(r.count(`dimension ${d} of ${what}`, 2 ** 40));
    const dtype = dtypeOf(r, r.u32(what), what);
    const offset = r.count(`offset of ${what}`, Number.MAX_SAFE_INTEGER);
    infos.push({ name, dtype, shape, offset, bytes: sizeOf(r, shape, dtype, what) });
  }
  return infos;
}

function dtypeOf(r: HeaderReader, type: number, what: string): DType {
  const dtype = GGUF_DTYPES[type];
  if (dtype !== undefined) return dtype;
  const name = GGUF_UNSUPPORTED[type];
  const state = name === undefined ? `unknown type ${type}` : `type ${name}, which is not supported`;
  return r.fail(`${what} has ${state}; supported are ${supportedTypes()}`);
}

function sizeOf(r: HeaderReader, shape: Shape, dtype: DType, what: string): number {
  let elements = 1;
  for (const d of shape) elements *= d;
  if (elements === 0) r.fail(`${what} is empty: shape [${shape.join(", ")}]`);
  if (!Number.isSafeInteger(8 * elements)) r.fail(`${what} is too large: shape [${shape.join(", ")}]`);
  try {
    return byteLength(shape, dtype);
  } catch (error) {
    return r.fail(`${what}: ${(error as Error).message.replace(/^[^:]*: /, "")}`);
  }
}

/** Checks that all tensors lie inside the file, aligned and apart. */
function place(source: ByteSource, infos: readonly Info[], start: number, alignment: number): Map<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  for (const { name, dtype, shape, offset, bytes } of infos) {
    if (offset % alignment !== 0) {
      throw badFile(source.path, `tensor ${quoted(name)} begins at ${offset}, not a multiple of ${alignment}`);
    }
    const end = start + offset + bytes;
    if (!(end <= source.size)) {
      throw badFile(source.path, `file ends at byte ${source.size}, tensor ${quoted(name)} needs ${end}`);
    }
    tensors.set(name, { dtype, shape, source, offset: start + offset, bytes });
  }
  const order = [...tensors].sort((a, b) => a[1].offset - b[1].offset);
  for (let i = 1; i < order.length; i++) {
    const [before, a] = order[i - 1] as [string, TensorEntry], [name, b] = order[i] as [string, TensorEntry];
    if (a.offset + a.bytes > b.offset) {
      throw badFile(source.path, `tensors ${quoted(before)} and ${quoted(name)} overlap`);
    }
  }
  return tensors;
}

/** The path of each part when `path` is named as one (`x-00001-of-00003.gguf`), else `[path]`. */
export function splitPaths(path: string): string[] {
  const match = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/s.exec(path);
  const total = Number(match?.[3] ?? 0);
  if (match === null || total < 1 || total > MAX_SPLITS) return [path];
  const five = (n: number) => String(n).padStart(5, "0");
  return Array.from({ length: total }, (_, i) => `${match[1]}-${five(i + 1)}-of-${five(total)}.gguf`);
}

/**
 * Opens a GGUF file, and its other parts when it is one of several. Files stay open for reading tensors until disposed.
 *
 * Throws `ModelFileError` with the path and what is wrong.
 */
export function openGguf(path: string): GgufFile {
  const parts: GgufFile[] = [];
  const dispose = () => parts.forEach((part) => part[Symbol.dispose]());
  try {
    for (const name of splitPaths(path)) {
      const source = new FileSource(name);
      try {
        parts.push(parseGguf(source));
      } catch (error) {
        source.close();
        throw error;
      }
    }
    return joinParts(parts, dispose);
  } catch (error) {
    dispose();
    throw error;
  }
}

/** One model out of its parts, in order. */
export function joinParts(parts: readonly GgufFile[], dispose: () => void): GgufFile {
  const first = parts[0] as GgufFile;
  const path = first.paths[0] as string;
  const declared = first.metadata.get("split.count") ?? 1;
  if (declared !== 0 && declared !== parts.length) {
    throw badFile(path, `split.count is ${shown(declared)}, files found: ${parts.length}; keep the parts' names`);
  }
  const tensors = new Map<string, TensorEntry>();
  parts.forEach((part, i) => {
    const at = part.metadata.get("split.no");
    const where = part.paths[0] as string;
    if (parts.length > 1 && at !== i) throw badFile(where, `split.no is ${shown(at)}, ${i} expected`);
    for (const [name, entry] of part.tensors) {
      if (tensors.has(name)) throw badFile(where, `tensor ${quoted(name)} occurs in two parts`);
      tensors.set(name, entry);
    }
  });
  const total = first.metadata.get("split.tensors.count");
  if (total !== undefined && total !== tensors.size) {
    throw badFile(path, `split.tensors.count is ${shown(total)}, the parts hold ${tensors.size}`);
  }
  return {
    version: first.version,
    metadata: first.metadata,
    tensors,
    dataOffset: first.dataOffset,
    paths: parts.map((part) => part.paths[0] as string),
    [Symbol.dispose]: dispose,
  };
}
