/**
 * Distinct tokens and how often each was seen, in the form the penalty kernel takes, kept up to date token by token.
 *
 * @module
 */

/** Grows by doubling; `tokens` and `counts` are views, valid until the next `add`. */
export class TokenCounts {
  readonly #slots = new Map<number, number>();
  #tokens = new Int32Array(64);
  #counts = new Int32Array(64);

  /** Distinct tokens. */
  get size(): number {
    return this.#slots.size;
  }

  /** [size] ids in order of first appearance. */
  get tokens(): Int32Array<ArrayBuffer> {
    return this.#tokens.subarray(0, this.size);
  }

  /** [size] */
  get counts(): Int32Array<ArrayBuffer> {
    return this.#counts.subarray(0, this.size);
  }

  /** Counts one more appearance. */
  add(token: number): void {
    let slot = this.#slots.get(token);
    if (slot === undefined) {
      slot = this.#slots.size;
      if (slot === this.#tokens.length) this.#grow();
      this.#slots.set(token, slot);
      this.#tokens[slot] = token;
    }
    this.#counts[slot] = (this.#counts[slot] as number) + 1;
  }

  #grow(): void {
    const [tokens, counts] = [this.#tokens, this.#counts];
    this.#tokens = new Int32Array(2 * tokens.length);
    this.#counts = new Int32Array(2 * counts.length);
    this.#tokens.set(tokens);
    this.#counts.set(counts);
  }
}
