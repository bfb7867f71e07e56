/**
 * The engine's loop: runs steps while there is something to do, and lets messages in between them.
 *
 * @module
 */
import type { SequenceState } from "../attention/state.ts";
import type { Batch, BatchRow, Scheduler } from "./scheduler.ts";
import type { Runner, StepResult } from "./runner.ts";
import type { Generation } from "./generation.ts";
import type { Breath } from "./breath.ts";
import type { Pacer } from "./pacer.ts";
import type { Reserve } from "./reserve.ts";
import type { Sequence } from "./sequence.ts";
import type { TokenEvent } from "./types.ts";
import { sharedPrefix } from "./context_names.ts";
import { Outbox, type RequestEvents } from "./outbox.ts";

/** Hears what becomes of generations. */
export interface Listener {
  /** What steps gave them. */
  events(all: readonly RequestEvents[]): void;
  /** That of this id failed and is over. */
  error(id: number, error: unknown): void;
}

/** Work that is not a generation, a piece a `next()`; `return()` cancels it. */
export interface Job {
  /** Of its request. */
  readonly id: number;
  /** Its return value is the result. */
  readonly pieces: Iterator<void, unknown>;
  /** Hears the result. */
  done(value: unknown): void;
  /** Hears why there is none. */
  failed(error: unknown): void;
}

/** A sequence to fork. */
export interface Prefix {
  /** Between steps only. */
  readonly state: SequenceState;
  /** Tokens it shares with a prompt. */
  readonly numTokens: number;
}

/** See the module's head. */
export class Loop {
  readonly #scheduler: Scheduler;
  readonly #runner: Runner;
  readonly #pacer: Pacer;
  readonly #listener: Listener;
  readonly #outbox: Outbox;
  readonly #breath: Breath;
  readonly #reserve: Reserve;
  readonly #generations = new Map<Sequence, Generation>();
  readonly #jobs: Job[] = [];
  #turning: Promise<void> | undefined;
  /** When the last step began, or ended. */
  #nowMs = 0;
  readonly #isInterrupted: (() => boolean) | undefined;

  /** Runner and pacer are only used inside steps, which give up when `isInterrupted`: a cancel waits to be heard. */
  constructor(
    scheduler: Scheduler,
    runner: Runner,
    pacer: Pacer,
    listener: Listener,
    breath: Breath,
    reserve: Reserve,
    isInterrupted?: () => boolean,
  ) {
    this.#scheduler = scheduler;
    this.#runner = runner;
    this.#pacer = pacer;
    this.#listener = listener;
    this.#outbox = new Outbox((all) => listener.events(all));
    this.#breath = breath;
    this.#reserve = reserve;
    this.#isInterrupted = isInterrupted;
  }

  /** Queues a generation. */
  add(generation: Generation): void {
    const { sequence, sampler, plan, origin } = generation;
    this.#scheduler.add(sequence);
    this.#runner.admit(sequence, sampler, plan, origin?.state);
    generation.attended = () => this.#runner.stats(sequence);
    generation.stepTimes = () => this.#runner.times(sequence);
    if (generation.watch !== undefined) generation.looked = this.#runner.look(sequence, generation.watch);
    this.#generations.set(sequence, generation);
    this.#turn();
  }

