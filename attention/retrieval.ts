/**
 * The policy `retrieval`: sinks and a recent window exactly, what lies between through an index (RetrievalAttention, Liu et
 * al. 2024). Under the default goal the index draws an unbiased sample of as many keys as the wanted error takes.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvQueries } from "../core/kv.ts";
import type { AttentionPart } from "../backends/backend.ts";
import type { Goal, KvIndex, SearchHits, SearchReport } from "../index/index.ts";
import type { AttentionPolicy, LayerPolicy, PolicyPlace, PolicyStats, Spans } from "./policy.ts";
import { lowbias32 } from "../index/draw.ts";
import { parseLayerErrors } from "./layer_errors.ts";
import { Near } from "./near.ts";
import { pyramidBudget } from "./pyramid.ts";
import { checkNear } from "./window.ts";

/** Tokens that leave the window join the index so many at a time; until then the window is that much longer. */
const BLOCK = 64;

/**
 * What needs no queries to be built is built only where searches are near: that of the last layer begins so many tokens before `min_length`,
 * of the one before so many earlier, and so on, at half of it at the earliest, so that no chunk of a prompt pays for all (with 8 tokens in place of 64
 * one did: the longest pause of a stream beside it, 257 to 337 in place of 215 to 221 ms).
 */
const LAYER_STAGGER = 64;

/** The estimated error is read back for one query in so many. */
const ESTIMATE_EVERY = 8;

/** How far values lie from outputs is measured for one query in so many; layers take turns. */
const SPREAD_EVERY = 256;

/** Keys that a goal may ask for. */
const MOST_KEYS = 4096;

const TAILS: readonly string[] = ["none", "sample", "surrogate"];

const DEFAULTS = {
  /** First tokens that stay in sight. */
  sinks: 4,
  /** Last tokens that stay in sight. */
  window: 512,
  /** Relative L2 error of a head's output; unused with a budget. */
  error: 0.05,
  /** Other errors for single layers, whose values spread further than others' do: `layer:error`, `/` between. */
  errors: "",
  /** Keys per query head; 0: as many as the error takes. */
  budget: 0,
  /** With a budget: no more than this share of the keys that the index holds. */
  share: 1,
  /** With a budget: above 0 it falls from layer to layer, to so small a part of it in the last (PyramidKV's beta). */
  pyramid: 0,
  /** With a budget: `none` takes the best keys, `sample` an unbiased sample, `surrogate` lets the index stand for the rest. */
  tail: "none",
  /**
   * Below so many tokens attention is dense: where decoding breaks even on the machine with the quickest memory that was measured, so
   * that it is nowhere slower than exact attention (docs/retrieval.md; 2,000 where memory is slow).
   */
  min_length: 4096,
  /** Whether tokens after the prompt join the index, too; else they stay in the window for ever, as methods need that choose once. */
  grow: true,
  /** So many first layers attend to everything. */
  dense: 0,
  /** Above 0, one layer in so many does, the first among them. */
  dense_every: 0,
  /** Of the draws. */
  seed: 0,
};

type RetrievalParams = typeof DEFAULTS;

/** Registry entry. */
export const retrieval: AttentionPolicy<RetrievalParams> = {
  summary: "attends to sinks and a recent window, and to what an index finds between them",
  defaults: DEFAULTS,
  isDense: false,
  usesIndex: true,
  check,
  open: (place, params) => {
    const own = ownError(place, params);
    // A sliding window is the model's own choice of what to see.
    if (place.kv.shape.slidingWindow === undefined && !isDense(place.layer, params)) {
      return new RetrievalLayer(place, { ...params, error: own ?? params.error });
    }
    if (own === undefined) return undefined;
    throw new RangeError(`Cannot use "retrieval": errors names layer ${place.layer}, which retrieves nothing`);
  },
};

/** What `errors` says of a layer; `RangeError` where it names one that the model has not. */
function ownError({ layer, layers }: PolicyPlace, params: RetrievalParams): number | undefined {
  const errors = parseLayerErrors(params.errors);
  for (const named of errors.keys()) {
    if (named >= layers) {
      throw new RangeError(`Cannot use "retrieval": errors names layer ${named}, the model has ${layers}`);
    }
  }
  return errors.get(layer);
}

function isDense(layer: number, { dense, dense_every }: RetrievalParams): boolean {
  return layer < dense || (dense_every > 0 && layer % dense_every === 0);
}

