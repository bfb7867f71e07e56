/**
 * A folder of context files, one a name, read without native code: what `kvasir context` lists, and what prompts are compared
 * with. Rows and indexes in the files are for `context_file.ts`.
 *
 * @module
 */
import { checksum64 } from "../core/checksum.ts";
import { ContextError } from "../core/errors.ts";
import { type ContextAbout, decodeAbout } from "./context_about.ts";
import { checkContextName, isContextName } from "./context_names.ts";

/** Of the files' names. */
export const CONTEXT_SUFFIX = ".kvctx";

const PAGE = 4096;
const ENTRY = 64;
const MOST_SECTIONS = 1 << 16;
const MOST_FILES = 10_000;
/** Parts of files older than this belong to processes that were killed, where locks do not tell. */
const PART_LIVES_MS = 3_600_000;

/** One file. */
export interface SavedContext {
  /** File name without its ending. */
  readonly name: string;
  /** Where it lies. */
  readonly path: string;
  /** Of the file. */
  readonly bytes: number;
  /** When it was last used: its modification time. Milliseconds since 1970. */
  readonly usedMs: number;
  /** What it says of itself. */
  readonly about: ContextAbout;
  /** Whose keys and values it holds. */
  readonly tokens: Int32Array<ArrayBuffer>;
}

/** A file that cannot be read, and why. */
export interface BadContext {
  /** As {@link SavedContext}. */
  readonly name: string;
  /** As {@link SavedContext}. */
  readonly path: string;
  /** As {@link SavedContext}. */
  readonly bytes: number;
  /** A `ContextError`. */
  readonly error: Error;
}

/** See the module's head. Every call looks at the folder as it is. */
export class ContextDir {
  readonly #known = new Map<string, { readonly stamp: string; readonly entry: SavedContext | BadContext }>();

  /** It need not exist before something is saved. */
  constructor(readonly dir: string) {}

  /** Where a context of that name is; throws `RangeError` for what is no name. */
  path(name: string): string {
    return `${this.dir}/${checkContextName(name)}${CONTEXT_SUFFIX}`;
  }

  /** Makes the folder, for its owner only. */
  make(): void {
    Deno.mkdirSync(this.dir, { recursive: true, mode: 0o700 });
  }

