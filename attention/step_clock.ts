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
  readonly #spent = { searchMs: 0, attendMs: 0, sampleMs: 0 };
  readonly #now: () => number;
  readonly #startMs: number;

  /** The step begins. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#startMs = now();
  }

  /** Runs attention, searches within it included. */
  attend<T>(run: () => T): T {
    const searchedMs = this.#spent.searchMs;
    const result = this.#count("attendMs", run);
    this.#spent.attendMs -= this.#spent.searchMs - searchedMs;
    return result;
  }

  /** Runs a search. */
  search<T>(run: () => T): T {
    return this.#count("searchMs", run);
  }

  /** Runs what draws tokens. */
  sample<T>(run: () => T): T {
    return this.#count("sampleMs", run);
  }

  /** The step is over. */
  times(): StepTimes {
    const { searchMs, attendMs, sampleMs } = this.#spent;
    const modelMs = this.#now() - this.#startMs - searchMs - attendMs - sampleMs;
    return { steps: 1, searchMs, attendMs, sampleMs, modelMs };
  }

  #count<T>(what: "searchMs" | "attendMs" | "sampleMs", run: () => T): T {
    const startMs = this.#now();
    const result = run();
    this.#spent[what] += this.#now() - startMs;
    return result;
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