  /** Of running sequences with that key, the one that shares the longest prefix with `tokens`, and how long that is. */
  longest(tokens: ArrayLike<number>, share: string): Prefix | undefined {
    let best: Sequence | undefined;
    let numTokens = 0;
    for (const { sequence, origin } of this.#generations.values()) {
      const shared = origin?.share === share ? sharedPrefix(tokens, sequence.tokens, sequence.numCachedTokens) : 0;
      if (shared > numTokens) [best, numTokens] = [sequence, shared];
    }
    return best === undefined ? undefined : { state: this.#runner.state(best), numTokens };
  }

  /** Queues other work. */
  addJob(job: Job): void {
    this.#jobs.push(job);
    this.#turn();
  }

  /** Ends the generation or job of that id, if there is one, and frees what it held before it says so. */
  cancel(id: number): void {
    const generation = this.#generations.values().find((g) => g.id === id);
    if (generation !== undefined) {
      const last = generation.cancel();
      this.#end(generation);
      this.#outbox.add(id, [last]);
      this.#outbox.flush(this.#nowMs);
    }
    const job = this.#jobs.findIndex((j) => j.id === id);
    if (job >= 0) {
      const [{ pieces, failed }] = this.#jobs.splice(job, 1) as [Job];
      pieces.return?.();
      failed(new DOMException("Cancelled", "AbortError"));
    }
  }

  /** Cancels everything and resolves when no step runs any more. */
  async close(): Promise<void> {
    for (const { id } of [...this.#generations.values(), ...this.#jobs]) this.cancel(id);
    await this.#turning;
    this.#reserve.release();
  }

  /** One step; false when there was nothing to do. */
  #step(): boolean {
    const batch = this.#scheduler.next(this.#pacer.chunkTokens(this.#isAlone));
    if (batch === undefined) return false;
    const result = this.#run(batch);
    if (result === undefined) return true;
    this.#scheduler.finish(batch, result.tokens);
    this.#report(batch, result);
    return true;
  }

  /** Whether the next step keeps nobody's stream waiting. */
  get #isAlone(): boolean {
    return this.#isInterrupted !== undefined && this.#scheduler.numDecoding === 0 && this.#jobs.length === 0;
  }

  /** Undefined when it failed, or was interrupted. */
  #run(batch: Batch): StepResult | undefined {
    const { rows, numChunkTokens } = batch;
    // Reading the clock is dear with cold caches: plain decode steps do so once.
    const startMs = this.#nowMs = numChunkTokens > 0 || rows.some(isFirst) ? performance.now() : 0;
    for (const row of rows) if (isFirst(row)) this.#generations.get(row.sequence)?.start(startMs);
    try {
      const result = this.#runner.step(batch, this.#isInterrupted);
      if (result === undefined) return undefined;
      this.#nowMs = performance.now();
      if (numChunkTokens > 0) this.#pacer.record(numChunkTokens, this.#nowMs - startMs);
      return result;
    } catch (error) {
      for (const { sequence } of rows) this.#fail(sequence, error);
      return undefined;
    }
  }

  #report({ rows, numChunkTokens }: Batch, { logprobs }: StepResult): void {
    let row = 0;
    let isChunk = numChunkTokens > 0;
    for (const { sequence, samples } of rows) {
      const generation = this.#generations.get(sequence) as Generation;
      const events: TokenEvent[] = isChunk ? [generation.prefill()] : [];
      isChunk = false;
      try {
        if (samples) generation.accept(this.#nowMs, row++, logprobs, events);
      } catch (error) {
        this.#fail(sequence, error);
        continue;
      }
      if (generation.ended) this.#end(generation);
      this.#outbox.add(generation.id, events);
    }
    this.#outbox.turn(this.#nowMs);
  }

  #fail(sequence: Sequence, error: unknown): void {
    const generation = this.#generations.get(sequence) as Generation;
    this.#release(generation);
    this.#outbox.drop(generation.id, this.#nowMs);
    this.#listener.error(generation.id, error);
  }

  /** As {@link #release}, but somebody may want what it has read. */
  #end(generation: Generation): void {
    const { sequence, origin } = generation;
    if (origin !== undefined && origin.keep(generation, this.#runner.state(sequence))) this.#runner.take(sequence);
    this.#release(generation);
  }

  #release({ sequence }: Generation): void {
    this.#scheduler.remove(sequence);
    this.#runner.release(sequence);
    this.#generations.delete(sequence);
  }

  /** One piece of the oldest job. */
  #stepJob(): boolean {
    const job = this.#jobs[0];
    if (job === undefined) return false;
    try {
      const { done, value } = job.pieces.next();
      if (!done) return true;
      this.#jobs.shift();
      job.done(value);
    } catch (error) {
      this.#jobs.shift();
      job.failed(error);
    }
    return true;
  }

  #stepAll(): boolean {
    const stepped = this.#step();
    return this.#stepJob() || stepped;
  }

  #turn(): void {
    this.#turning ??= this.#turns();
  }

  async #turns(): Promise<void> {
    // Whoever asked goes on first.
    await undefined;
    this.#reserve.begin();
    do {
      const pause = this.#breath();
      if (pause !== undefined) await pause;
    } while (this.#stepAll());
    // In the same breath as the last look at the queues, or work that comes now would never be run.
    this.#turning = undefined;
    this.#reserve.end();
  }
}

function isFirst({ sequence, start }: BatchRow): boolean {
  return start === sequence.numReusedTokens;
}
