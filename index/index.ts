/**
 * The index contract: finds the tokens of one layer that a query should see. Types only.
 *
 * One index serves one layer of one sequence, all KV heads in one call. Lifecycle: `create` or `map` → (`add`* → `commit`)*
 * ⇄ `search` → dispose. Positions are absolute. What a planner or background builder decides is a recorded fact, never a
 * matter of timing: equal seed, model and history give equal hits.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, KvQueries } from "../core/kv.ts";
import type { AttentionPart, Backend } from "../backends/backend.ts";

/** Parameters of a spec, as in `name:key=value,…`. */
export type Params = Readonly<Record<string, string | number | boolean>>;

/** What a search must deliver. Everything of a goal that a type cannot do is `Unsupported`. */
export type Goal =
  & (
    | {
      /**
       * 0 to 1: relative L2 error of the output to aim at, by threshold sampling with τ = error², shared by the query heads
       * of a KV head (one row of hits each). 0 keeps everything.
       */
      readonly error: number;
    }
    | {
      /**
       * 1 to 4096 keys for each query head (one row of hits each): the best ones, or with `tail: "sample"` an unbiased sample
       * of that size (priority sampling; Duffield, Lund, Thorup 2007), or with `tail: "surrogate"` the best ones and
       * clusters that stand for the rest.
       */
      readonly topk: number;
      readonly tail?: "sample" | "surrogate";
    }
  )
  & {
    /** 32 bits, hash(seed, layer, absolute query position): forks and restores repeat. */
    readonly draw: number;
  };

/** Retrieved tokens, as the attention kernels look at them. One row a KV head serves its whole group. */
export interface Hits {
  /** i32 [heads or kvHeads, capacity]: absolute positions, ascending, without repeats. */
  tokens: Tensor;
  /** i32 [heads or kvHeads]: how many of each row. */
  counts: Tensor;
  /** f32, shape of tokens: −ln(inclusion probability), added to the logit. */
  bias?: Tensor | undefined;
}

/**
 * What a search vouches for. `exact`: the best keys by score, ties apart. `calibrated`: the recall in the report, checked on
 * held-out prompt queries. `unbiased`: numerator and denominator of the output have the right mean over draws.
 */
export type Certificate = "exact" | "calibrated" | "unbiased" | "none";

/** What one search did, all heads together. */
export interface SearchReport {
  /** The weakest of all rows. */
  certificate: Certificate;
  /** Keys whose score, or bound, was computed from their own codes or rows. */
  keysScored: number;
  /** Sum of the counts. */
  keysKept: number;
  /** Of codes, rows and structure, not of the query. */
  bytesRead: number;
  /** Of the best `topk`; NaN where it is not estimated. */
  expectedRecall: number;
}

/** Hits that a search fills: reused between steps; they grow, and never truncate silently. */
export interface SearchHits extends Hits {
  /** See {@link SearchReport}; overwritten by the next search. */
  readonly report: SearchReport;
  /** f32 [rows]: relative L2 error of the output, as the search sees it; NaN where unknown. */
  estimatedError: Tensor;
  /** f32; a search always says with which bias its hits count. */
  bias: Tensor;
  /**
   * With `tail: "surrogate"`: attention to what stands for tokens that are no hits (o f32 [1, heads, headDim], lse f32
   * [1, heads], −∞ where nothing does), a part like others; undefined after other searches.
   */
  readonly rest?: AttentionPart | undefined;
  /** Makes room for `rest`. */
  reserveRest(heads: number, headDim: number): AttentionPart;
  /** Gives the tensors `rows` rows with room for `capacity` tokens each, at least; contents are undefined afterwards, and `rest` is nothing. */
  reserve(rows: number, capacity: number): void;
}

/** What an index holds and has done. */
export interface IndexStats {
  /** Added, committed or not. */
  readonly tokens: number;
  /** Memory of its own, beside the cache's rows; what forks share counts in each. */
  readonly bytes: number;
  /** Added tokens that its structure does not cover yet: they are scanned. */
  readonly pendingTokens: number;
  /** Spent on structure so far, by all threads. */
  readonly buildSeconds: number;
  /** Tokens added since the structure was last built. */
  readonly insertedTokens: number;
  /** Recorded facts: what was chosen, at which position, and why. */
  readonly decisions: readonly string[];
}

/** See the module's head. Dispose lets go of the rows and waits for builders (idempotent). */
export interface KvIndex extends Disposable {
  /**
   * Takes note of tokens whose rows are in the cache already and will not change. The first chunk may start anywhere, each
   * further one where the last ended. Throws `RangeError`, and adds nothing, when a key is not finite.
   */
  add(chunk: KvChunk): void;
  /** Whether the index learns from queries; absent: it does not, and `observe` need not be there. */
  readonly observes?: boolean;
  /**
   * What tokens asked, which need not have been added: as they come, because queries are gone when keys leave the window.
   * Keys up to these tokens' own are in the cache and may be read by the next commit. Positions observed before are skipped, or
   * taken anew: an interrupted step asks again. Throws `RangeError`, and notes
   * nothing, when a query is not finite.
   */
  observe?(chunk: KvQueries): void;
  /** Everything added becomes searchable at once; slow structure is built behind, an exact scan serves meanwhile. */
  commit(): void;
  /** Waits until nothing is being built: for tests and measurements. */
  settle(): void;
  /**
   * q f32 [heads, headDim] or [1, heads, headDim], rotated; exact f32 [heads] or [1, heads] is the log-sum-exp of what is
   * attended anyway, −∞ for nothing.
   */
  search(out: SearchHits, q: Tensor, goal: Goal, exact: Tensor): void;
  /** Optional: `search` and `attendTopk` in one call under the laws of both, without hits that anybody else could see. No surrogates. */
  attend?(out: AttentionPart, q: Tensor, goal: Goal, exact: Tensor): SearchReport;
  /** An index with the same contents over `kv`, which holds the same rows (or shares them); what is sealed is shared. */
  fork(kv: KvLayer): KvIndex;
  /** Writes a file, complete or not at all; what is committed comes back. */
  save(path: string): void;
  /**
   * The same into a file that exists, from byte `offset` on, a multiple of 4096 that nothing lies behind; it is not flushed.
   * Returns how many bytes it took. Without it an index is built anew when a context is opened.
   */
  saveInto?(path: string, offset: number): number;
  /** See {@link IndexStats}. */
  stats(): IndexStats;
}

/** A piece of a file. */
export interface FileRange {
  /** First byte. */
  readonly offset: number;
  /** How many. */
  readonly bytes: number;
}

/** One entry of the index registry. */
export interface IndexType<P extends Params = Params> {
  /** One sentence for `--help` and error messages. */
  readonly summary: string;
  /** Parameters and their defaults, as in `name:key=value,…`. */
  readonly defaults: P;
  /** Empty, over the cache of one layer, whose segments may grow in number and be filled. */
  create(kv: KvLayer, params: P, on: Backend): KvIndex;
  /**
   * A saved index over a cache with the same rows; `range` is where in the file it is. Throws `RangeError` for a file of
   * another type, spec or content.
   */
  map(path: string, kv: KvLayer, params: P, on: Backend, range?: FileRange): KvIndex;
}
