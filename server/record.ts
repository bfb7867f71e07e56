/**
 * What one generation did, as a line for the operator: never what was said.
 *
 * @module
 */
import { cachedTokens, type Done, endOf, keysOf } from "./answer.ts";

/** One line of `--log-jsonl`. */
export interface GenerationRecord {
  /** When it ended, in ISO 8601. */
  readonly time: string;
  /** The request's id, as its answer's header says. */
  readonly request_id: string;
  /** Canonical specs. */
  readonly policy: string;
  readonly index: string;
  readonly context?: string;
  readonly finish_reason?: string;
  /** Type of the error that ended it. */
  readonly error?: string;
  readonly prompt_tokens?: number;
  readonly cached_tokens?: number;
  readonly predicted_tokens?: number;
  readonly queue_ms?: number;
  readonly prompt_ms?: number;
  readonly predicted_ms?: number;
  /** Means per head and step. */
  readonly keys?: ReturnType<typeof keysOf>;
}

/** Who asked, and how. */
export type Asked = Pick<GenerationRecord, "request_id" | "policy" | "index"> & {
  readonly context?: string | undefined;
};

/** The record of a generation that ended with `end`, or with an error of that type. */
export function recordOf({ context, ...asked }: Asked, end: Done | { readonly type: string }): GenerationRecord {
  const about = { time: new Date().toISOString(), ...asked, ...(context === undefined ? {} : { context }) };
  if (!("timings" in end)) return { ...about, error: end.type };
  const { timings, attended } = end;
  return {
    ...about,
    finish_reason: end.reason === "cancelled" ? "abort" : endOf(end).finish_reason,
    prompt_tokens: timings.promptTokens,
    cached_tokens: cachedTokens(timings),
    predicted_tokens: timings.predictedTokens,
    queue_ms: Math.round(timings.queueMs),
    prompt_ms: Math.round(timings.promptMs),
    predicted_ms: Math.round(timings.predictedMs),
    keys: keysOf(timings, attended),
  };
}
