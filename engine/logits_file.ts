/**
 * Saved logits: rows of raw logits, each with the token that followed. Format: docs/logits_file.md.
 *
 * @module
 */
import { ModelFileError } from "../core/errors.ts";

const MAGIC = 0x474c564b; // "KVLG"
const VERSION = 1;
const HEADER_BYTES = 16;

/** An open file of saved logits. Dispose closes it. */
export class LogitsFile implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #path: string;
  readonly #vocab: number;
  readonly #rowBytes: number;
  /** Rows in the file. */
  rows: number;

  private constructor(file: Deno.FsFile, path: string, vocab: number, rows: number) {
    this.#file = file;
    this.#path = path;
    this.#vocab = vocab;
    this.#rowBytes = 4 + 4 * vocab;
    this.rows = rows;
  }

  /**
   * Opens for reading, or for appending to what is there (a missing or empty file gets its header). Throws
   * `ModelFileError` when it is no such file, or one of another vocabulary.
   */
  static open(path: string, vocab: number, mode: "read" | "append"): LogitsFile {
    const append = mode === "append";
    const file = Deno.openSync(path, append ? { read: true, write: true, create: true } : { read: true });
    try {
      const size = file.statSync().size;
      if (append && size === 0) {
        writeAll(file, new Uint8Array(Uint32Array.of(MAGIC, VERSION, vocab, 0).buffer));
        return new LogitsFile(file, path, vocab, 0);
      }
      const bad = (why: string) => new ModelFileError(`Cannot open saved logits "${path}": ${why}`);
      const header = new Uint32Array(HEADER_BYTES / 4);
      if (size < HEADER_BYTES || !readAll(file, new Uint8Array(header.buffer))) {
        throw bad("it is shorter than its header");
      }
      if (header[0] !== MAGIC) throw bad("it does not begin with KVLG");
      if (header[1] !== VERSION) throw bad(`its version is ${header[1]}, expected ${VERSION}`);
      if (header[2] !== vocab) throw bad(`its vocabulary has ${header[2]} tokens, the model's ${vocab}`);
      const rows = (size - HEADER_BYTES) / (4 + 4 * vocab);
      if (!Number.isInteger(rows)) throw bad(`it ends inside row ${Math.floor(rows)}`);
      file.seekSync(0, append ? Deno.SeekMode.End : Deno.SeekMode.Start);
      return new LogitsFile(file, path, vocab, rows);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Appends rows: `tokens[i]` followed the position that logits [count, vocab] predict from. */
  append(tokens: ArrayLike<number>, logits: Float32Array): void {
    const row = new ArrayBuffer(this.#rowBytes);
    const [token, values] = [new Int32Array(row, 0, 1), new Float32Array(row, 4)];
    for (let i = 0; i < tokens.length; i++) {
      token[0] = tokens[i] as number;
      values.set(logits.subarray(i * this.#vocab, (i + 1) * this.#vocab));
      writeAll(this.#file, new Uint8Array(row));
    }
    this.rows += tokens.length;
  }

  /**
   * Reads rows `[row, row + tokens.length)` and hands each one's logits [vocab] to `take`. Throws `ModelFileError` when
   * there are too few, or when one was saved for another token than `tokens[i]`.
   */
  read(row: number, tokens: ArrayLike<number>, take: (logits: Float32Array<ArrayBuffer>, i: number) => void): void {
    const bad = (why: string) => new ModelFileError(`Cannot compare with saved logits "${this.#path}": ${why}`);
    if (row + tokens.length > this.rows) {
      throw bad(
        `it has ${this.rows} rows, ${row + tokens.length} are needed; save them with the same text and settings`,
      );
    }
    const bytes = new ArrayBuffer(this.#rowBytes);
    this.#file.seekSync(HEADER_BYTES + row * this.#rowBytes, Deno.SeekMode.Start);
    for (let i = 0; i < tokens.length; i++) {
      if (!readAll(this.#file, new Uint8Array(bytes))) throw bad(`it ends inside row ${row + i}`);
      const saved = new Int32Array(bytes, 0, 1)[0];
      if (saved !== tokens[i]) {
        throw bad(
          `row ${row + i} is of token ${saved}, the text has ${tokens[i]}; save them with the same text and settings`,
        );
      }
      take(new Float32Array(bytes, 4), i);
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

function readAll(file: Deno.FsFile, bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length;) {
    const count = file.readSync(bytes.subarray(done));
    if (count === null) return false;
    done += count;
  }
  return true;
}
