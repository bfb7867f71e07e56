/**
 * Where the time of decode steps goes. Reading a clock is dear beside a search, so only few steps are clocked.
 *
 * @module
 */

/** Milliseconds of one decode step, or sums of several. */
export interface StepTimes {
  /** So many steps were clocked. */
  readonly steps: number;
  /** Indexes searched, and built what searches need. */
  readonly searchMs: number;
  /** Keys and values joined the cache and were attended to. */
  readonly attendMs: number;
  /** The model's own: everything else that makes logits. */
  readonly modelMs: number;
  /** From logits to tokens. */
  readonly sampleMs: number;
}

/** Clocks one step at a time; calls may lie within each other, and each counts what is its own. */
export class StepClock {
  #searchMs = 0;
  #attendMs = 0;
  #sampleMs = 0;
  readonly #now: () => number;
  readonly #startMs: number;

  /** The step begins. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#startMs = now();
  }

  /** Runs attention, searches within it included. */
  attend<T>(run: () => T): T {
    const [startMs, searchedMs] = [this.#now(), this.#searchMs];
    const result = run();
    this.#attendMs += this.#now() - startMs - (this.#searchMs - searchedMs);
    return result;
  }

  /** Runs a search. */
  search<T>(run: () => T): T {
    const startMs = this.#now();
    const result = run();
    this.#searchMs += this.#now() - startMs;
    return result;
  }

  /** Runs what draws tokens. */
  sample<T>(run: () => T): T {
    const startMs = this.#now();
    const result = run();
    this.#sampleMs += this.#now() - startMs;
    return result;
  }

  /** The step is over. */
  times(): StepTimes {
    const [searchMs, attendMs, sampleMs] = [this.#searchMs, this.#attendMs, this.#sampleMs];
    return {
      steps: 1,
      searchMs,
      attendMs,
      sampleMs,
      modelMs: this.#now() - this.#startMs - searchMs - attendMs - sampleMs,
    };
  }
}

/** Of all of them together; undefined: of none. */
export function addTimes(a: StepTimes | undefined, b: StepTimes): StepTimes {
  if (a === undefined) return b;
  return {
    steps: a.steps + b.steps,
    searchMs: a.searchMs + b.searchMs,
    attendMs: a.attendMs + b.attendMs,
    modelMs: a.modelMs + b.modelMs,
    sampleMs: a.sampleMs + b.sampleMs,
  };
}
