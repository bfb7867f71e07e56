/**
 * Decides what the next step runs. Pure: no backend, no clock, no promise.
 *
 * Continuous batching (Yu et al. 2022, "Orca") with chunked prefill (Agrawal et al. 2023, "Sarathi"): a step holds one
 * decode row of every running sequence that has one, and at most one chunk of one prompt, so that both share the
 * weights' trip through memory and decoding goes on while a long prompt is read. Places are given first come, first served;
 * of the prompts in place the shortest rest is read first, so that a question need not wait for a book, but every fourth chunk
 * goes to the oldest.
 *
 * @module
 */
import type { Sequence } from "./sequence.ts";

/** The part of a step that belongs to one sequence. */
export interface BatchRow {
  /** Whose tokens these are. */
  readonly sequence: Sequence;
  /** Position of the first token. */
  readonly start: number;
  /** How many. */
  readonly numTokens: number;
  /** Whether the last token's logits are wanted: false in the middle of a prompt. */
  readonly samples: boolean;
}

/** One step: the prompt chunk, if any, comes first, so that the rows whose logits are wanted lie side by side. */
export interface Batch {
  /** One a sequence. */
  readonly rows: readonly BatchRow[];
  /** How many. */
  readonly numTokens: number;
  /** Tokens that belong to a prompt chunk. */
  readonly numChunkTokens: number;
  /** Rows whose logits are wanted: the last ones of the step. */
  readonly numSamples: number;
}

/** One chunk of so many is the oldest prompt's. */
const OLDEST_EVERY = 4;

/** What is left of a prompt comes in one chunk if it is so many times as long: part of a step takes equally long however few its tokens are. */
const LAST_CHUNK = 1.2;

/** What a scheduler may hand out. */
export interface SchedulerLimits {
  /** Sequences that run at once. */
  readonly maxRunning: number;
  /** Tokens of one step. */
  readonly maxBatchTokens: number;
  /** Tokens that all running sequences together may come to hold. */
  readonly maxCachedTokens: number;
}

/** See the module's head. */
export class Scheduler {
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #maxRunning: number;
  readonly #limits: SchedulerLimits;
  #numReservedTokens = 0;
  /** Chunks of prompts that ran. */
  #numChunks = 0;

  /** Throws `RangeError` when a limit is not a whole number above 0. */
  constructor(limits: SchedulerLimits) {
    for (const [name, value] of Object.entries(limits)) {
      if (!Number.isInteger(value) || value < 1) {
        throw new RangeError(`Cannot make scheduler: ${name} is ${value}, must be a whole number above 0`);
      }
    }
    this.#limits = limits;
    // Every running sequence needs room for its decode row.
    this.#maxRunning = Math.min(limits.maxRunning, limits.maxBatchTokens);
  }

  /** Sequences that wait for a place. */
  get numWaiting(): number {
    return this.#waiting.length;
  }

  /** Sequences that take part in steps. */
  get numRunning(): number {
    return this.#running.length;
  }

  /** Sequences whose next token comes with the next step. */
  get numDecoding(): number {
    let n = 0;
    for (const sequence of this.#running) if (sequence.numPendingTokens === 1) n++;
    return n;
  }

  /** Queues a sequence. Throws `RangeError` when it could never run. */
  add(sequence: Sequence): void {
    if (sequence.numMaxTokens > this.#limits.maxCachedTokens) {
      throw new RangeError(
        `Cannot queue sequence: it may hold ${sequence.numMaxTokens} tokens, the cache ${this.#limits.maxCachedTokens}`,
      );
    }
    this.#waiting.push(sequence);
  }

  /** Takes a sequence out, wherever it stands: it has ended, failed or was cancelled. Idempotent. */
  remove(sequence: Sequence): void {
    sequence.state = "ended";
    if (take(this.#running, sequence)) this.#numReservedTokens -= sequence.numMaxTokens;
    else take(this.#waiting, sequence);
  }

  /** The next step, or undefined when there is nothing to do. A prompt chunk gets at most `maxChunkTokens`, at least 1, its last one a fifth more. */
  next(maxChunkTokens: number): Batch | undefined {
    this.#admit();
    if (this.#running.length === 0) return undefined;
    const rows: BatchRow[] = [];
    let oldest: Sequence | undefined;
    let shortest: Sequence | undefined;
    for (const sequence of this.#running) {
      const pending = sequence.numPendingTokens;
      if (pending === 1) {
        rows.push(decodeRow(sequence));
      } else {
        oldest ??= sequence;
        if (shortest === undefined || pending < shortest.numPendingTokens) shortest = sequence;
      }
    }
    const prefill = this.#numChunks % OLDEST_EVERY === OLDEST_EVERY - 1 ? oldest : shortest;
    let numChunkTokens = 0;
    if (prefill !== undefined) {
      const room = this.#limits.maxBatchTokens - rows.length;
      const pending = prefill.numPendingTokens;
      const chunk = Math.min(pending, room, Math.max(1, Math.floor(maxChunkTokens)));
      numChunkTokens = pending <= Math.min(room, LAST_CHUNK * maxChunkTokens) ? pending : chunk;
      const samples = numChunkTokens === pending;
      rows.unshift({ sequence: prefill, start: prefill.numCachedTokens, numTokens: numChunkTokens, samples });
    }
    const numDecodeRows = rows.length - (prefill === undefined ? 0 : 1);
    const numSamples = numDecodeRows + (rows[0]?.samples && prefill !== undefined ? 1 : 0);
    return { rows, numTokens: numChunkTokens + numDecodeRows, numChunkTokens, numSamples };
  }

  /** Books a step that ran: `sampled` has one token for each row that samples, in their order. */
  finish(batch: Batch, sampled: ArrayLike<number>): void {
    if (batch.numChunkTokens > 0) this.#numChunks++;
    let i = 0;
    for (const { sequence, numTokens, samples } of batch.rows) {
      sequence.numCachedTokens += numTokens;
      if (samples) sequence.tokens.push(sampled[i++] as number);
    }
  }

  /** Strictly in order: a sequence that does not fit yet holds back those behind it, so that none starves. */
  #admit(): void {
    while (this.#running.length < this.#maxRunning) {
      const first = this.#waiting[0];
      if (first === undefined) return;
      if (this.#numReservedTokens + first.numMaxTokens > this.#limits.maxCachedTokens) return;
      this.#waiting.shift();
      this.#numReservedTokens += first.numMaxTokens;
      first.state = "running";
      this.#running.push(first);
    }
  }
}

function decodeRow(sequence: Sequence): BatchRow {
  return { sequence, start: sequence.numCachedTokens, numTokens: 1, samples: true };
}

function take(from: Sequence[], sequence: Sequence): boolean {
  const i = from.indexOf(sequence);
  if (i < 0) return false;
  from.splice(i, 1);
  return true;
}
