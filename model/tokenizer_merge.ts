/**
 * The merge loop shared by byte-pair encoding and SentencePiece's BPE: repeatedly joins the best-ranked pair of neighbours,
 * the leftmost of equals, until no pair is known.
 *
 * A heap keeps it at O(n log n): a megabyte of one letter is one word, and a scan for the best pair would never end.
 * Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
 *
 * @module
 */

/** Which neighbours may merge. */
export interface Merges {
  /** The id that the last {@link rank} found. */
  readonly merged: number;
  /**
   * Priority of joining ids `left` and `right`, which together cover `bytes[start … end)`: smaller goes first, `Infinity`
   * never.
   */
  rank(left: number, right: number, bytes: Uint8Array, start: number, end: number): number;
}

/** Working memory of the loop, reused between calls and grown to the longest. */
export class Merger {
  #prev = new Int32Array(64);
  #next = new Int32Array(64);
  #start = new Int32Array(65);
  #end = new Int32Array(64);
  /** Id of a symbol, −1 unknown, −2 merged away. */
  #id = new Int32Array(64);
  #ranks = new Float64Array(256);
  #lefts = new Int32Array(256);
  #heap = 0;
  #count = 0;

  /** Starts over. */
  clear(): void {
    this.#count = 0;
  }

  /** Appends the symbol `id` (−1: not in the vocabulary) that covers bytes `start … end`. */
  add(id: number, start: number, end: number): void {
    const i = this.#count++;
    if (i === this.#id.length) {
      this.#prev = grow(this.#prev);
      this.#next = grow(this.#next);
      this.#start = grow(this.#start);
      this.#end = grow(this.#end);
      this.#id = grow(this.#id);
    }
    this.#id[i] = id;
    this.#start[i] = start;
    this.#end[i] = end;
  }

  /** Merges all that can be and hands the symbols left to `emit`, in order. */
  run(bytes: Uint8Array, merges: Merges, emit: (id: number, start: number, end: number) => void): void {
    const prev = this.#prev, next = this.#next, start = this.#start, end = this.#end, id = this.#id, n = this.#count;
    this.#heap = 0;
    for (let i = 0; i < n; i++) {
      prev[i] = i - 1;
      next[i] = i + 1 < n ? i + 1 : -1;
    }
    for (let i = 0; i + 1 < n; i++) this.#consider(i, bytes, merges);
    while (this.#heap > 0) {
      const rank = this.#ranks[0] as number, left = this.#lefts[0] as number;
      this.#pop();
      const right = next[left] as number;
      if (id[left] === -2 || right < 0) continue;
      // An entry is stale unless the pair that stands at `left` now has its rank: then merging is due either way.
      const now = merges.rank(
        id[left] as number,
        id[right] as number,
        bytes,
        start[left] as number,
        end[right] as number,
      );
      if (now !== rank) continue;
      id[left] = merges.merged;
      end[left] = end[right] as number;
      id[right] = -2;
      const after = next[left] = next[right] as number;
      if (after >= 0) prev[after] = left;
      if ((prev[left] as number) >= 0) this.#consider(prev[left] as number, bytes, merges);
      this.#consider(left, bytes, merges);
    }
    for (let i = n > 0 ? 0 : -1; i >= 0; i = next[i] as number) {
      emit(id[i] as number, start[i] as number, end[i] as number);
    }
  }

  #consider(left: number, bytes: Uint8Array, merges: Merges): void {
    const right = this.#next[left] as number;
    if (right < 0) return;
    const from = this.#start[left] as number, to = this.#end[right] as number;
    const rank = merges.rank(this.#id[left] as number, this.#id[right] as number, bytes, from, to);
    if (rank !== Infinity) this.#push(rank, left);
  }

  #push(rank: number, left: number): void {
    let at = this.#heap++;
    if (at === this.#lefts.length) {
      this.#lefts = grow(this.#lefts);
      const ranks = new Float64Array(2 * this.#ranks.length);
      ranks.set(this.#ranks);
      this.#ranks = ranks;
    }
    const ranks = this.#ranks, lefts = this.#lefts;
    while (at > 0) {
      const up = (at - 1) >> 1, r = ranks[up] as number, l = lefts[up] as number;
      if (r < rank || (r === rank && l <= left)) break;
      ranks[at] = r;
      lefts[at] = l;
      at = up;
    }
    ranks[at] = rank;
    lefts[at] = left;
  }

  #pop(): void {
    const ranks = this.#ranks, lefts = this.#lefts, n = --this.#heap;
    const rank = ranks[n] as number, left = lefts[n] as number;
    let at = 0;
    for (let child = 1; child < n; child = 2 * at + 1) {
      const other = child + 1;
      if (other < n && before(ranks, lefts, other, child)) child = other;
      const r = ranks[child] as number, l = lefts[child] as number;
      if (rank < r || (rank === r && left <= l)) break;
      ranks[at] = r;
      lefts[at] = l;
      at = child;
    }
    ranks[at] = rank;
    lefts[at] = left;
  }
}

function before(ranks: Float64Array, lefts: Int32Array, a: number, b: number): boolean {
  const x = ranks[a] as number, y = ranks[b] as number;
  return x < y || (x === y && (lefts[a] as number) < (lefts[b] as number));
}

function grow(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(2 * array.length);
  grown.set(array);
  return grown;
}
