/**
 * One request as its caller sees it: tokens become text and events, and it is decided when it ends.
 *
 * @module
 */
import type { TokenDecoder, Tokenizer } from "../model/model.ts";
import { tokenLogprob } from "./token_logprob.ts";
import type { AttendedStats, Sampling, Timings, TokenEvent, TokenLogprob } from "./types.ts";
import type { Sequence } from "./sequence.ts";
import type { StepLogprobs } from "./runner.ts";
import type { Constraint } from "./token_mask.ts";
import type { StepTimes } from "../attention/step_clock.ts";
import type { Looked, LookOptions } from "../attention/look.ts";
import type { AttentionPlan } from "../attention/state.ts";
import type { SequenceState } from "../attention/state.ts";
import { Sampler } from "./sampler.ts";
import { StopStrings } from "./stop_strings.ts";

/** What a generation begins with, and what becomes of its sequence. */
export interface GenerationOrigin {
  /** Holds the sequence's reused tokens; the generation's from now on. */
  readonly state?: SequenceState | undefined;
  /** Id of the context that the state came from. */
  readonly beganWith?: string | undefined;
  /** Id that the sequence will stay under. */
  readonly savesAs?: string | undefined;
  /** Only sequences of the same key share a prefix of their own accord. */
  readonly share: string;
  /** Whether the text is wanted when it has ended. */
  readonly keepsText: boolean;
  /** Takes the state of the sequence when it has ended, cancelled or not; false: it is not wanted. */
  keep(generation: Generation, state: SequenceState): boolean;
}

/** See the module's head. Times are milliseconds of one clock, given by the caller. */
export class Generation {
  /** For the runner. */
  readonly sampler: Sampler;
  /** Whether the last event was given. */
  ended = false;
  /** Why, then. */
  reason: "stop" | "length" | "cancelled" | undefined;
  readonly #sampling: Sampling & { readonly seed: number };
  readonly #tokenizer: Tokenizer;
  readonly #decoder: TokenDecoder;
  readonly #stops: StopStrings;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #requestedMs: number;
  /** What it was given as text so far, whole characters only. */
  text = "";
  #startedMs: number | undefined;
  #firstTokenMs: number | undefined;
  #lastTokenMs = 0;

  /**
   * Request `id`, made at `requestedMs`; `plan` says how it attends, absent: to everything;
   * only text that `constraint` allows is drawn.
   */
  constructor(
    readonly id: number,
    readonly sequence: Sequence,
    sampling: Sampling & { readonly seed: number },
    tokenizer: Tokenizer,
    requestedMs: number,
    readonly plan?: AttentionPlan,
    constraint?: Constraint,
  ) {
    this.#sampling = sampling;
    this.#tokenizer = tokenizer;
    this.#decoder = tokenizer.decoder();
    this.#stops = new StopStrings(sampling.stop);
    this.#stopTokens = new Set([...sampling.ignoreEos ? [] : tokenizer.eos, ...sampling.stopTokens]);
    this.sampler = new Sampler(sampling, sequence.tokens, tokenizer.eos, constraint);
    this.#requestedMs = requestedMs;
  }

  /** The sequence takes part in a step that begins at `ms`. */
  start(ms: number): void {
    this.#startedMs ??= ms;
  }

  /** A chunk of the prompt was run. */
  prefill(): TokenEvent {
    return { type: "prefill", done: this.sequence.numCachedTokens, total: this.sequence.numPromptTokens };
  }

