/**
 * Memory between sequences: what one has left is the next one's.
 *
 * A system that gets pages back clears them before it gives them out again, and a virtual machine's may go back to its host and cost 4 ms a
 * MB: a tenth of the time of short answers, and the longest pauses of streams. So they are kept while steps run, and for a moment longer.
 *
 * @module
 */

/** Who has memory to keep: a backend. */
export interface Keeper {
  /** `Backend.keep`. */
  keep?(bytes: number): void;
}

/** Eight caches of 1400 tokens of SmolLM2. */
const MOST_BYTES = 256 * 2 ** 20;
/** Nothing has run for so long: what is kept is not needed soon. */
const IDLE_MS = 1000;

/** See the module's head. */
export class Reserve {
  readonly #keeper: Keeper;
  readonly #idleMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isKept = false;

  /** Keeps nothing yet; later until nothing has run for `idleMs`. */
  constructor(keeper: Keeper, idleMs = IDLE_MS) {
    this.#keeper = keeper;
    this.#idleMs = idleMs;
  }

  /** Steps are about to run. */
  begin(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isKept) return;
    this.#isKept = true;
    this.#keeper.keep?.(MOST_BYTES);
  }

  /** No step is left to run: in a moment, unless others begin, all goes back. */
  end(): void {
    clearTimeout(this.#timer);
    const timer = setTimeout(() => this.release(), this.#idleMs);
    // Nobody waits for it.
    Deno.unrefTimer(timer);
    this.#timer = timer;
  }

  /** All goes back now. */
  release(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#isKept) this.#keeper.keep?.(0);
    this.#isKept = false;
  }
}