function check(params: RetrievalParams): void {
  checkNear(params);
  const whole = (key: "budget" | "min_length" | "pyramid" | "dense" | "dense_every" | "seed", most: number) => {
    const value = params[key];
    if (Number.isInteger(value) && value >= 0 && value <= most) return;
    throw new RangeError(`Cannot use "retrieval": ${key} is ${value}, expected a whole number from 0 to ${most}`);
  };
  whole("budget", MOST_KEYS);
  whole("min_length", 2 ** 30);
  whole("pyramid", 2 ** 20);
  whole("dense", 2 ** 20);
  whole("dense_every", 2 ** 20);
  whole("seed", 2 ** 32 - 1);
  if (!(params.error >= 0 && params.error <= 1)) {
    throw new RangeError(`Cannot use "retrieval": error is ${params.error}, expected a number from 0 to 1`);
  }
  if (parseLayerErrors(params.errors).size > 0 && params.budget > 0) {
    throw new RangeError('Cannot use "retrieval": errors goes without budget');
  }
  if (!(params.share > 0 && params.share <= 1)) {
    throw new RangeError(`Cannot use "retrieval": share is ${params.share}, expected a number above 0, at most 1`);
  }
  if (!TAILS.includes(params.tail)) {
    throw new RangeError(`Cannot use "retrieval": tail is "${params.tail}", expected one of ${TAILS.join(", ")}`);
  }
}

class RetrievalLayer implements LayerPolicy {
  readonly #place: PolicyPlace;
  readonly #params: RetrievalParams;
  readonly #near: Near;
  /** Made when the first token leaves the window. */
  #index: KvIndex | undefined;
  /** Everything in `[sinks, #indexed)` is in the index. */
  #indexed: number;
  /** Layers take turns, or one step in so many would insert for all of them. */
  readonly #phase: number;
  /** Cache lengths from which the index is of use. */
  readonly #start: number;
  /** Of those, what searches find: everything in `[sinks, #committed)`. */
  #committed = 0;
  /** Nothing joins the index any more. */
  #isFrozen: boolean;
  #position = 0;
  #queries = 0;
  #dense = 0;
  #short = 0;
  /** Of what it began with, spent before. */
  readonly #spentSeconds: number;
  #tokens = 0;
  #spanned = 0;
  #retrieved = 0;
  #scored = 0;
  #indexBytes = 0;
  #error = 0;
  #errors = 0;
  #answered = 0;
  /** Sum of squares, and how many. */
  #spread = 0;
  #spreads = 0;

  constructor(place: PolicyPlace, params: RetrievalParams) {
    this.#place = place;
    this.#params = params;
    this.#near = new Near(params.sinks);
    this.#index = place.saved;
    this.#spentSeconds = place.saved?.stats().buildSeconds ?? 0;
    this.#indexed = params.sinks + (place.saved?.stats().tokens ?? 0);
    this.#phase = place.layer * 13 % BLOCK;
    const stagger = Math.min(LAYER_STAGGER, Math.floor(params.min_length / 2 / place.layers));
    this.#start = params.min_length - stagger * (place.layers - place.layer);
    // What a file holds was chosen.
    this.#isFrozen = !params.grow && place.saved !== undefined;
  }

