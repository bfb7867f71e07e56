/**
 * What searches cost on this machine, by which type `planned` decides: measured once per machine and build of the library, and
 * kept in the user's cache folder. A context that gets no costs decides by those of a reference machine.
 *
 * @module
 */
import { variable } from "../backends/library.ts";
import { indexErrorOf, type IndexLibrary } from "./ffi.ts";
import { NATIVE_STATUS } from "../core/errors.ts";
import { cString, fromCString } from "../backends/ffi.ts";

/** Bytes that the text of a table fits in, by the header. */
const MOST_BYTES = 4096;

/** A table and where it is kept. */
export interface MachineCosts {
  /** For the option `costs` of contexts. */
  readonly text: string;
  readonly file: string;
  /** Whether it was measured by this call. */
  readonly measured: boolean;
}

/**
 * The table of this machine for the library at `path`, from the cache or measured now, about a second. A file that holds no table
 * is written again. `isa` as the context's option. Undefined where none can be kept: decisions by a table that is another one in each
 * process could not be repeated, so the reference machine's are better.
 */
export function machineCosts(library: IndexLibrary, path: string, isa = "auto"): MachineCosts | undefined {
  const file = costsFile(path, isa);
  if (file === undefined) return undefined;
  const kept = readCosts(file);
  if (kept !== undefined) return { text: kept, file, measured: false };
  const text = measureCosts(library, isa);
  return writeCosts(file, text) ? { text, file, measured: true } : undefined;
}

/** Nanoseconds a key that the table gives for best keys of int8 codes: a scan's and a list's, headDim 64, groups of 4. */
export function costsOfKeys(text: string): { scan: number; lists: number } {
  const numbers = text.split(" ").map(Number);
  return { scan: numbers[16] as number, lists: numbers[20] as number };
}

function measureCosts(library: IndexLibrary, isa: string): string {
  const buffer = new Uint8Array(MOST_BYTES);
  const status = library.symbols.kvasir_index_costs(buffer, buffer.length, cString(isa));
  if (status !== NATIVE_STATUS.OK) throw indexErrorOf(library, status);
  return fromCString(buffer);
}

/** By what the costs depend on: the library's build and the processor. */
function costsFile(path: string, isa: string): string | undefined {
  const home = variable("HOME");
  const cache = variable("XDG_CACHE_HOME") ?? (home === undefined ? undefined : `${home}/.cache`);
  if (cache === undefined) return undefined;
  const { size, mtime } = Deno.statSync(path);
  const machine = [Deno.build.arch, navigator.hardwareConcurrency, processor(), path, size, mtime?.getTime(), isa].join(
    "\n",
  );
  return `${cache}/kvasir/costs/${hashOf(machine)}.txt`;
}

/** The processor's name where it can be read. */
function processor(): string {
  try {
    return /^model name\s*:\s*(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "";
  } catch {
    return "";
  }
}

/** FNV-1a's shape in two halves: keys of a cache, nobody forges them. */
function hashOf(text: string): string {
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (const byte of new TextEncoder().encode(text)) {
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x5bd1e995);
    b ^= b >>> 15;
  }
  return [a, b].map((x) => (x >>> 0).toString(16).padStart(8, "0")).join("");
}

/** The table in a file, undefined where there is none. */
export function readCosts(file: string): string | undefined {
  let text: string;
  try {
    if (Deno.statSync(file).size > MOST_BYTES) return undefined;
    text = Deno.readTextFileSync(file).trimEnd();
  } catch {
    return undefined;
  }
  const numbers = text.split(" ");
  const good = numbers.length === 270 && numbers.every((n) => /^[0-9.]+(e[+-]?[0-9]+)?$/.test(n) && Number(n) <= 1e9);
  return good ? text : undefined;
}

/** Complete or not at all; false where the folder may not be written. */
function writeCosts(file: string, text: string): boolean {
  try {
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    const part = `${file}.${Deno.pid}`;
    Deno.writeTextFileSync(part, text + "\n");
    Deno.renameSync(part, file);
    return true;
  } catch {
    return false;
  }
}
