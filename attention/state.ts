/**
 * What one sequence attends with: its cache, and the policy's state of each layer.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { KvIndex } from "../index/index.ts";
import type { KvLayer, LayerShape } from "../core/kv.ts";
import type { LayerPolicy, PolicyStats } from "./policy.ts";
import type { ResolvedAttention } from "./mod.ts";
import { HitsBuffer } from "../index/hits.ts";
import { KvCache, type KvType } from "./kv_cache.ts";

/** How sequences of a run attend. */
export interface AttentionPlan {
  /** What looks at what. */
  readonly attention: ResolvedAttention;
  /** Makes an index of the plan's spec over a layer's cache. */
  readonly newIndex: (kv: KvLayer) => KvIndex;
}

/** See the module's head. Dispose frees everything (idempotent). */
export class SequenceState implements Disposable {
  /** Keys and values of all layers. */
  readonly cache: KvCache;
  /** What searches fill, one after the other; takes memory only once one did. */
  readonly hits: HitsBuffer;
  /** One a layer; undefined: it attends to everything. */
  readonly policies: readonly (LayerPolicy | undefined)[];

  /** Holds at most `maxTokens` tokens; without a plan every layer attends to everything. */
  constructor(
    backend: Backend,
    shapes: readonly LayerShape[],
    kvType: KvType,
    maxTokens: number,
    plan: AttentionPlan | undefined,
  ) {
    this.cache = new KvCache(backend, shapes, kvType, maxTokens);
    this.hits = new HitsBuffer(backend);
    this.policies = this.cache.layers.map((kv, layer) =>
      plan?.attention.type.open({ kv, layer, newIndex: () => plan.newIndex(kv) }, plan.attention.params)
    );
  }

  /** A step is over: all tokens in the cache are there for good. */
  advance(): void {
    for (let i = 0; i < this.policies.length; i++) this.policies[i]?.advance((this.cache.layers[i] as KvLayer).length);
  }

  /** Sums over the layers that have a policy, and how many they are. */
  stats(): PolicyStats & { readonly layers: number } {
    const sum = {
      queries: 0,
      dense: 0,
      tokens: 0,
      spanned: 0,
      retrieved: 0,
      scored: 0,
      indexBytes: 0,
      estimatedError: 0,
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
