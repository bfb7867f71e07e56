/**
 * Collects events and posts them together.
 *
 * A message wakes the caller's thread, which on a small machine takes a core from the threads that decode; with cold caches
 * the message alone costs 1 % of a decode step. So plain tokens wait until some milliseconds have passed, no more than
 * between two pictures of a display; whatever else happens, a first token above all, is posted at once.
 *
 * @module
 */
import type { TokenEvent } from "./types.ts";

/** Events of one request, oldest first. */
export interface RequestEvents {
  /** The request's. */
  readonly id: number;
  /** At least one. */
  readonly events: readonly TokenEvent[];
}

/** Longest time that a plain token waits, but for the step that is under way: one picture of a display. */
const HOLD_MS = 16;
/**
 * Where many are told, longer: each of them is another write and another client that wakes, which takes some 0.1 ms, and so no
 * more than a fortieth of the time. No longer than a reader would not notice.
 */
const HOLD_EACH_MS = 4, HOLD_MOST_MS = 40;

/** See the module's head. Times are milliseconds of one clock. */
export class Outbox {
  readonly #post: (all: readonly RequestEvents[]) => void;
  #waiting: { readonly id: number; readonly events: TokenEvent[] }[] = [];
  /** Requests that were told of a token. */
  readonly #started = new Set<number>();
  #postedMs = -Infinity;
  #isUrgent = false;

  /** `post` gets whatever is due, in one piece. */
  constructor(post: (all: readonly RequestEvents[]) => void) {
    this.#post = post;
  }

  /** Takes events of request `id`. */
  add(id: number, events: readonly TokenEvent[]): void {
    let entry = this.#waiting.find((e) => e.id === id);
    if (entry === undefined) this.#waiting.push(entry = { id, events: [] });
    for (const event of events) {
      entry.events.push(event);
      if (event.type === "token" && this.#started.has(id)) continue;
      this.#isUrgent = true;
      if (event.type === "token") this.#started.add(id);
      else if (event.type === "done") this.#started.delete(id);
    }
  }

  /** A step is over: posts what is due. */
  turn(nowMs: number): void {
    const holdMs = Math.min(HOLD_MOST_MS, Math.max(HOLD_MS, HOLD_EACH_MS * this.#started.size));
    if (this.#isUrgent || nowMs - this.#postedMs >= holdMs) this.flush(nowMs);
  }

  /** Posts everything. */
  flush(nowMs: number): void {
    this.#isUrgent = false;
    if (this.#waiting.length === 0) return;
    this.#postedMs = nowMs;
    const all = this.#waiting;
    this.#waiting = [];
    this.#post(all);
  }

  /** Request `id` failed: what came before is posted, and it is forgotten. */
  drop(id: number, nowMs: number): void {
    this.flush(nowMs);
    this.#started.delete(id);
  }
}
