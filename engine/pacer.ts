/**
 * How large a prompt chunk may be so that a cancel is heard in time.
 *
 * A step cannot be interrupted, so a chunk is as long as the wait for a cancel may be. Larger chunks read the weights
 * fewer times, but beyond 128 tokens nothing is left to gain (SmolLM2 on 2 cores, CPU time a token: 32 tokens 1.9 ms, 64
 * 1.6, 128 1.4, 256 1.3, 1024 1.6).
 *
 * @module
 */

/** A chunk should take so long; 300 ms is what a cancel may take, other work of the step included. */
const TARGET_MS = 150;
/** Chunks are whole multiples of this, where they are that large: kernels work on tiles of tokens. */
const TILE_TOKENS = 32;
/** Before anything was measured: small enough for the slowest backend not to hang. */
const FIRST_TOKENS = 64;

/** Learns from the steps it is told of. */
export class Pacer {
  readonly #maxTokens: number;
  #msPerToken: number | undefined;

  /** Chunks never exceed `maxTokens`. */
  constructor(maxTokens: number) {
    this.#maxTokens = maxTokens;
  }

  /** Most tokens of the next chunk, at least 1. */
  get chunkTokens(): number {
    const wanted = this.#msPerToken === undefined ? FIRST_TOKENS : TARGET_MS / this.#msPerToken;
    const tiled = wanted < TILE_TOKENS ? Math.floor(wanted) : wanted - wanted % TILE_TOKENS;
    return Math.max(1, Math.min(tiled, this.#maxTokens));
  }

  /** A step with `numTokens` of a prompt took `ms`. */
  record(numTokens: number, ms: number): void {
    if (numTokens < 1 || !(ms > 0)) return;
    // Short prompts and ends of prompts say little: most of their time would not grow with their length.
    if (2 * numTokens < this.chunkTokens && ms < TARGET_MS) return;
    // The cost of a token grows with depth and small chunks cost more each, so the latest says most.
    const latest = ms / numTokens;
    this.#msPerToken = this.#msPerToken === undefined ? latest : 0.7 * latest + 0.3 * this.#msPerToken;
  }
}
