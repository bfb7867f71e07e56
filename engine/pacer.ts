/**
 * How large a prompt chunk may be so that others are not kept waiting.
 *
 * Larger chunks read weights and cache fewer times (SmolLM2 on 2 cores, 3072 tokens: chunks of 128 make 974 tokens a
 * second, 256 1188, 512 1371). But the tokens of other sequences wait for a chunk's end, and so does a cancel where steps
 * cannot be interrupted.
 *
 * @module
 */

/** A chunk should take so long when somebody's stream waits for it; 300 ms is the longest pause that it should see. */
const SHARED_MS = 200;
/** And so long when nobody does; a cancel then interrupts it between two layers. */
const ALONE_MS = 700;
/** Chunks are whole multiples of this, where they are that large: kernels work on tiles of tokens. */
const TILE_TOKENS = 32;
/** Before anything was measured: small enough for the slowest backend not to hang. */
const FIRST_TOKENS = 32;

/** Learns from the steps it is told of. */
export class Pacer {
  readonly #maxTokens: number;
  #msPerToken: number | undefined;

  /** Chunks never exceed `maxTokens`. */
  constructor(maxTokens: number) {
    this.#maxTokens = maxTokens;
  }

  /** Most tokens of the next chunk, at least 1; `isAlone`: no stream waits for its end, and it can be interrupted. */
  chunkTokens(isAlone: boolean): number {
    const targetMs = isAlone ? ALONE_MS : SHARED_MS;
    const wanted = this.#msPerToken === undefined ? FIRST_TOKENS : targetMs / this.#msPerToken;
    const tiled = wanted < TILE_TOKENS ? Math.floor(wanted) : wanted - wanted % TILE_TOKENS;
    return Math.max(1, Math.min(tiled, this.#maxTokens));
  }

  /** A step with `numTokens` of a prompt took `ms`. */
  record(numTokens: number, ms: number): void {
    if (numTokens < 1 || !(ms > 0)) return;
    // Short prompts and ends of prompts say little: most of their time would not grow with their length.
    if (2 * numTokens < this.chunkTokens(false) && ms < SHARED_MS) return;
    // The cost of a token grows with depth and small chunks cost more each, so the latest says most.
    const latest = ms / numTokens;
    this.#msPerToken = this.#msPerToken === undefined ? latest : 0.7 * latest + 0.3 * this.#msPerToken;
  }
}