  /** The sequence's last token was drawn, as row `row` of its step: adds its event to `to`, and the end if it is one. */
  accept(ms: number, row: number, logprobs: StepLogprobs | undefined, to: TokenEvent[]): void {
    const { sequence } = this;
    const token = sequence.tokens[sequence.numTokens - 1] as number;
    this.#firstTokenMs ??= ms;
    this.#lastTokenMs = ms;
    const atStop = this.#stopTokens.has(token);
    const { isFinished } = this.sampler;
    const isLast = atStop || isFinished || sequence.isFull;
    const found = this.#stops.push((atStop ? "" : this.#decoder.push(token)) + (isLast ? this.#decoder.flush() : ""));
    const text = found.matched === undefined && isLast ? found.text + this.#stops.flush() : found.text;
    if (this.origin?.keepsText === true) this.text += text;
    if (logprobs === undefined) to.push({ type: "token", token, text });
    else to.push({ type: "token", token, text, ...this.#alternatives(token, row, logprobs) });
    if (found.matched !== undefined) to.push(this.#end("stop", found.matched));
    else if (atStop) to.push(this.#end("stop", token));
    else if (isFinished) to.push(this.#end("stop"));
    else if (isLast) to.push(this.#end("length"));
    else this.sampler.prepare();
  }

  /** The caller wants no more. */
  cancel(): TokenEvent {
    return this.#end("cancelled");
  }

  /** What its decode queries looked at, for the last event: asked once. */
  attended: (() => AttendedStats) | undefined;
  /** Where the time of decode steps went, for the same. */
  stepTimes: (() => StepTimes | undefined) | undefined;
  /** What of its attention is to be watched. */
  watch: LookOptions | undefined;
  /** What was seen then, for the last event: asked once. */
  looked: (() => Looked) | undefined;
  /** What was done before it was queued, for its timings. */
  tokenizeMs = 0;
  /** The same. */
  restoreMs = 0;
  /** What it begins with and what becomes of it. */
  origin: GenerationOrigin | undefined;

  #end(reason: "stop" | "length" | "cancelled", stop?: string | number): TokenEvent {
    this.ended = true;
    this.reason = reason;
    const timings = this.#timings();
    const attended = this.attended?.();
    const stepTimes = this.stepTimes?.();
    const looked = this.looked?.();
    return {
      type: "done",
      reason,
      ...(stop === undefined ? {} : { stop }),
      timings,
      seed: this.#sampling.seed,
      ...(attended === undefined ? {} : { attended }),
      ...(stepTimes === undefined ? {} : { stepTimes }),
      ...(looked === undefined ? {} : { looked: { ...looked, texts: this.#texts(looked) } }),
      ...(this.origin?.beganWith === undefined ? {} : { beganWith: this.origin.beganWith }),
      ...(this.origin?.savesAs === undefined || reason === "cancelled" ? {} : { savedAs: this.origin.savesAs }),
    };
  }

  /** Of each stretch of the prompt. */
  #texts({ shape: [, , stretches], stretchTokens }: Looked): string[] {
    const { tokens, numPromptTokens } = this.sequence;
    return Array.from({ length: stretches }, (_, i) => {
      const decoder = this.#tokenizer.decoder({ special: true, start: i === 0 });
      const end = Math.min(numPromptTokens, (i + 1) * stretchTokens);
      let text = "";
      for (let at = i * stretchTokens; at < end; at++) text += decoder.push(tokens[at] as number);
      return text + decoder.flush();
    });
  }

  #timings(): Timings {
    const started = this.#startedMs ?? this.#requestedMs;
    const first = this.#firstTokenMs ?? started;
    return {
      promptTokens: this.sequence.numPromptTokens,
      cachedTokens: this.sequence.numReusedTokens,
      promptMs: first - started,
      predictedTokens: this.sequence.numOutputTokens,
      predictedMs: this.#firstTokenMs === undefined ? 0 : this.#lastTokenMs - first,
      firstTokenMs: this.#firstTokenMs === undefined ? 0 : first - this.#requestedMs,
      queueMs: started - this.#requestedMs,
      tokenizeMs: this.tokenizeMs,
      restoreMs: this.restoreMs,
    };
  }

  #alternatives(token: number, row: number, all: StepLogprobs) {
    const wanted = this.#sampling.logprobs;
    if (wanted === undefined) return {};
    const logprob = this.#logprob(token, all.drawn[row] as number);
    if (wanted === 0) return { logprob };
    const top: TokenLogprob[] = [];
    for (let i = row * all.k; i < row * all.k + wanted; i++) {
      top.push(this.#logprob(all.tokens[i] as number, all.logprobs[i] as number));
    }
    return { logprob, top };
  }

  #logprob(token: number, logprob: number): TokenLogprob {
    return tokenLogprob(this.#tokenizer, token, logprob);
  }
}