  observe(chunk: KvQueries, isPrompt: boolean): void {
    if (!this.#params.grow && !isPrompt) this.#freeze(chunk.start);
    if (this.#isFrozen) return;
    // Made before the step's tokens leave the window, or what they asked would be lost.
    if (this.#isLong(chunk.start + chunk.count)) this.#index ??= this.#place.newIndex();
    if (this.#index?.observes === true) this.#index.observe?.(chunk);
  }

  isIdle(length: number): boolean {
    if (!this.#params.grow && !this.#isFrozen) return false;
    if (this.#index === undefined) return this.#isFrozen || !this.#isLong(length);
    return (this.#isFrozen || this.#index.observes !== true) && length < this.#params.min_length;
  }

  get index(): KvIndex | undefined {
    return this.#indexed > this.#params.sinks ? this.#index : undefined;
  }

  /** What is in the index follows from the cache's length alone: a fork of fewer tokens builds its own. */
  fork(place: PolicyPlace): LayerPolicy {
    const { kv } = place;
    const saved = this.#leaving(kv.length) >= 0 ? this.#index?.fork(kv) : undefined;
    const fork = new RetrievalLayer({ ...place, saved }, this.#params);
    fork.#isFrozen = this.#isFrozen && saved !== undefined;
    fork.advance(kv.length);
    return fork;
  }

  advance(length: number): void {
    const leaves = this.#leaving(length);
    if (leaves < BLOCK || this.#isFrozen || (length < this.#start && this.#canWait)) return;
    this.#add(leaves - leaves % BLOCK);
  }

  /** Whether the index would be the same if it were built later. */
  get #canWait(): boolean {
    return this.#params.grow && this.#index?.observes !== true;
  }

  /** The prompt has `length` tokens: what left the window by then is in the index, to the token, and nothing else will be. */
  #freeze(length: number): void {
    if (this.#isFrozen) return;
    const leaves = length - this.#params.window - this.#indexed;
    if (leaves > 0) this.#add(leaves);
    if (this.#index !== undefined) this.#commit(this.#index);
    this.#isFrozen = true;
  }

  #add(count: number): void {
    this.#index ??= this.#place.newIndex();
    this.#index.add({ start: this.#indexed, count });
    this.#indexed += count;
  }

  endPrompt(): void {}

  settle(): void {
    if (!this.#params.grow) this.#freeze(this.#place.kv.length);
    if (this.#index === undefined) return;
    this.#commit(this.#index);
    this.#index.settle();
  }

  spans(length: number): Spans {
    this.#position = length - 1;
    this.#queries++;
    this.#tokens += length;
    const from = this.#index === undefined || length < this.#params.min_length ? 0 : this.#indexed;
    const spans = this.#near.spans(from, length);
    if (from <= this.#near.sinks) {
      this.#dense++;
      if (this.#index === undefined || length < this.#params.min_length) this.#short++;
      this.#spanned += length;
    } else {
      this.#spanned += length - from + this.#near.sinks;
    }
    return spans;
  }

  hits(out: SearchHits, q: Tensor, length: number, exact: Tensor): boolean {
    if (this.#index === undefined || length < this.#params.min_length) return false;
    if (this.#committed < this.#indexed) this.#commit(this.#index);
    this.#index.search(out, q, this.#goal(), exact);
    const isAny = this.#noteSearch(out.report);
    if (this.#answered % ESTIMATE_EVERY === 1) this.#noteError(out);
    return isAny;
  }

  #noteSearch({ keysKept, keysScored, bytesRead }: SearchReport): boolean {
    const { heads, kvHeads } = this.#place.kv.shape;
    this.#answered++;
    this.#retrieved += keysKept / (this.#params.budget > 0 ? heads : kvHeads);
    this.#scored += keysScored / kvHeads;
    this.#indexBytes += bytesRead;
    return keysKept > 0;
  }

  #measuresSpread(answered: number): boolean {
    return this.#errors > 0 && (this.#spreads === 0 || (answered + this.#phase) % SPREAD_EVERY === 0);
  }

  attend(out: AttentionPart, q: Tensor, length: number, exact: Tensor): boolean | undefined {
    if (this.#index?.attend === undefined || length < this.#params.min_length || this.#params.tail === "surrogate") {
      return undefined;
    }
    // What is measured now and then is measured over hits.
    const answered = this.#answered + 1;
    if (answered % ESTIMATE_EVERY === 1 || this.#measuresSpread(answered)) return undefined;
    if (this.#committed < this.#indexed) this.#commit(this.#index);
    return this.#noteSearch(this.#index.attend(out, q, this.#goal(), exact));
  }

  attended(spread: () => number | undefined): void {
    if (!this.#measuresSpread(this.#answered)) return;
    const measured = spread();
    if (measured === undefined) return;
    this.#spread += measured ** 2;
    this.#spreads++;
  }

  stats(): PolicyStats {
    const index = this.#index?.stats();
    return {
      queries: this.#queries,
      dense: this.#dense,
      short: this.#short,
      tokens: this.#tokens,
      spanned: this.#spanned,
      retrieved: this.#retrieved,
      scored: this.#scored,
      indexBytes: this.#indexBytes,
      indexMemory: index?.bytes ?? 0,
      buildSeconds: Math.max(0, (index?.buildSeconds ?? 0) - this.#spentSeconds),
      estimatedError: this.#errors === 0 ? 0 : this.#error / this.#errors * this.#answered *
        (this.#spreads === 0 ? 1 : Math.sqrt(this.#spread / this.#spreads)),
    };
  }

  [Symbol.dispose](): void {
    this.#index?.[Symbol.dispose]();
    this.#index = undefined;
    this.#indexed = this.#params.sinks;
    this.#committed = 0;
  }

  /** Whether tokens have left the window: in the same step for all layers. */
  #isLong(length: number): boolean {
    return length - this.#params.window - this.#params.sinks >= BLOCK;
  }

  /** Of a block, all layers but the first wait a little longer: see `#phase`. */
  #leaving(length: number): number {
    return length - this.#params.window - this.#phase - this.#indexed;
  }

  /**
   * Only when something is searched: prompts are read in chunks whose sizes timing decides, and what is built must not
   * depend on them; nor need anything be built over half of a prompt.
   */
  #commit(index: KvIndex): void {
    index.commit();
    this.#committed = this.#indexed;
  }

  #goal(): Goal {
    const { error, budget, tail } = this.#params;
    const draw = hash(hash(this.#params.seed, this.#place.layer), this.#position);
    if (budget === 0) return { error, draw };
    const topk = this.#budget();
    return tail === "sample" || tail === "surrogate" ? { topk, tail, draw } : { topk, draw };
  }

  #budget(): number {
    const { budget, share, pyramid, sinks } = this.#params;
    const tokens = this.#indexed - sinks;
    const { layer, layers } = this.#place;
    const own = pyramid === 0 ? budget : pyramidBudget(budget, pyramid, { layer, layers, tokens });
    return Math.max(1, Math.min(own, Math.ceil(share * tokens), MOST_KEYS));
  }

  #noteError(out: SearchHits): void {
    const errors = out.estimatedError.backend.read(out.estimatedError);
    let sum = 0;
    for (const error of errors) sum += error;
    if (Number.isNaN(sum)) return;
    this.#error += sum / errors.length;
    this.#errors++;
  }
}

/** Two words into one: draws of neighbouring layers and positions have nothing in common. */
function hash(a: number, b: number): number {
  return lowbias32(a ^ Math.imul(b + 1, 0x9e3779b9));
}
