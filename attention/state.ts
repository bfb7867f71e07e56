/**
 * What one sequence attends with: its cache, and the policy's state of each layer.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { FileRange, KvIndex } from "../index/index.ts";
import type { KvLayer, LayerShape } from "../core/kv.ts";
import type { LayerPolicy, PolicyPlace, PolicyStats } from "./policy.ts";
import type { Look } from "./look.ts";
import type { ResolvedAttention } from "./mod.ts";
import { HitsBuffer } from "../index/hits.ts";
import { KvCache, type KvType } from "./kv_cache.ts";

/** How sequences of a run attend. */
export interface AttentionPlan {
  /** What looks at what. */
  readonly attention: ResolvedAttention;
  /** Canonical spec of the index; empty where none is asked. */
  readonly index: string;
  /** Makes an index of that spec over a layer's cache. */
  readonly newIndex: (kv: KvLayer) => KvIndex;
  /** Opens a saved index of that spec in a piece of a file. */
  readonly mapIndex: (path: string, range: FileRange, kv: KvLayer) => KvIndex;
}

/** What a sequence begins with, in place of nothing. */
export interface SequenceOrigin {
  /** The state's from now on. */
  readonly cache: KvCache;
  /** The policy of a layer. */
  openPolicy(place: PolicyPlace): LayerPolicy | undefined;
}

/** How a sequence is forked. */
export interface ForkOptions {
  /** The state that is forked will take part in no step any more: the fork may go on in its open segment. */
  readonly takesOver?: boolean;
  /** How the fork attends, where it is another way; its indexes are built anew then. */
  readonly plan?: AttentionPlan | undefined;
}

/** See the module's head. Dispose frees everything (idempotent). */
export class SequenceState implements Disposable {
  /** Keys and values of all layers. */
  readonly cache: KvCache;
  /** What searches fill, one after the other; takes memory only once one did. */
  readonly hits: HitsBuffer;
  /** One a layer; undefined: it attends to everything. */
  readonly policies: readonly (LayerPolicy | undefined)[];

  /** Watches decode queries, where somebody wants to know. */
  look: Look | undefined;
  readonly #backend: Backend;
  readonly #plan: AttentionPlan | undefined;

  /** Holds at most `maxTokens` tokens; without a plan every layer attends to everything. */
  constructor(
    backend: Backend,
    shapes: readonly LayerShape[],
    kvType: KvType,
    maxTokens: number,
    plan: AttentionPlan | undefined,
    origin?: SequenceOrigin,
  ) {
    this.#backend = backend;
    this.#plan = plan;
    this.cache = origin?.cache ?? new KvCache(backend, shapes, kvType, maxTokens);
    this.hits = new HitsBuffer(backend);
    const policies: (LayerPolicy | undefined)[] = [];
    this.policies = policies;
    if (plan === undefined) return;
    const { type, params } = plan.attention;
    try {
      for (const [layer, kv] of this.cache.layers.entries()) {
        const place = { kv, layer, layers: this.cache.layers.length, newIndex: () => plan.newIndex(kv) };
        policies.push(origin === undefined ? type.open(place, params) : origin.openPolicy(place));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * A sequence of at most `maxTokens` tokens that begins with the first `numTokens` of this one's: rows and sealed parts of
   * indexes are shared. Throws `RangeError` for more tokens than there are.
   */
  fork(numTokens: number, maxTokens: number, options: ForkOptions = {}): SequenceState {
    const cache = this.cache.fork(numTokens, maxTokens, options.takesOver);
    const plan = "plan" in options ? options.plan : this.#plan;
    const openPolicy = sameAttention(plan, this.#plan)
      ? (place: PolicyPlace) => this.policies[place.layer]?.fork(place)
      : (place: PolicyPlace) => opened(plan, place, numTokens);
    return new SequenceState(this.#backend, [], cache.type, maxTokens, plan, { cache, openPolicy });
  }

  /** Whether the next token would only attend to everything, and nobody would know. */
  get isIdle(): boolean {
    if (this.look !== undefined) return false;
    const length = this.cache.length + 1;
    for (const policy of this.policies) if (policy !== undefined && policy.isIdle?.(length) !== true) return false;
    return true;
  }

  /** The next token's rows joined the cache, and its queries attended to everything, unseen by policies: see `isIdle`. */
  grow(): void {
    this.cache.grow();
    for (const policy of this.policies) policy?.spans(this.cache.length);
  }

  /** A step is over: all tokens in the cache are there for good. */
  advance(): void {
    for (let i = 0; i < this.policies.length; i++) this.policies[i]?.advance((this.cache.layers[i] as KvLayer).length);
  }

  /** See {@link LayerPolicy.settle}. */
  settle(): void {
    for (const policy of this.policies) policy?.settle?.();
  }

  /** Sums over the layers that have a policy, and how many they are. */
  stats(): PolicyStats & { readonly layers: number } {
    const sum = {
      queries: 0,
      dense: 0,
      short: 0,
      tokens: 0,
      spanned: 0,
      retrieved: 0,
      scored: 0,
      indexBytes: 0,
      indexMemory: 0,
      estimatedError: 0,
      buildSeconds: 0,
      layers: 0,
    };
    for (const policy of this.policies) {
      if (policy === undefined) continue;
      const stats = policy.stats();
      for (const key of Object.keys(stats) as (keyof PolicyStats)[]) sum[key] += stats[key];
      sum.layers++;
    }
    return sum;
  }

  /** Indexes end before the rows they read. */
  [Symbol.dispose](): void {
    for (const policy of this.policies) policy?.[Symbol.dispose]();
    this.hits[Symbol.dispose]();
    this.cache[Symbol.dispose]();
  }
}

function sameAttention(a: AttentionPlan | undefined, b: AttentionPlan | undefined): boolean {
  return a?.attention.policy === b?.attention.policy && a?.index === b?.index;
}

/** A policy over tokens that were there before it. */
function opened(plan: AttentionPlan | undefined, place: PolicyPlace, numTokens: number): LayerPolicy | undefined {
  const policy = plan?.attention.type.open(place, plan.attention.params);
  policy?.advance(numTokens);
  return policy;
}
