/**
 * The index contract: finds the tokens of one layer that a query should see. Types only.
 *
 * One index serves one layer of one sequence, all KV heads in one call. Lifecycle: `create` → (`add`* → `commit`)* ⇄
 * `search` → dispose. What a planner or background builder decides is a recorded fact, never a matter of timing.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, LayerShape } from "../core/kv.ts";
import type { AttentionPart, Backend } from "../backends/backend.ts";

/** Parameters of a spec, as in `name:key=value,…`. */
export type Params = Readonly<Record<string, string | number | boolean>>;

/** What a search must deliver: an output error for unbiased sampling, or a number of keys. */
export type Goal =
  & ({ readonly error: number } | { readonly topk: number; readonly tail?: "sample" | "surrogate" })
  & {
    /** hash(seed, layer, absolute query position): forks and restores repeat. */
    readonly draw: number;
  };

/** Clusters standing for tokens that are not hits: `exp(q·c)` stands for `size` tokens. */
export interface Surrogates {
  /** [kvHeads, c, headDim] */
  readonly centroids: Tensor;
  /** As centroids. */
  readonly valueSums: Tensor;
  /** [kvHeads, c] */
  readonly sizes: Tensor;
}

/** Retrieved tokens; reused between steps, grows, never truncates silently. */
export interface Hits {
  /** i32 [heads or kvHeads, capacity] */
  tokens: Tensor;
  /** i32 [heads or kvHeads] */
  counts: Tensor;
  /** Shape of tokens: −ln(inclusion probability), added to the logit. */
  bias?: Tensor;
  /** Clusters that stand for the rest. */
  surrogates?: { readonly table: Surrogates; readonly ids: Tensor; readonly counts: Tensor };
  /** What the search vouches for. */
  certificate: "exact" | "calibrated" | "unbiased" | "none";
  /** Relative L2 error of the output, as the search sees it. */
  estimatedError?: Tensor;
}

/** What an index did, per query where it says so. */
export interface IndexStats {
  readonly tokens: number;
  readonly bytes: number;
  readonly keysScored: number;
  readonly keysKept: number;
  readonly bytesRead: number;
  readonly buildSeconds: number;
  readonly pendingTokens: number;
  readonly decisions: readonly string[];
}

/** Receives an index's state, piece by piece, when a context is saved. */
export interface SegmentWriter {
  write(name: string, bytes: Uint8Array): void;
}

/** Gives a saved index its state back; the bytes may be mapped. */
export interface SegmentReader {
  read(name: string): Uint8Array;
}

/** See the module's head. */
export interface KvIndex extends Disposable {
  add(chunk: KvChunk): void;
  /** Everything added becomes searchable at once; slow structure is built behind, an exact scan serves meanwhile. */
  commit(): void;
  /** q [heads, headDim]; exact [heads] is the log-sum-exp of what is attended anyway. */
  search(out: Hits, q: Tensor, goal: Goal, exact: Tensor): void;
  /** Optional fusion of `search` and `attendTopk` under the same laws. */
  attend?(out: AttentionPart, q: Tensor, kv: KvLayer, goal: Goal, exact: Tensor): IndexStats;
  fork(kv: KvLayer): KvIndex;
  save(to: SegmentWriter): void;
  stats(): IndexStats;
}

/** One entry of the index registry. */
export interface IndexType<P extends Params = Params> {
  readonly defaults: P;
  create(shape: LayerShape, params: P, kv: KvLayer, on: Backend): KvIndex;
  map(reader: SegmentReader, kv: KvLayer, on: Backend): KvIndex;
}
