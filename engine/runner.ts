/**
 * Runs one step: a batch in, drawn tokens out. Holds the caches and sampling states of live sequences.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Backend, SampleParams } from "../backends/backend.ts";
import type { Model } from "../model/model.ts";
import type { Batch, BatchRow } from "./scheduler.ts";
import type { Sampler } from "./sampler.ts";
import type { Sequence } from "./sequence.ts";
import { Ops } from "../backends/ops.ts";
import type { KvType } from "../attention/kv_cache.ts";
import { Look, type Looked, type LookOptions } from "../attention/look.ts";
import { type AttentionPlan, SequenceState } from "../attention/state.ts";
import { addTimes, StepClock, type StepTimes } from "../attention/step_clock.ts";
import { Forward, type ForwardPart } from "./forward.ts";

/** Log-probabilities of one step, over the raw softmax. */
export interface StepLogprobs {
  /** [rows]: the drawn tokens'. */
  readonly drawn: Float32Array;
  /** Alternatives a row. */
  readonly k: number;
  /** [rows, k], best first. */
  readonly tokens: Int32Array;
  /** As `tokens`, in nats. */
  readonly logprobs: Float32Array;
}

/** What a step drew: one token a sampling row, in their order. */
export interface StepResult {
  /** Their ids. */
  readonly tokens: Int32Array;
  /** Present when a sequence of the step wants them. */
  readonly logprobs?: StepLogprobs;
}

/** What a runner needs to know besides model and backend. */
export interface RunnerOptions {
  /** Type of cached keys and values. */
  readonly kvType: KvType;
  /** Most tokens of a step. */
  readonly maxBatchTokens: number;
}

interface Slot {
  readonly state: SequenceState;
  readonly sampler: Sampler;
  /** Of decode steps that it took part in. */
  times: StepTimes | undefined;
  /** How many tokens it had drawn before the last one that was clocked. */
  clockedAt: number | undefined;
}

/**
 * A sequence takes part in a clocked decode step at least once in so many, first with its second: the first pays for what was built since
 * the prompt. All that share a step are clocked by it.
 */
const CLOCK_EVERY = 64;
const FIRST_CLOCKED = 2;

const NOTHING: StepResult = { tokens: new Int32Array(0) };

/** See the module's head. */
export class Runner {
  readonly #backend: Backend;
  readonly #model: Model;
  readonly #ops: Ops;
  readonly #forward: Forward;
  readonly #options: RunnerOptions;
  readonly #slots = new Map<Sequence, Slot>();

  /** Model and backend stay the caller's. */
  constructor(model: Model, backend: Backend, options: RunnerOptions) {
    this.#model = model;
    this.#backend = backend;
    this.#ops = new Ops(backend);
    this.#forward = new Forward(model, this.#ops, options.maxBatchTokens);
    this.#options = options;
  }

