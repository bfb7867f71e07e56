/**
 * Stop strings over streamed text: what might become one is held back until it is decided.
 *
 * The result does not depend on how the text was cut into pieces: the first stop string to be complete wins, and of
 * those that end together the longest.
 *
 * @module
 */

/** What one piece of text released. */
export interface StopResult {
  /** Text that can no longer be part of a stop string, or what came before the one that matched. */
  readonly text: string;
  /** The stop string that was found; everything after it is dropped. */
  readonly matched?: string;
}

/** Watches one stream of text. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";

  /** Throws `RangeError` when a stop string is empty: it would end every text at once. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new RangeError("Cannot use stop strings: one is empty, leave it out");
    this.#stops = stops;
  }

  /** Takes the next piece of text (whole characters). */
  push(text: string): StopResult {
    if (this.#stops.length === 0) return { text };
    const all = this.#held + text;
    const found = this.#find(all);
    if (found !== undefined) {
      this.#held = "";
      return { text: all.slice(0, found.start), matched: found.stop };
    }
    const keep = this.#undecided(all);
    this.#held = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep) };
  }

  /** The text ended otherwise: releases what was held back. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  #find(text: string): { start: number; stop: string } | undefined {
    let best: { start: number; end: number; stop: string } | undefined;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      if (best === undefined || end < best.end || (end === best.end && start < best.start)) best = { start, end, stop };
    }
    return best;
  }

  /** Length of the longest ending of `text` that begins a stop string. */
  #undecided(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, text.length); n > longest; n--) {
        if (text.endsWith(stop.slice(0, n))) longest = n;
      }
    }
    return longest;
  }
}
