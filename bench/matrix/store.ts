/**
 * Results as a file of JSON lines that a run can be stopped at any time and gone on with.
 *
 * A line is appended by one write and flushed; a last line that was cut off is taken away when the file is opened again.
 *
 * @module
 */
import type { Cell } from "./cell.ts";

/** An open results file. */
export class ResultFile implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #keys = new Set<string>();

  /**
   * Makes the file where there is none. Throws `SyntaxError` for a line in its middle that is no result, `Error` while another run
   * has the file.
   */
  constructor(path: string) {
    this.#file = Deno.openSync(path, { read: true, append: true, create: true });
    try {
      // Two runs would each take the other's cells for unfinished, and a last line for cut off.
      if (!this.#file.tryLockSync(true)) throw new Error(`Cannot write to "${path}": another run is writing to it`);
      const whole = wholeLines(Deno.readFileSync(path));
      for (const { key } of parseCells(new TextDecoder().decode(whole), path)) this.#keys.add(key);
      this.#file.truncateSync(whole.length);
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** Whether a cell is finished. */
  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Throws what the file system throws; the line is there whole or not at all once the file is opened again. */
  append(cell: Cell): void {
    const bytes = new TextEncoder().encode(JSON.stringify(cell, refuseHoles) + "\n");
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#file.syncDataSync();
    this.#keys.add(cell.key);
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** JSON writes what is not finite as null, which nobody could tell from a value that is not there. */
function refuseHoles(key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`Cannot write a result: "${key}" is ${value}`);
  }
  return value;
}

function wholeLines(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, bytes.lastIndexOf(0x0a) + 1);
}

/** The cells of a results file; `source` names it in errors. */
export function parseCells(text: string, source: string): Cell[] {
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    let cell: Partial<Cell> | null;
    try {
      cell = JSON.parse(line);
    } catch (error) {
      if (i === lines.length - 1) return [];
      throw new SyntaxError(`Cannot read "${source}": line ${i + 1} is no JSON (${(error as Error).message})`);
    }
    if (
      cell?.kind !== "cell" || typeof cell.key !== "string" || cell.spec === undefined || cell.quality === undefined
    ) {
      throw new SyntaxError(`Cannot read "${source}": line ${i + 1} is no result of the matrix`);
    }
    return [cell as Cell];
  });
}