  /** Gives a sequence what it begins with: a fork that holds its reused tokens, or an empty cache that attends as planned. */
  admit(sequence: Sequence, sampler: Sampler, plan?: AttentionPlan, fork?: SequenceState): void {
    const { kvType } = this.#options;
    const state = fork ??
      new SequenceState(this.#backend, this.#model.config.layers, kvType, sequence.numMaxTokens, plan);
    this.#slots.set(sequence, { state, sampler, times: undefined, clockedAt: undefined });
  }

  /** Decode queries of a live sequence are watched from now on; the result tells what was seen so far. */
  look(sequence: Sequence, options: LookOptions): () => Looked {
    const { layers } = this.#model.config;
    const look = new Look(options, sequence.numPromptTokens, layers.length, Math.max(...layers.map((l) => l.heads)));
    this.#slot(sequence).state.look = look;
    return () => look.result();
  }

  /** The state of a live sequence: what another one may fork between steps. */
  state(sequence: Sequence): SequenceState {
    return this.#slot(sequence).state;
  }

  /** Gives up a sequence whose state goes on as the caller's. */
  take(sequence: Sequence): SequenceState {
    const { state } = this.#slot(sequence);
    state.look = undefined;
    this.#slots.delete(sequence);
    return state;
  }

  /** Frees what a sequence held. Idempotent. */
  release(sequence: Sequence): void {
    this.#slots.get(sequence)?.state[Symbol.dispose]();
    this.#slots.delete(sequence);
  }

  /**
   * After an error the batch's sequences cannot go on: release them. Undefined when `isInterrupted` became true while a
   * prompt chunk was run: nothing has happened, the batch may be run again.
   */
  step(batch: Batch, isInterrupted?: () => boolean): StepResult | undefined {
    try {
      const slots = batch.rows.map((row) => this.#slot(row.sequence));
      const parts = batch.rows.map((row, i) => partOf(row, slots[i] as Slot));
      const clock = isClocked(batch, slots) ? new StepClock() : undefined;
      const logits = this.#forward.run(parts, batch.numChunkTokens > 0 ? isInterrupted : undefined, clock);
      if (logits === undefined) return undefined;
      if (batch.numSamples === 0) return NOTHING;
      if (clock === undefined) return this.#sample(batch, slots, logits);
      const result = clock.sample(() => this.#sample(batch, slots, logits));
      const times = clock.times();
      for (const [i, slot] of slots.entries()) {
        slot.times = addTimes(slot.times, times);
        slot.clockedAt = batch.rows[i]?.sequence.numOutputTokens;
      }
      return result;
    } finally {
      this.#backend.endStep();
    }
  }

  /** Where the time of a live sequence's decode steps went: sums over those that were clocked, shared with their neighbours. */
  times(sequence: Sequence): StepTimes | undefined {
    return this.#slot(sequence).times;
  }

  /** What a live sequence's decode queries looked at so far. */
  stats(sequence: Sequence): ReturnType<SequenceState["stats"]> {
    return this.#slot(sequence).state.stats();
  }

  #slot(sequence: Sequence): Slot {
    const slot = this.#slots.get(sequence);
    if (slot === undefined) throw new RangeError(`Cannot run sequence ${sequence.id}: it was not admitted`);
    return slot;
  }

  /** logits [rows, vocab] → tokens; the step's only read, but for log-probabilities. */
  #sample({ rows, numSamples }: Batch, slots: readonly Slot[], logits: Tensor): StepResult {
    const { kernels } = this.#backend;
    const samplers: Sampler[] = [];
    const params: SampleParams[] = [];
    let k = -1;
    let adjusts = false;
    for (let i = 0; i < rows.length; i++) {
      const { sequence, samples } = rows[i] as BatchRow;
      if (!samples) continue;
      const { sampler } = slots[i] as Slot;
      samplers.push(sampler);
      params.push(sampler.params(sequence.numTokens));
      k = Math.max(k, sampler.logprobs ?? -1);
      adjusts ||= sampler.adjusts;
    }
    const raw = k >= 0 && adjusts ? this.#copy(logits) : logits;
    if (adjusts) { for (let row = 0; row < numSamples; row++) samplers[row]?.adjust(kernels, logits, row); }
    const drawn = this.#backend.alloc([numSamples], "i32", "step");
    kernels.sample(drawn, logits, params);
    const tokens = this.#backend.read(drawn) as Int32Array;
    for (let row = 0; row < numSamples; row++) samplers[row]?.accept(tokens[row] as number);
    return k < 0 ? { tokens } : { tokens, logprobs: this.#logprobs(raw, drawn, k) };
  }

  #logprobs(raw: Tensor, drawn: Tensor, k: number): StepLogprobs {
    const backend = this.#backend;
    const rows = drawn.shape[0] as number;
    const own = backend.alloc([rows], "f32", "step");
    backend.kernels.tokenLogprobs(own, raw, drawn);
    const result = { drawn: backend.read(own) as Float32Array, k };
    if (k === 0) return { ...result, tokens: new Int32Array(0), logprobs: new Float32Array(0) };
    const ids = backend.alloc([rows, k], "i32", "step");
    const best = backend.alloc([rows, k], "f32", "step");
    backend.kernels.topLogprobs(ids, best, raw);
    return { ...result, tokens: backend.read(ids) as Int32Array, logprobs: backend.read(best) as Float32Array };
  }

  /** A copy of logits [rows, vocab], as rows of a table. */
  #copy(logits: Tensor): Tensor {
    const rows = logits.shape[0] as number;
    const all = this.#backend.alloc([rows], "i32", "step");
    this.#backend.write(all, Int32Array.from({ length: rows }, (_, i) => i));
    return this.#ops.embed(logits, all);
  }
}

/** Whether a sequence of a step that only decodes is due. */
function isClocked({ rows, numChunkTokens }: Batch, slots: readonly Slot[]): boolean {
  if (numChunkTokens > 0) return false;
  return rows.some(({ sequence: { numOutputTokens } }, i) => {
    const last = slots[i]?.clockedAt;
    return numOutputTokens >= (last === undefined ? FIRST_CLOCKED : last + CLOCK_EVERY);
  });
}

function partOf({ sequence, start, numTokens, samples }: BatchRow, { state }: Slot): ForwardPart {
  const isPrompt = start < sequence.numPromptTokens;
  return { state, tokens: sequence.tokens, start, numTokens, numLogits: samples ? 1 : 0, isPrompt };
}
