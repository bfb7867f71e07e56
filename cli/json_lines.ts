/**
 * A file that gets one JSON object a line.
 *
 * @module
 */
import { describeError, UsageError } from "./exit.ts";

/** Appends to a file. What cannot be written is reported once, and never stops who writes. */
export class JsonLines implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #path: string;
  readonly #report: (line: string) => void;
  #isBroken = false;

  /** Throws `UsageError` for a file that cannot be opened. */
  constructor(path: string, report: (line: string) => void) {
    this.#path = path;
    this.#report = report;
    try {
      this.#file = Deno.openSync(path, { append: true, create: true, mode: 0o600 });
    } catch (error) {
      throw new UsageError(describeError(error));
    }
  }

  /** Adds one line. */
  write(value: unknown): void {
    try {
      let bytes = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
      while (bytes.length > 0) bytes = bytes.subarray(this.#file.writeSync(bytes));
      this.#isBroken = false;
    } catch (error) {
      if (!this.#isBroken) {
        this.#report(`Cannot write to "${this.#path}": ${(error as Error).message}; going on without`);
      }
      this.#isBroken = true;
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}
