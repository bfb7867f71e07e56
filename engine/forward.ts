/**
 * Runs tokens of several sequences through the model, side by side.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Backend } from "../backends/backend.ts";
import type { Ops } from "../backends/ops.ts";
import type { Model, Step } from "../model/model.ts";
import type { SequenceState } from "../attention/state.ts";
import type { StepClock } from "../attention/step_clock.ts";
import { attend, type AttendRows } from "../attention/attend.ts";
import { RepeatedStep } from "./repeated_step.ts";

/** The next tokens of one sequence. */
export interface ForwardPart {
  /** The sequence's. */
  readonly state: SequenceState;
  /** All tokens of the sequence; `[start, start + numTokens)` are run. */
  readonly tokens: ArrayLike<number>;
  /** Tokens in the cache already. */
  readonly start: number;
  /** Tokens to run. */
  readonly numTokens: number;
  /** Logits are wanted of so many of the last of them. */
  readonly numLogits: number;
  /** They attend to everything, whatever the policy, as several tokens always do: a prompt's last token may come alone. */
  readonly isPrompt?: boolean;
}

/** A model on a backend, with the buffers that steps share. */
export class Forward {
  readonly #model: Model;
  readonly #ops: Ops;
  readonly #tokens: Int32Array<ArrayBuffer>;
  readonly #positions: Int32Array<ArrayBuffer>;
  #repeated: RepeatedStep | undefined;

  /** For steps of at most `maxBatchTokens` tokens. */
  constructor(model: Model, ops: Ops, maxBatchTokens: number) {
    this.#model = model;
    this.#ops = ops;
    this.#tokens = new Int32Array(maxBatchTokens);
    this.#positions = new Int32Array(maxBatchTokens);
  }

  /**
   * Logits f32 [rows, vocab] in step memory, `rows` = the sum of `numLogits`. Caches grow as needed. Only the first part
   * may have tokens without logits, so that the wanted rows are the step's last. After an error the caches are of no use.
   *
   * `clock` clocks attention and searches. Undefined when `isInterrupted`, asked before each layer's attention, became true: the caches are as before.
   */
  run(parts: readonly ForwardPart[], isInterrupted?: () => boolean, clock?: StepClock): Tensor | undefined {
    let n = 0;
    let numLogits = 0;
    for (const part of parts) {
      if (n > 0 && part.numLogits !== part.numTokens) {
        throw new RangeError("Cannot run step: only its first part may have tokens without logits");
      }
      part.state.cache.reserve(part.start + part.numTokens, part.tokens.length);
      for (let i = 0; i < part.numTokens; i++) {
        this.#tokens[n + i] = part.tokens[part.start + i] as number;
        this.#positions[n + i] = part.start + i;
      }
      n += part.numTokens;
      numLogits += part.numLogits;
    }
    const step = () => this.#step(rowsOf(parts), n, numLogits, parts[0]?.numLogits ?? 0, clock);
    // A step that is recorded cannot be left in the middle, nor tell where time goes.
    const { backend } = this.#ops;
    const isFree = clock === undefined && isInterrupted === undefined;
    const logits = isFree && canRecord(backend) && RepeatedStep.suits(parts)
      ? this.#recorded(backend, step, parts)
      : this.#interruptible(step(), parts, isInterrupted);
    if (logits !== undefined) { for (const part of parts) part.state.advance(); }
    return logits;
  }

  /** As the step before, or recorded for the next. */
  #recorded(backend: RecordingBackend, step: () => Step, parts: readonly ForwardPart[]): Tensor {
    const n = parts.length;
    const last = this.#repeated;
    this.#repeated = undefined; // also after an error
    const again = last?.run(backend, parts, this.#tokens.subarray(0, n), this.#positions.subarray(0, n));
    if (again !== undefined) {
      this.#repeated = last;
      return again;
    }
    const made = step();
    const { value: logits, again: repeat } = backend.record(() => this.#model.forward(made));
    const { tokens, positions } = made;
    if (repeat !== undefined) this.#repeated = new RepeatedStep(parts, { tokens, positions, logits }, repeat);
    return logits;
  }

  /** Undefined when it was interrupted: what it did is undone. */
  #interruptible(step: Step, parts: readonly ForwardPart[], isInterrupted?: () => boolean): Tensor | undefined {
    if (isInterrupted === undefined) return this.#model.forward(step);
    try {
      return this.#model.forward(interruptible(step, isInterrupted));
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      for (const part of parts) part.state.cache.truncate(part.start);
      return undefined;
    }
  }

  #step(rows: AttendRows[], n: number, numLogits: number, numFirst: number, clock?: StepClock): Step {
    const ops = this.#ops;
    const last = this.#model.config.layers.length - 1;
    // Nobody looks at what the last layer's attention says about rows without logits.
    const lastLayer = rows[0]?.numTokens === numFirst
      ? rows
      : rows.map((part, i) => i === 0 ? { ...part, numQueries: numFirst } : part);
    return {
      ops,
      tokens: this.#upload(this.#tokens, n),
      positions: this.#upload(this.#positions, n),
      attend: (layer, q, k, v) => {
        const look = () => attend(ops, layer === last ? lastLayer : rows, layer, q, k, v, clock);
        return clock === undefined ? look() : clock.attend(look);
      },
      lastRows: (x) => ops.rows(x, n - numLogits, numLogits),
    };
  }

  #upload(values: Int32Array<ArrayBuffer>, n: number): Tensor {
    const tensor = this.#ops.backend.alloc([n], "i32", "step");
    this.#ops.backend.write(tensor, values.subarray(0, n));
    return tensor;
  }
}

type RecordingBackend = Backend & Required<Pick<Backend, "record">>;

function canRecord(backend: Backend): backend is RecordingBackend {
  return backend.record !== undefined;
}

function rowsOf(parts: readonly ForwardPart[]): AttendRows[] {
  let row = 0;
  return parts.map(({ state, numTokens, isPrompt }) => {
    const part = { state, row, numTokens, numQueries: numTokens, isExact: numTokens > 1 || isPrompt === true };
    row += numTokens;
    return part;
  });
}

/** Leaves a model's forward pass in the middle. */
class Interrupted extends Error {}

function interruptible(step: Step, isInterrupted: () => boolean): Step {
  return {
    ...step,
    attend: (layer, q, k, v) => {
      if (isInterrupted()) throw new Interrupted();
      return step.attend(layer, q, k, v);
    },
  };
}
