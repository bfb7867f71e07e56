/**
 * Answers in OpenAI's shapes, with llama.cpp's timings and our telemetry.
 *
 * @module
 */
import type { AttendedStats, Timings, TokenEvent, TokenLogprob } from "../engine/types.ts";
import type { Knobs } from "./fields.ts";

/** The last event of a generation. */
export type Done = Extract<TokenEvent, { type: "done" }>;
/** The event of one token. */
export type Token = Extract<TokenEvent, { type: "token" }>;

/** Why generation ended, in OpenAI's words. */
export type FinishReason = "stop" | "length" | "tool_calls";

/** `usage` of every answer: of all its generations. */
export function usageOf(all: readonly Timings[]): Readonly<Record<string, unknown>> {
  const sum = (of: (t: Timings) => number) => all.reduce((total, t) => total + of(t), 0);
  const [prompt, predicted] = [sum((t) => t.promptTokens), sum((t) => t.predictedTokens)];
  return {
    prompt_tokens: prompt,
    completion_tokens: predicted,
    total_tokens: prompt + predicted,
    prompt_tokens_details: { cached_tokens: sum(cachedTokens) },
  };
}

/** Prompt tokens that need not be computed. */
export function cachedTokens(t: Timings): number {
  return t.cachedTokens;
}

/** llama.cpp's nine names. */
export function timingsOf(t: Timings): Readonly<Record<string, number>> {
  const cached = cachedTokens(t);
  const promptTokens = t.promptTokens - cached;
  // The first token's time is the prompt's.
  const steps = Math.max(0, t.predictedTokens - 1);
  return {
    cache_n: cached,
    prompt_n: promptTokens,
    prompt_ms: round(t.promptMs),
    prompt_per_token_ms: ratio(t.promptMs, promptTokens),
    prompt_per_second: ratio(1000 * promptTokens, t.promptMs),
    predicted_n: t.predictedTokens,
    predicted_ms: round(t.predictedMs),
    predicted_per_token_ms: ratio(t.predictedMs, steps),
    predicted_per_second: ratio(1000 * steps, t.predictedMs),
  };
}

/** What telemetry needs to know besides the generation's own account. */
export interface TelemetrySource {
  /** Spec of the policy that ran. */
  readonly policy: string;
  /** Spec of the index that it asked. */
  readonly index: string;
  /** Of keys and values, per token. */
  readonly kvBytes: number;
  /** As asked for. */
  readonly mode: NonNullable<Knobs["mode"]>;
}

/** The answer's `kvasir`. Counts of keys are means per head and step; absent phases were not measured. */
export function telemetryOf(
  done: Done,
  { policy, index, mode, kvBytes }: TelemetrySource,
): Readonly<Record<string, unknown>> {
  const { timings, attended, looked } = done;
  const tokens = timings.promptTokens + timings.predictedTokens;
  return {
    policy,
    index,
    mode,
    context: done.beganWith === undefined && timings.cachedTokens === 0
      ? null
      : { id: done.beganWith ?? null, reused_tokens: timings.cachedTokens },
    keys: keysOf(timings, attended),
    estimate: estimateOf(attended, looked?.attendedMass),
    ...(looked === undefined ? {} : { sampled: { steps: looked.steps, error: round(looked.error) } }),
    ...(looked === undefined || looked.shape[2] === 0 ? {} : { looked: pictureOf(looked) }),
    bytes: { device: 0, host: tokens * kvBytes, moved: attended?.indexBytes ?? 0 },
    phases: {
      queue_ms: round(timings.queueMs),
      tokenize_ms: round(timings.tokenizeMs),
      restore_ms: round(timings.restoreMs),
      prefill_ms: round(timings.promptMs),
      decode_ms: round(timings.predictedMs),
      ...stepPhasesOf(done),
    },
    fallbacks: fallbacksOf(attended),
  };
}

/** What decoding was made of, by the steps that were clocked, of all steps; absent when it was over before one was. */
export function stepPhasesOf({ timings, stepTimes, attended }: Done): Readonly<Record<string, number>> {
  const index = attended === undefined ? {} : { index_ms: round(1000 * attended.buildSeconds) };
  if (stepTimes === undefined) return index;
  const steps = Math.max(0, timings.predictedTokens - 1);
  const all = (ms: number) => round(ms / stepTimes.steps * steps);
  return {
    ...index,
    search_ms: all(stepTimes.searchMs),
    attend_ms: all(stepTimes.attendMs),
    model_ms: all(stepTimes.modelMs),
    sample_ms: all(stepTimes.sampleMs),
  };
}

/** Why decode queries attended to everything though their policy may leave something out; layers decide alike, so none is named. */
function fallbacksOf(stats: AttendedStats | undefined): readonly Readonly<Record<string, unknown>>[] {
  if (stats === undefined || stats.layers === 0) return [];
  const entry = (reason: string, queries: number) =>
    queries === 0 ? [] : [{ layer: null, reason, steps: round(queries / stats.layers) }];
  return [...entry("short_context", stats.short), ...entry("window_holds_all", stats.dense - stats.short)];
}

