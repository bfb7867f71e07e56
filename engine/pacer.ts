/**
 * How large a prompt chunk may be so that others are not kept waiting.
 *
 * Larger chunks read weights and cache fewer times (SmolLM2 on 2 cores, 3072 tokens: chunks of 128 make 974 tokens a
 * second, 256 1188, 512 1371). But the tokens of other sequences wait for a chunk's end, and so does a cancel where steps
 * cannot be interrupted.
 *
 * @module
 */

/**
 * A chunk should take so long when somebody's stream waits for it: nobody should wait 300 ms, though a machine may take
 * 1.45 times as long from one step to the next, and a step a sixth more than the one before.
 */
const SHARED_MS = 170;
/** Beyond this even a tile of tokens is too much: some steps do more than others. */
const LONGEST_MS = 250;
/** And so long when nobody does; a cancel then interrupts it between two layers. */
const ALONE_MS = 700;
/** Chunks are whole multiples of this, where they are that large: kernels work on tiles of tokens. */
const TILE_TOKENS = 32;
/** A tile has become worth trying when a token of less than a tile costs so many times one of a tile. */
const WASTE = 1.5;
/** Before anything was measured: small enough for the slowest backend not to hang. */
const FIRST_TOKENS = 32;

/** Learns from the steps it is told of. */
export class Pacer {
  readonly #maxTokens: number;
  #msPerToken: number | undefined;
  /** What a token of the last short chunk took, where that took longer than `LONGEST_MS`. */
  #longTile: number | undefined;

  /** Chunks never exceed `maxTokens`. */
  constructor(maxTokens: number) {
    this.#maxTokens = maxTokens;
  }

  /** Most tokens of the next chunk, at least 1; `isAlone`: no stream waits for its end, and it can be interrupted. */
  chunkTokens(isAlone: boolean): number {
    const targetMs = isAlone ? ALONE_MS : SHARED_MS;
    const wanted = this.#msPerToken === undefined ? FIRST_TOKENS : targetMs / this.#msPerToken;
    // Part of a step takes equally long however few its tokens are: a machine that others keep busy would go down to chunks that
    // do nothing else. So a tile is given up only where it would take longer than anybody may wait.
    const least = this.#longTile === undefined ? TILE_TOKENS : Math.floor(wanted);
    const tiled = wanted < TILE_TOKENS ? least : wanted - wanted % TILE_TOKENS;
    return Math.max(1, Math.min(tiled, this.#maxTokens));
  }

  /** A step with `numTokens` of a prompt took `ms`. */
  record(numTokens: number, ms: number): void {
    if (numTokens < 1 || !(ms > 0)) return;
    this.#noteTile(numTokens, ms);
    // Short prompts and ends of prompts say little: most of their time would not grow with their length.
    if (2 * numTokens < this.chunkTokens(false) && ms < SHARED_MS) return;
    // The cost of a token grows with depth and small chunks cost more each, so the latest says most.
    const latest = ms / numTokens;
    this.#msPerToken = this.#msPerToken === undefined ? latest : 0.7 * latest + 0.3 * this.#msPerToken;
  }

  #noteTile(numTokens: number, ms: number): void {
    const isTile = numTokens >= TILE_TOKENS;
    const isLong = numTokens < 2 * TILE_TOKENS && ms > LONGEST_MS;
    const cost = ms / numTokens;
    if (isTile || this.#longTile === undefined) this.#longTile = isLong ? cost : undefined;
    else if (cost > WASTE * this.#longTile) this.#longTile = undefined;
  }
}
