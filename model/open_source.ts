/**
 * Where model files' bytes come from, and how much memory reading them may take.
 *
 * A model file is hostile until checked: a length in it may claim anything. Every allocation whose size comes from a
 * file is therefore first taken from an {@link AllocationBudget}.
 *
 * @module
 */
import { ModelFileError } from "../core/errors.ts";
import type { DType, Shape } from "../core/tensor.ts";

/** Random access to one file's bytes. */
export interface ByteSource {
  /** Shown in errors. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Fills `into` from byte `offset` on; throws `ModelFileError` when the file ends before. */
  readAt(offset: number, into: Uint8Array): void;
  /** Idempotent. */
  close(): void;
}

/** Where one tensor of a model file lies. */
export interface TensorEntry {
  /** As stored. */
  readonly dtype: DType;
  /** Outermost dimension first. */
  readonly shape: Shape;
  /** The file it lies in. */
  readonly source: ByteSource;
  /** Absolute position in `source`. */
  readonly offset: number;
  /** Length in the file. */
  readonly bytes: number;
}

/** The error of a model file: `Cannot open model: <state> (<path>)`. */
export function badFile(path: string, state: string): ModelFileError {
  return new ModelFileError(`Cannot open model: ${state} (${path})`);
}

/** A name out of a file as errors show it: quoted, escaped, at most 80 characters. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? name.slice(0, 80) + "…" : name);
}

/** A value out of a file as errors show it: numbers as they are, texts quoted, the rest by its kind. */
export function shown(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (value === undefined || value === null) return "missing";
  if (isList(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "an object" : String(value);
}

/** An array or a typed array. */
export function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

/** Bytes of a file on disk, read synchronously; the page cache makes repeated reads cheap. */
export class FileSource implements ByteSource {
  /** Bytes, when it was opened. */
  readonly size: number;
  readonly #file: Deno.FsFile;
  #open = true;

  /** Opens `path`; throws `ModelFileError` when it is missing, unreadable or no regular file. */
  constructor(readonly path: string) {
    try {
      this.#file = Deno.openSync(path, { read: true });
    } catch (error) {
      throw badFile(path, error instanceof Deno.errors.NotFound ? "no such file" : (error as Error).message);
    }
    const info = this.#file.statSync();
    if (!info.isFile) {
      this.close();
      throw badFile(path, "not a regular file");
    }
    this.size = info.size;
  }

  readAt(offset: number, into: Uint8Array): void {
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    let done = 0;
    while (done < into.length) {
      const n = this.#file.readSync(done === 0 ? into : into.subarray(done));
      if (n === null) throw badFile(this.path, `file ends at byte ${offset + done}, ${offset + into.length} needed`);
      done += n;
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#file.close();
  }
}

/** Bytes in memory: tests, and files that are small anyway. */
export class MemorySource implements ByteSource {
  /** Bytes. */
  readonly size: number;

  /** `bytes` are borrowed. */
  constructor(readonly path: string, readonly bytes: Uint8Array) {
    this.size = bytes.length;
  }

  readAt(offset: number, into: Uint8Array): void {
    if (offset + into.length > this.size) {
      throw badFile(this.path, `file ends at byte ${this.size}, ${offset + into.length} needed`);
    }
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  close(): void {}
}

const MB = 1 << 20;

/** Memory that parsing one file may take: four times its size and 64 MB. */
export class AllocationBudget {
  /** Bytes. */
  readonly limit: number;
  /** Bytes taken so far. */
  used = 0;

  /** Budget of the file at `path` with `size` bytes. */
  constructor(readonly path: string, size: number) {
    this.limit = 4 * size + 64 * MB;
  }

  /** Accounts for an allocation that is about to happen; throws `ModelFileError` instead of letting it. */
  take(bytes: number, what: string): void {
    if (!(bytes >= 0 && this.used + bytes <= this.limit)) {
      throw badFile(
        this.path,
        `${what} needs ${bytes} bytes of memory, ${this.limit - this.used} allowed for this file`,
      );
    }
    this.used += bytes;
  }
}