  /** All, good and bad, the most recently used first. */
  list(): (SavedContext | BadContext)[] {
    const names: string[] = [];
    try {
      for (const { name, isFile } of Deno.readDirSync(this.dir)) {
        const stem = name.slice(0, -CONTEXT_SUFFIX.length);
        if (isFile && name.endsWith(CONTEXT_SUFFIX) && isContextName(stem)) names.push(stem);
        if (names.length > MOST_FILES) {
          throw new ContextError("full", `Cannot list contexts: "${this.dir}" has more than ${MOST_FILES}; prune it`);
        }
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const all = names.flatMap((name) => this.read(name) ?? []);
    const used = (e: SavedContext | BadContext) => "usedMs" in e ? e.usedMs : 0;
    return all.sort((a, b) => used(b) - used(a) || (a.name < b.name ? -1 : 1));
  }

  /** One of them; undefined when there is none. Read again only when the file has changed. */
  read(name: string): SavedContext | BadContext | undefined {
    const path = this.path(name);
    let info: Deno.FileInfo;
    try {
      info = Deno.lstatSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
    const usedMs = info.mtime?.getTime() ?? 0;
    const stamp = `${info.ino}:${info.size}:${usedMs}`;
    const known = this.#known.get(name);
    if (known?.stamp === stamp) return known.entry;
    const base = { name, path, bytes: info.size };
    let entry: SavedContext | BadContext;
    try {
      if (!info.isFile) throw damaged(path, "it is no regular file");
      entry = { ...base, usedMs, ...readHead(path, info.size) };
    } catch (error) {
      entry = { ...base, error: error as Error };
    }
    this.#known.set(name, { stamp, entry });
    return entry;
  }

  /** It was used now. */
  touch(name: string): void {
    const now = new Date();
    try {
      Deno.utimeSync(this.path(name), now, now);
    } catch (error) {
      // Contexts of others can be read; that they were is theirs to note.
      if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    }
  }

  /** Gives it another name; throws `ContextError` when there is none, or the other is taken. */
  rename(name: string, to: string): void {
    if (this.read(to) !== undefined) {
      throw new ContextError("exists", `Cannot rename context: "${to}" exists already, delete it first`);
    }
    this.#expect(name);
    Deno.renameSync(this.path(name), this.path(to));
  }

  /** Throws `ContextError` when there is none. Who has mapped it keeps it. */
  delete(name: string): void {
    this.#expect(name);
    Deno.removeSync(this.path(name));
    this.#known.delete(name);
  }

  /**
   * Deletes what has outlived its time or was not used for `maxAgeSeconds`, then the least recently used until `maxBytes` are
   * left, and leftovers of killed processes. Returns what went; with `dryRun` what would.
   */
  prune(
    { maxBytes = Infinity, maxAgeSeconds = Infinity, dryRun = false, keep = [] }: {
      readonly maxBytes?: number;
      readonly maxAgeSeconds?: number;
      readonly dryRun?: boolean;
      readonly keep?: readonly string[];
    },
    nowMs: number,
  ): { readonly name: string; readonly bytes: number; readonly why: "expired" | "age" | "size" | "part" }[] {
    const gone: { name: string; bytes: number; why: "expired" | "age" | "size" | "part" }[] = [];
    for (const part of this.#parts(nowMs)) {
      gone.push({ ...part, why: "part" });
      if (!dryRun) Deno.removeSync(`${this.dir}/${part.name}`);
    }
    const good = this.list().filter((e): e is SavedContext => "about" in e && !keep.includes(e.name));
    let left = this.list().reduce((sum, e) => sum + e.bytes, 0);
    for (const { name, bytes, usedMs, about } of good.reverse()) {
      const age = nowMs - usedMs;
      const isOver = about.ttlSeconds > 0 && age >= 1000 * about.ttlSeconds;
      const why = isOver ? "expired" : age > 1000 * maxAgeSeconds ? "age" : left > maxBytes ? "size" : undefined;
      if (why === undefined) continue;
      gone.push({ name, bytes, why });
      left -= bytes;
      if (!dryRun) this.delete(name);
    }
    return gone;
  }

  /** Deletes what killed processes left. What cannot be deleted stays. */
  sweep(nowMs: number): void {
    for (const { name } of this.#parts(nowMs)) {
      try {
        Deno.removeSync(`${this.dir}/${name}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied)) throw error;
      }
    }
  }

  #expect(name: string): void {
    if (this.read(name) !== undefined) return;
    throw new ContextError("missing", `Cannot find context "${name}": "${this.dir}" has none of that name`);
  }

  #parts(nowMs: number): { readonly name: string; readonly bytes: number }[] {
    const parts: { name: string; bytes: number }[] = [];
    try {
      for (const { name, isFile } of Deno.readDirSync(this.dir)) {
        if (!isFile || !/\.kvctx\.part-\d+-\d+$/.test(name)) continue;
        const path = `${this.dir}/${name}`;
        const { size, mtime } = Deno.lstatSync(path);
        if (isAbandoned(path, size, nowMs - (mtime?.getTime() ?? nowMs))) parts.push({ name, bytes: size });
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return parts;
  }
}

/** Who writes a part holds a lock on it from before its first byte (native/base/part_file.h). */
function isAbandoned(path: string, size: number, ageMs: number): boolean {
  try {
    using file = Deno.openSync(path);
    if (!file.tryLockSync(true)) return false;
    return size > 0 || ageMs > PART_LIVES_MS;
  } catch {
    return ageMs > PART_LIVES_MS;
  }
}

function damaged(path: string, why: string): ContextError {
  return new ContextError("damaged", `Cannot open context "${path}": ${why}; delete it and make it anew`);
}

/** Header, directory and description, all checked, and the tokens. */
function readHead(path: string, size: number): Pick<SavedContext, "about" | "tokens"> {
  using file = Deno.openSync(path);
  const read = (offset: number, bytes: number) => {
    const out = new Uint8Array(bytes);
    file.seekSync(offset, Deno.SeekMode.Start);
    let done = 0;
    for (let n: number | null; done < bytes && (n = file.readSync(out.subarray(done))) !== null;) done += n;
    if (done < bytes) throw damaged(path, "it is cut short");
    return out;
  };
  if (size < PAGE) throw damaged(path, "it is no context file");
  const header = read(0, PAGE);
  const view = new DataView(header.buffer);
  if (new TextDecoder().decode(header.subarray(0, 8)) !== "KVASIRCX") throw damaged(path, "it is no context file");
  if (view.getBigUint64(PAGE - 8, true) !== checksum64(header.subarray(0, PAGE - 8))) {
    throw damaged(path, "its header is damaged");
  }
  const [version, count] = [view.getUint32(8, true), view.getUint32(12, true)];
  if (version !== 1) throw damaged(path, `its version is ${version}, expected 1`);
  const [bytes, directory] = [Number(view.getBigUint64(16, true)), Number(view.getBigUint64(24, true))];
  if (bytes !== size) throw damaged(path, `it has ${size} bytes, expected ${bytes}`);
  if (count > MOST_SECTIONS || directory !== size - count * ENTRY || directory % PAGE !== 0) {
    throw damaged(path, "its directory is damaged");
  }
  const entries = read(directory, count * ENTRY);
  if (view.getBigUint64(32, true) !== checksum64(entries)) throw damaged(path, "its directory is damaged");
  const section = (wanted: string, isChecked: boolean) => {
    for (let i = 0; i < count; i++) {
      const entry = entries.subarray(i * ENTRY, (i + 1) * ENTRY);
      const name = new TextDecoder().decode(entry.subarray(0, 32)).replace(/\0+$/, "");
      if (name !== wanted) continue;
      const fields = new DataView(entry.buffer, entry.byteOffset + 32, 32);
      const [offset, length] = [Number(fields.getBigUint64(0, true)), Number(fields.getBigUint64(8, true))];
      if (offset < PAGE || length > 1 << 30 || offset + length > directory) {
        throw damaged(path, "its directory is damaged");
      }
      const data = read(offset, length);
      if (isChecked && fields.getBigUint64(16, true) !== checksum64(data)) {
        throw damaged(path, `section "${wanted}" is damaged`);
      }
      return data;
    }
    throw damaged(path, `it has no section "${wanted}"`);
  };
  const about = decodeAbout(section("about", true), path);
  // Checked by native code when the file is opened: until then they only say whether it is worth opening.
  const tokens = section("tokens", false);
  if (tokens.length !== 4 * about.tokens) throw damaged(path, "its tokens are not as many as it says");
  return { about, tokens: new Int32Array(tokens.buffer) };
}
