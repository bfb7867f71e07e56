/**
 * A cursor over a GGUF header: little-endian scalars and strings through one bounded window, so that a header of any
 * length is parsed without holding the file.
 *
 * @module
 */
import { AllocationBudget, badFile, type ByteSource } from "./open_source.ts";

const WINDOW = 256 * 1024;
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Forward reader with a window of 256 KiB; every read past the file's end is a `ModelFileError` naming what was read. */
export class HeaderReader {
  /** Pays for everything the header makes us allocate. */
  readonly budget: AllocationBudget;
  readonly #window: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  /** File offset of the window's first byte, filled bytes, and the cursor inside it. */
  #base = 0;
  #filled = 0;
  #at = 0;

  /** Starts at byte 0 of `source`. */
  constructor(readonly source: ByteSource) {
    this.budget = new AllocationBudget(source.path, source.size);
    this.#window = new Uint8Array(Math.min(WINDOW, Math.max(16, source.size)));
    this.#view = new DataView(this.#window.buffer);
    this.budget.take(this.#window.length, "header");
  }

  /** Absolute position of the next byte. */
  get position(): number {
    return this.#base + this.#at;
  }

  /** Bytes from the cursor to the file's end. */
  get remaining(): number {
    return this.source.size - this.position;
  }

  /** An error at the cursor. */
  fail(state: string): never {
    throw badFile(this.source.path, state);
  }

  /** One byte. */
  u8(what: string): number {
    return this.#view.getUint8(this.#need(1, what));
  }

  /** Four bytes, unsigned. */
  u32(what: string): number {
    return this.#view.getUint32(this.#need(4, what), true);
  }

  /** Four bytes, signed. */
  i32(what: string): number {
    return this.#view.getInt32(this.#need(4, what), true);
  }

  /** Single precision. */
  f32(what: string): number {
    return this.#view.getFloat32(this.#need(4, what), true);
  }

  /** Double precision. */
  f64(what: string): number {
    return this.#view.getFloat64(this.#need(8, what), true);
  }

  /** Two bytes, unsigned. */
  u16(what: string): number {
    return this.#view.getUint16(this.#need(2, what), true);
  }

  /** Two bytes, signed. */
  i16(what: string): number {
    return this.#view.getInt16(this.#need(2, what), true);
  }

  /** Eight bytes, signed; a bigint beyond 2^53. */
  i64(what: string): number | bigint {
    return narrow(this.#view.getBigInt64(this.#need(8, what), true));
  }

  /** Eight bytes, unsigned; a bigint beyond 2^53. */
  u64(what: string): number | bigint {
    const at = this.#need(8, what);
    const high = this.#view.getUint32(at + 4, true);
    // Most are small: two 32-bit reads avoid a BigInt each.
    if (high < 1 << 20) return high * 2 ** 32 + this.#view.getUint32(at, true);
    return narrow(this.#view.getBigUint64(at, true));
  }

  /** A u64 that counts something: at most 2^53, and at most `limit`. */
  count(what: string, limit: number): number {
    const value = this.u64(what);
    if (typeof value === "bigint" || value > limit) {
      this.fail(`${what} is ${value}, at most ${Math.floor(limit)} possible here`);
    }
    return value;
  }

  /** A string of the header; `fatal` refuses invalid UTF-8 (names), else it becomes U+FFFD (texts). */
  string(what: string, fatal: boolean): string {
    const length = this.count(`length of ${what}`, this.remaining - 8);
    this.budget.take(3 * length, what);
    const bytes = length <= this.#window.length
      ? this.#window.subarray(this.#need(length, what), this.#at)
      : this.bytes(length, what);
    if (!fatal) return lenient.decode(bytes);
    try {
      return strict.decode(bytes);
    } catch {
      return this.fail(`${what} is not valid UTF-8`);
    }
  }

  /** Moves past a string and returns its length in bytes: what a header of 262,144 tokens spends its time in. */
  skipString(what: string): number {
    const at = this.#need(8, what);
    const length = this.#view.getUint32(at, true);
    if (this.#view.getUint32(at + 4, true) !== 0) this.#ends(2 ** 32 * this.#view.getUint32(at + 4, true), what);
    if (this.#at + length <= this.#filled) this.#at += length;
    else this.skip(length, what);
    return length;
  }

  /** The next `length` bytes in memory of their own. */
  bytes(length: number, what: string): Uint8Array<ArrayBuffer> {
    if (length > this.remaining) this.#ends(length, what);
    this.budget.take(length, what);
    const out = new Uint8Array(length);
    this.source.readAt(this.position, out);
    this.skip(length, what);
    return out;
  }

  /** Moves the cursor without reading. */
  skip(length: number, what: string): void {
    if (length > this.remaining) this.#ends(length, what);
    if (this.#at + length <= this.#filled) this.#at += length;
    else {
      this.#base = this.position + length;
      this.#filled = 0;
      this.#at = 0;
    }
  }

  /** Makes `length` bytes (at most a window) available; returns their offset in the window and moves past them. */
  #need(length: number, what: string): number {
    if (this.#at + length > this.#filled) {
      if (length > this.remaining) this.#ends(length, what);
      this.#base += this.#at;
      this.#at = 0;
      this.#filled = Math.min(this.#window.length, this.source.size - this.#base);
      this.source.readAt(this.#base, this.#window.subarray(0, this.#filled));
    }
    const at = this.#at;
    this.#at += length;
    return at;
  }

  #ends(length: number, what: string): never {
    throw badFile(this.source.path, `file ends at byte ${this.source.size}, ${what} needs ${this.position + length}`);
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
