/**
 * JSON files of a model folder, read within limits.
 *
 * @module
 */
import { AllocationBudget, badFile, type ByteSource, FileSource } from "./open_source.ts";

const MAX_BYTES = 256 * (1 << 20);

/** Parses JSON text; `budget` also pays for what parsing makes of it. Throws `ModelFileError` when it is not JSON. */
export function parseJson(bytes: Uint8Array, path: string, what: string, budget: AllocationBudget): unknown {
  budget.take(parsedBytes(bytes), what);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    // The reason quotes what it found: not the text's own control characters.
    // deno-lint-ignore no-control-regex
    const reason = error instanceof SyntaxError ? error.message.replace(/[\u0000-\u001f]+/g, "·") : "not UTF-8";
    throw badFile(path, `${what} is not valid JSON: ${reason}`);
  }
}

/** Reads a whole text file of at most 256 MiB, or undefined when there is none. */
export function readSmallFile(path: string): Uint8Array | undefined {
  try {
    if (!Deno.statSync(path).isFile) return undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw badFile(path, (error as Error).message);
  }
  const source = new FileSource(path);
  try {
    return readWhole(source);
  } finally {
    source.close();
  }
}

/** Parses the JSON file at `path`, or gives undefined when there is none. */
export function readJsonFile(path: string): unknown {
  const bytes = readSmallFile(path);
  if (bytes === undefined) return undefined;
  return parseJson(bytes, path, "the file", new AllocationBudget(path, bytes.length));
}

function readWhole(source: ByteSource): Uint8Array {
  if (source.size > MAX_BYTES) throw badFile(source.path, `file has ${source.size} bytes, at most ${MAX_BYTES} read`);
  const bytes = new Uint8Array(source.size);
  source.readAt(0, bytes);
  return bytes;
}

/**
 * About what the parsed value takes. Text costs two bytes a character at most; an object, an array or an element costs
 * far more than the two characters it may take in the file, so they are counted.
 */
function parsedBytes(bytes: Uint8Array): number {
  let containers = 0, elements = 0;
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i];
    if (c === 0x5b || c === 0x7b) containers++;
    else if (c === 0x2c) elements++;
  }
  return 2 * bytes.length + 48 * containers + 8 * elements;
}
