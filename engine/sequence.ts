/**
 * One sequence as data: its tokens, how many of them are cached, and where it stands.
 *
 * Counts carry their unit in the name: `num…Tokens`. The cache itself belongs to the runner, the text to `Generation`.
 *
 * @module
 */

/** Waiting for a place, taking part in steps, or over. */
export type SequenceState = "waiting" | "running" | "ended";

/** Tokens of one prompt and what was generated after it. */
export class Sequence {
  /** Prompt and output. */
  readonly tokens: number[];
  /** How many of them are the prompt's. */
  readonly numPromptTokens: number;
  /** Tokens whose keys and values were there before: another sequence had read them. */
  readonly numReusedTokens: number;
  /** Tokens whose keys and values are in the cache; the scheduler advances it. */
  numCachedTokens: number;
  /** The scheduler changes it. */
  state: SequenceState = "waiting";

  /**
   * `numMaxTokens` is the most tokens the sequence may ever hold, prompt included. Throws `RangeError` when the prompt
   * is empty or leaves no room for a token, and when nothing of it is left to run.
   */
  constructor(readonly id: number, prompt: ArrayLike<number>, readonly numMaxTokens: number, numReusedTokens = 0) {
    if (prompt.length === 0) throw new RangeError("Cannot generate: the prompt is empty, give at least one token");
    if (prompt.length >= numMaxTokens) {
      throw new RangeError(`Cannot generate: ${prompt.length} prompt tokens leave no room in ${numMaxTokens}`);
    }
    if (numReusedTokens < 0 || numReusedTokens >= prompt.length) {
      throw new RangeError(`Cannot generate: ${numReusedTokens} of ${prompt.length} prompt tokens are cached`);
    }
    this.numReusedTokens = this.numCachedTokens = numReusedTokens;
    this.tokens = Array.from(prompt);
    this.numPromptTokens = prompt.length;
  }

  /** Prompt and output tokens so far. */
  get numTokens(): number {
    return this.tokens.length;
  }

  /** Tokens generated so far. */
  get numOutputTokens(): number {
    return this.tokens.length - this.numPromptTokens;
  }

  /** Tokens still to be run before the next one can be drawn: 1 while decoding, more during prefill. */
  get numPendingTokens(): number {
    return this.tokens.length - this.numCachedTokens;
  }

  /** Whether no further token fits. */
  get isFull(): boolean {
    return this.tokens.length >= this.numMaxTokens;
  }
}