/** Shares of attention as bytes, square roots so that small ones keep some digits: base64 of [layers, heads, stretches]. */
function pictureOf(
  { shape, stretchTokens, mass, texts }: NonNullable<Done["looked"]>,
): Readonly<Record<string, unknown>> {
  const [layers, heads, stretches] = shape;
  const bytes = Uint8Array.from(mass, (share) => Math.round(255 * Math.sqrt(Math.min(1, share))));
  return { layers, heads, stretches, stretch_tokens: stretchTokens, texts, mass: bytes.toBase64() };
}

/** Means per head and step. */
export interface Keys {
  /** There were so many to look at. */
  readonly total: number;
  /** The index scored so many. */
  readonly scanned: number;
  /** So many were attended to. */
  readonly attended: number;
  /** Of the total. */
  readonly fraction: number;
}

/** See {@link Keys}. */
export function keysOf(timings: Timings, stats: AttendedStats | undefined): Keys {
  if (stats === undefined || stats.queries === 0) {
    const total = round(timings.promptTokens + timings.predictedTokens / 2);
    return { total, scanned: 0, attended: total, fraction: 1 };
  }
  const mean = (sum: number) => round(sum / stats.queries);
  const attended = stats.spanned + stats.retrieved;
  return {
    total: mean(stats.tokens),
    scanned: mean(stats.scored),
    attended: mean(attended),
    fraction: ratio(attended, stats.tokens),
  };
}

/** `mass`, what recall stands for, was measured against exact attention or is unknown; a sample has no best keys to recall. */
function estimateOf(
  stats: AttendedStats | undefined,
  mass: number | undefined,
): Readonly<Record<string, unknown>> | null {
  const steps = stats === undefined ? 0 : stats.queries - stats.dense;
  if (stats === undefined || steps === 0 || stats.layers === 0) return null;
  return {
    recall: null,
    mass: mass === undefined ? null : round(mass),
    output_error: ratio(stats.estimatedError, steps),
    steps: Math.round(steps / stats.layers),
  };
}

/** One position of chat's `logprobs.content`. */
export function logprobOf({ logprob, top }: Token): Readonly<Record<string, unknown>> | undefined {
  if (logprob === undefined) return undefined;
  return { ...alternative(logprob), top_logprobs: (top ?? []).map(alternative) };
}

function alternative({ text, bytes, logprob }: TokenLogprob): Readonly<Record<string, unknown>> {
  return { token: text, logprob: finite(logprob), bytes };
}

/** JSON has no infinity; as in the OpenAI API. */
export function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : -9999;
}

/** Legacy arrays of `/v1/completions`, filled token by token. */
export class LegacyLogprobs {
  readonly tokens: string[] = [];
  readonly token_logprobs: (number | null)[] = [];
  readonly top_logprobs: (Readonly<Record<string, number>> | null)[] = [];
  readonly text_offset: number[] = [];
  #offset = 0;

  /** Offsets count from `offset` characters on. */
  constructor(offset = 0) {
    this.#offset = offset;
  }

  /** Adds the first token of all: nothing was there to tell what comes. */
  pushFirst(text: string): void {
    this.tokens.push(text);
    this.token_logprobs.push(null);
    this.top_logprobs.push(null);
    this.text_offset.push(this.#offset);
    this.#offset += text.length;
  }

  /** Adds one position. */
  push({ logprob, top, text }: Pick<Token, "logprob" | "top" | "text">): void {
    if (logprob === undefined) return;
    this.tokens.push(logprob.text);
    this.token_logprobs.push(finite(logprob.logprob));
    const best = (top ?? []).map((t): [string, number] => [t.text, finite(t.logprob)]);
    this.top_logprobs.push(top === undefined ? null : Object.fromEntries(best));
    this.text_offset.push(this.#offset);
    this.#offset += text.length;
  }

  /** As in an answer. */
  toJSON(): Readonly<Record<string, unknown>> {
    const { tokens, token_logprobs, top_logprobs, text_offset } = this;
    return { tokens, token_logprobs, top_logprobs, text_offset };
  }
}

/** OpenAI's finish reason, and vLLM's stop reason. */
export function endOf(
  done: Done,
): { readonly finish_reason: FinishReason; readonly stop_reason: string | number | null } {
  return { finish_reason: done.reason === "length" ? "length" : "stop", stop_reason: done.stop ?? null };
}

function ratio(a: number, b: number): number {
  return b > 0 ? round(a / b) : 0;
}

/** Three digits behind the point for times and rates, more for small numbers. */
function round(x: number): number {
  return Math.abs(x) < 1 ? Number(x.toPrecision(3)) : Math.round(x * 1000) / 1000;
}
