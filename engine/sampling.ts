/**
 * Sampling parameters: defaults and checks.
 *
 * @module
 */
import type { Sampling } from "./types.ts";

/** llama.cpp's defaults; a model's own generation config goes before them, the caller's wishes before both. */
export const SAMPLING_DEFAULTS: Sampling = {
  maxTokens: Infinity,
  minTokens: 0,
  temperature: 0.8,
  topK: 40,
  typicalP: 1,
  topP: 0.95,
  minP: 0.05,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: {},
  seed: undefined,
  stop: [],
  stopTokens: [],
  ignoreEos: false,
  logprobs: undefined,
};

/** Most alternatives a position reports, as in the OpenAI API. */
export const MAX_LOGPROBS = 20;

/**
 * Fills in what the caller left out and draws a seed if none was given. Throws `RangeError` naming the parameter that
 * is out of range for a model of `vocab` tokens.
 */
export function resolveSampling(
  wanted: Partial<Sampling>,
  model: Partial<Sampling>,
  vocab: number,
): Sampling & { readonly seed: number } {
  const s = { ...SAMPLING_DEFAULTS, ...defined(model), ...defined(wanted) };
  whole("maxTokens", s.maxTokens, 1, Infinity);
  whole("minTokens", s.minTokens, 0, Infinity);
  within("temperature", s.temperature, 0, 1e6);
  whole("topK", s.topK, 0, Infinity);
  within("typicalP", s.typicalP, 0, 1);
  within("topP", s.topP, 0, 1);
  within("minP", s.minP, 0, 1);
  within("repetitionPenalty", s.repetitionPenalty, 1e-6, 1e6);
  within("presencePenalty", s.presencePenalty, -100, 100);
  within("frequencyPenalty", s.frequencyPenalty, -100, 100);
  if (s.logprobs !== undefined) whole("logprobs", s.logprobs, 0, Math.min(MAX_LOGPROBS, vocab));
  for (const [id, value] of Object.entries(s.logitBias)) {
    token("logitBias", Number(id), vocab);
    if (Number.isNaN(value) || value === Infinity) {
      throw new RangeError(
        `Cannot generate: logitBias of token ${id} is ${value}, must be a finite number or -Infinity`,
      );
    }
  }
  for (const id of s.stopTokens) token("stopTokens", id, vocab);
  const seed = s.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] as number;
  if (!Number.isSafeInteger(seed)) throw new RangeError(`Cannot generate: seed is ${seed}, must be a whole number`);
  return { ...s, topK: Math.min(s.topK, vocab), seed };
}

/** Entries that are there and not undefined. */
function defined(s: Partial<Sampling>): Partial<Sampling> {
  return Object.fromEntries(
    Object.entries(s).filter(([name, value]) => value !== undefined && name in SAMPLING_DEFAULTS),
  );
}

function within(name: string, value: number, low: number, high: number): void {
  if (typeof value !== "number" || !(value >= low && value <= high)) {
    throw new RangeError(`Cannot generate: ${name} is ${value}, must be between ${low} and ${high}`);
  }
}

function whole(name: string, value: number, low: number, high: number): void {
  if (
    typeof value !== "number" || !(value >= low && value <= high) || (!Number.isInteger(value) && value !== Infinity)
  ) {
    const range = high === Infinity ? `at least ${low}` : `between ${low} and ${high}`;
    throw new RangeError(`Cannot generate: ${name} is ${value}, must be a whole number, ${range}`);
  }
}

function token(name: string, id: number, vocab: number): void {
  if (!Number.isInteger(id) || id < 0 || id >= vocab) {
    throw new RangeError(`Cannot generate: ${name} has token ${id}, the model's are 0 to ${vocab - 1}`);
  }
}
