/**
 * Reads the header of a safetensors file: an 8-byte length, JSON of tensor types, shapes and byte ranges, then data.
 *
 * The format is the one of Hugging Face's `safetensors`. Every range is checked against the file and the others.
 *
 * @module
 */
import { byteLength } from "../core/dtype.ts";
import type { DType, Shape } from "../core/tensor.ts";
import { parseJson } from "./open_json.ts";
import { AllocationBudget, badFile, type ByteSource, quoted, shown, type TensorEntry } from "./open_source.ts";

const DTYPES: Readonly<Record<string, DType>> = { F32: "f32", F16: "f16", BF16: "bf16" };
const MAX_HEADER = 100_000_000;

/** Tensors of one file by the names in it. Throws `ModelFileError`; `source` stays open and belongs to the caller. */
export function parseSafetensors(source: ByteSource): Map<string, TensorEntry> {
  const fail = (state: string) => badFile(source.path, state);
  const budget = new AllocationBudget(source.path, source.size);
  if (source.size < 8) throw fail(`file has ${source.size} bytes, a safetensors header needs 8`);
  const prefix = new Uint8Array(8);
  source.readAt(0, prefix);
  const declared = new DataView(prefix.buffer).getBigUint64(0, true);
  const most = Math.min(MAX_HEADER, source.size - 8);
  if (declared > BigInt(most)) throw fail(`header claims ${declared} bytes, at most ${most} possible here`);
  const length = Number(declared);
  budget.take(length, "header");
  const bytes = new Uint8Array(length);
  source.readAt(8, bytes);
  const header = parseJson(bytes, source.path, "header", budget);
  if (!isObject(header)) throw fail("header is no JSON object");

  const tensors = new Map<string, TensorEntry>();
  const start = 8 + length;
  for (const [name, info] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    budget.take(256, "tensor list");
    const { dtype, shape, begin, end } = readInfo(info, name, source.path);
    if (start + end > source.size) {
      throw fail(`file ends at byte ${source.size}, tensor ${quoted(name)} needs ${start + end}`);
    }
    const wanted = byteLength(shape, dtype);
    if (end - begin !== wanted) {
      throw fail(`tensor ${quoted(name)} has ${end - begin} bytes, ${dtype} [${shape.join(", ")}] needs ${wanted}`);
    }
    tensors.set(name, { dtype, shape, source, offset: start + begin, bytes: wanted });
  }
  const order = [...tensors].sort((a, b) => a[1].offset - b[1].offset);
  for (let i = 1; i < order.length; i++) {
    const [before, a] = order[i - 1] as [string, TensorEntry], [name, b] = order[i] as [string, TensorEntry];
    if (a.offset + a.bytes > b.offset) throw fail(`tensors ${quoted(before)} and ${quoted(name)} overlap`);
  }
  return tensors;
}

interface Info {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Byte range after the header. */
  readonly begin: number;
  readonly end: number;
}

function readInfo(info: unknown, name: string, path: string): Info {
  const what = `tensor ${quoted(name)}`;
  if (!isObject(info)) throw badFile(path, `${what} is no JSON object`);
  const type = info["dtype"], shape = info["shape"], offsets = info["data_offsets"];
  const dtype = typeof type === "string" && Object.hasOwn(DTYPES, type) ? DTYPES[type] : undefined;
  if (dtype === undefined) {
    throw badFile(
      path,
      `${what} has type ${shown(type)}, which is not supported; supported are ${Object.keys(DTYPES).join(", ")}`,
    );
  }
  if (!Array.isArray(shape) || shape.length > 4 || !shape.every((d) => Number.isSafeInteger(d) && d > 0)) {
    throw badFile(path, `${what} has no valid shape, up to 4 positive dimensions needed`);
  }
  let elements = 1;
  for (const d of shape as number[]) elements *= d;
  if (!Number.isSafeInteger(8 * elements)) throw badFile(path, `${what} is too large: shape [${shape.join(", ")}]`);
  const [begin, end] = Array.isArray(offsets) ? offsets : [];
  if (!Number.isSafeInteger(begin) || !Number.isSafeInteger(end) || begin < 0 || end < begin) {
    throw badFile(path, `${what} has no valid data_offsets`);
  }
  return { dtype, shape: shape as number[], begin, end };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
