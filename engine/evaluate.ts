/**
 * Teacher-forced scoring: what the model thought of each token of a given text.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Backend } from "../backends/backend.ts";
import type { Model, Tokenizer } from "../model/model.ts";
import type { EvaluateOptions, Evaluation } from "./types.ts";
import type { Pacer } from "./pacer.ts";
import { DoesNotFit } from "../core/errors.ts";
import { Ops } from "../backends/ops.ts";
import type { KvType } from "../attention/kv_cache.ts";
import { type AttentionPlan, SequenceState } from "../attention/state.ts";
import { Forward } from "./forward.ts";
import { LogitsFile } from "./logits_file.ts";
import { tokenLogprob } from "./token_logprob.ts";

/** Logits of so many bytes at most are held at once: [rows, vocab], twice with a base to compare with. */
const LOGITS_BYTES = 64 << 20;

/** What scoring runs on. */
export interface EvaluateContext {
  /** The model. */
  readonly model: Model;
  /** Where it is loaded. */
  readonly backend: Backend;
  /** Names tokens, with `top`. */
  readonly tokenizer: Tokenizer;
  /** Type of cached keys and values. */
  readonly kvType: KvType;
  /** Most tokens. */
  readonly ctxSize: number;
  /** Most tokens of a chunk. */
  readonly batchSize: number;
  /** How to attend; absent: to everything. */
  readonly plan?: AttentionPlan | undefined;
  /** A fork of what was read of these tokens before, the first `most` of them at most; the caller's from then on. */
  readonly begin?: (most: number) => SequenceState | undefined;
  /** Says how large chunks may be. */
  readonly pacer: Pacer;
  /** Whether a cancel waits to be heard. */
  readonly isInterrupted?: () => boolean;
}

/**
 * Scores tokens `from … n − 1`, a chunk a `next()`. Ends with everything freed, also by `return()`. Throws `RangeError`
 * for wrong arguments, `DoesNotFit` for more tokens than the context holds, `ModelFileError` for unfit saved logits.
 */
export function* evaluate(
  context: EvaluateContext,
  tokens: Int32Array,
  options: Omit<EvaluateOptions, "signal">,
): Generator<void, Evaluation> {
  const { model, backend, pacer } = context;
  const { vocab } = model.config;
  checkArguments(context, tokens, options);
  const count = tokens.length - options.from;
  // The logits of position p predict token p + 1, so the last token itself is never run.
  const first = options.from - 1;
  using state = context.begin?.(first) ??
    new SequenceState(backend, model.config.layers, context.kvType, context.ctxSize, context.plan);
  using save = options.saveLogits === undefined ? undefined : LogitsFile.open(options.saveLogits, vocab, "append");
  using base = options.klBase === undefined ? undefined : LogitsFile.open(options.klBase, vocab, "read");
  const logprobs = new Float32Array(count);
  const kl = new Float32Array(base === undefined ? 0 : count);
  const sameTop = new Uint8Array(kl.length);
  const named: NonNullable<Evaluation["tokens"]>[number][] = [];
  const forward = new Forward(model, new Ops(backend), context.batchSize);
  const mostRows = Math.max(1, Math.floor(LOGITS_BYTES / (4 * vocab * (base === undefined ? 1 : 2))));

  const cachedTokens = state.cache.length;
  for (let start = cachedTokens; start < tokens.length - 1;) {
    const scored = start >= first;
    const paced = Math.min(pacer.chunkTokens(false), context.batchSize);
    const most = !scored ? Math.min(paced, first - start) : options.mode === "decode" ? 1 : Math.min(paced, mostRows);
    const numTokens = Math.min(most, tokens.length - 1 - start);
    const startMs = performance.now();
    try {
      const numLogits = scored ? numTokens : 0;
      const isPrompt = !scored || options.mode === "prefill";
      const logits = forward.run([{ state, tokens, start, numTokens, numLogits, isPrompt }], context.isInterrupted);
      if (logits === undefined) {
        yield;
        continue;
      }
      if (scored) {
        const next = tokens.slice(start + 1, start + 1 + numTokens);
        const row = start - first;
        logprobs.set(scores(backend, logits, next), row);
        if (options.top !== undefined) {
          named.push(...name(context, logits, next, logprobs.subarray(row, row + numTokens), options.top));
        }
        save?.append(next, backend.read(logits) as Float32Array);
        if (base !== undefined) {
          const compared = compare(backend, logits, next, base, (options.klRow ?? 0) + row);
          kl.set(compared.kl, row);
          sameTop.set(compared.sameTop, row);
        }
      }
    } finally {
      backend.endStep();
    }
    if (numTokens > 1) pacer.record(numTokens, performance.now() - startMs);
    start += numTokens;
    yield;
  }
  return {
    cachedTokens,
    logprobs,
    ...(options.top === undefined ? {} : { tokens: named }),
    ...(base === undefined ? {} : { kl, sameTop }),
    ...(options.mode === "decode" ? { attended: state.stats() } : {}),
  };
}

