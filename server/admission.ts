/**
 * How many requests may be under way: as many as run at once and a bounded queue behind them, fewer for each key.
 *
 * @module
 */
import { ApiError } from "./errors.ts";

/** See the module's head. */
export interface AdmissionLimits {
  /** Run at once. */
  readonly parallel: number;
  /** May wait. */
  readonly maxQueue: number;
  /** Of one key, running or waiting; without keys, of everybody. */
  readonly maxPerKey: number;
}

/** Hands out places. */
export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #byKey = new Map<string, number>();
  #total = 0;
  #isDraining = false;
  #emptied: (() => void)[] = [];

  constructor(limits: AdmissionLimits) {
    this.#limits = limits;
  }

  /** Requests under way. */
  get total(): number {
    return this.#total;
  }

  /** Whether no more requests are taken. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** A place for a request of `key`, to be disposed of when it is over. Throws `ApiError` when there is none. */
  enter(key: string): Disposable {
    if (this.#isDraining) throw unavailable("the server is shutting down", 5);
    const { parallel, maxQueue, maxPerKey } = this.#limits;
    if (this.#total >= parallel + maxQueue) throw unavailable(`${maxQueue} requests wait already`, 1);
    const own = this.#byKey.get(key) ?? 0;
    if (own >= maxPerKey) {
      throw new ApiError("rate_limit_error", `Cannot take request: ${own} of this key are under way already`, {
        headers: { "retry-after": "1" },
      });
    }
    this.#total++;
    this.#byKey.set(key, own + 1);
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        this.#leave(key);
      },
    };
  }

  /** Takes no more; resolves when all are over. */
  drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#total === 0) return Promise.resolve();
    return new Promise((resolve) => this.#emptied.push(resolve));
  }

  #leave(key: string): void {
    this.#total--;
    const left = (this.#byKey.get(key) ?? 1) - 1;
    if (left > 0) this.#byKey.set(key, left);
    else this.#byKey.delete(key);
    if (this.#total > 0) return;
    for (const resolve of this.#emptied.splice(0)) resolve();
  }
}

function unavailable(why: string, seconds: number): ApiError {
  return new ApiError("unavailable_error", `Cannot take request: ${why}, try again later`, {
    headers: { "retry-after": String(seconds) },
  });
}