function checkArguments(
  { model, ctxSize }: EvaluateContext,
  tokens: Int32Array,
  { from, klRow = 0, top = 0 }: Omit<EvaluateOptions, "signal">,
): void {
  const n = tokens.length;
  if (!Number.isInteger(from) || from < 1 || from >= n) {
    throw new RangeError(`Cannot score text: from is ${from}, must be between 1 and ${n - 1} for ${n} tokens`);
  }
  if (!Number.isInteger(klRow) || klRow < 0) {
    throw new RangeError(`Cannot score text: klRow is ${klRow}, must be a whole number of at least 0`);
  }
  if (!Number.isInteger(top) || top < 0 || top > 20) {
    throw new RangeError(`Cannot score text: top is ${top}, must be a whole number from 0 to 20`);
  }
  if (n - 1 > ctxSize) {
    throw new DoesNotFit(
      `Cannot score text: ${n} tokens, the context holds ${ctxSize}; shorten it or raise --ctx-size`,
      {
        promptTokens: n,
        ctxSize,
      },
    );
  }
  const { vocab } = model.config;
  const bad = tokens.findIndex((token) => token < 0 || token >= vocab);
  if (bad >= 0) throw new RangeError(`Cannot score text: token ${tokens[bad]} is outside the model's ${vocab}`);
}

function scores(backend: Backend, logits: Tensor, next: Int32Array<ArrayBuffer>): Float32Array {
  const tokens = backend.alloc([next.length], "i32", "step");
  backend.write(tokens, next);
  const out = backend.alloc([next.length], "f32", "step");
  backend.kernels.tokenLogprobs(out, logits, tokens);
  return backend.read(out) as Float32Array;
}

/** Tokens with their scores, and the best `k` beside each. */
function name(
  { backend, tokenizer }: EvaluateContext,
  logits: Tensor,
  next: Int32Array,
  scores: Float32Array,
  k: number,
): NonNullable<Evaluation["tokens"]> {
  const rows = next.length;
  const [ids, best] = [backend.alloc([rows, k], "i32", "step"), backend.alloc([rows, k], "f32", "step")];
  if (k > 0) backend.kernels.topLogprobs(ids, best, logits);
  const [topIds, topScores] = [backend.read(ids), backend.read(best)];
  return Array.from(next, (token, i) => ({
    logprob: tokenLogprob(tokenizer, token, scores[i] as number),
    top: Array.from({ length: k }, (_, j) => {
      return tokenLogprob(tokenizer, topIds[i * k + j] as number, topScores[i * k + j] as number);
    }),
  }));
}

function compare(
  backend: Backend,
  logits: Tensor,
  next: Int32Array,
  file: LogitsFile,
  row: number,
): { kl: Float32Array; sameTop: Uint8Array } {
  const base = backend.alloc(logits.shape, "f32", "step");
  file.read(row, next, (values, i) => backend.write(base, values, i));
  const out = backend.alloc([next.length], "f32", "step");
  backend.kernels.klDivergence(out, base, logits);
  const kl = backend.read(out) as Float32Array;
  const [ours, theirs] = [best(backend, logits), best(backend, base)];
  return { kl, sameTop: Uint8Array.from(ours, (token, i) => token === theirs[i] ? 1 : 0) };
}

/** The best token of each row. */
function best(backend: Backend, logits: Tensor): Int32Array {
  const rows = logits.shape[0] as number;
  const out = backend.alloc([rows], "i32", "step");
  const greedy = { temperature: 0, topK: 0, typicalP: 1, topP: 1, minP: 0, uniform: 0 };
  backend.kernels.sample(out, logits, new Array(rows).fill(greedy));
  return backend.read(out) as Int32Array;
}
