/**
 * What one cell of the matrix is: everything that decides its answers, and everything that was measured. Types and names.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Interval } from "../quality_table.ts";

/** Raised when a generator or a score changes: cells of different suites are not compared. */
export const SUITE_VERSION = 3;

/** How questions meet their context: `shared` asks forks of a stored context, `cold` reads the question with it. */
export type Mode = "shared" | "cold";

/** Everything that decides a cell's answers. */
export interface CellSpec {
  readonly suiteVersion: number;
  /** Canonical spec of the backend. */
  readonly backend: string;
  /** Name of the model's file, and what tells it from others. */
  readonly model: string;
  readonly modelHash: string;
  readonly tokenizerHash: string;
  /** Type of cached keys and values. */
  readonly kv: string;
  /** Base of the rotary frequencies, where it is not the model's own. */
  readonly ropeFreqBase?: number | undefined;
  /** As the user wrote it, for tables; and parameters that every method that has them was given. */
  readonly method: string;
  readonly settings?: Readonly<Record<string, string>> | undefined;
  /** Canonical specs: what the method came to. */
  readonly policy: string;
  readonly index: string;
  readonly task: string;
  readonly length: number;
  readonly mode: Mode;
  readonly seed: number;
  /** Contexts. */
  readonly samples: number;
  /** Questions of each, or tokens that are scored. */
  readonly questions: number;
  /** Whether the model wrote answers of its own, beside being forced through the right ones. */
  readonly writes: boolean;
  /** Of the prose that things are hidden in. */
  readonly haystackHash: string;
}

/** Equal keys mean equal answers; the method's name and the tables' labels are not part of it. */
export function cellKey(spec: CellSpec): string {
  const { method: _, settings: __, ...rest } = spec;
  const sorted = Object.entries(rest).filter(([, value]) => value !== undefined).sort(([a], [b]) => a < b ? -1 : 1);
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 24);
}

/** What `--filter` looks at. */
export function cellName({ backend, model, method, task, length, mode }: CellSpec): string {
  return `${backend} ${model} ${method} ${task} ${length} ${mode}`;
}

/** Answers of a task with questions. */
export interface QuestionQuality {
  readonly kind: "questions";
  readonly count: number;
  /** Chance of being right without looking. */
  readonly chance: number;
  readonly right: Interval;
  /** Of the questions whose evidence no window sees; null where there are none. */
  readonly rightFar: number | null;
  readonly logprob: Interval;
  readonly margin: Interval;
  /** Paired, question by question. */
  readonly rightMinusFull: Interval;
  readonly logprobMinusFull: Interval;
  readonly marginMinusFull: Interval;
  /** Whether full attention beats a window by more than 3 standard errors, over 8 answers at least: else the task says nothing here. */
  readonly informative: boolean;
  /** 0 to 100, as the named benchmark scores what the model writes. */
  readonly score?: Interval;
  readonly scoreMinusFull?: Interval;
  /** Of what the model wrote. */
  readonly empty?: number;
  /** Of single questions, depth first: for the needle grid and for reading. */
  readonly each: readonly (readonly [depth: number, right: number, margin: number, score: number | null])[];
}

/** Divergence from full attention, forced through a text. */
export interface TextQuality {
  readonly kind: "text";
  readonly count: number;
  readonly kl: Interval;
  readonly klP50: number;
  readonly klP99: number;
  readonly sameTop: number;
  /** Of the text's own tokens, over full attention's. */
  readonly deltaNll: Interval;
  /** Full attention's. */
  readonly nllFull: number;
}

/** How far outputs of heads lie from exact attention over the same inputs, in units of their length. */
export interface HeadErrors {
  readonly mean: number;
  readonly p99: number;
  /** [layers][heads], means over steps. */
  readonly heads: readonly (readonly number[])[];
}

/** What the cell's decode queries looked at: means per query and layer, KV heads averaged. */
export interface Work {
  readonly queries: number;
  /** Of those, attended to everything. */
  readonly dense: number;
  readonly keys: number;
  readonly spanned: number;
  readonly retrieved: number;
  readonly scored: number;
  /** Attended, as a share of the keys there were. */
  readonly share: number;
  /** Per token, all layers: what the index read, and rows of the cache. */
  readonly indexBytes: number;
  readonly rowBytes: number;
  /** Estimated by the method itself; null where it estimates none. */
  readonly estimatedError: number | null;
}

/** Decode steps of the method and of exact attention over the same cache, in turns. */
export interface Speed {
  readonly pairs: number;
  readonly exactMs: number;
  readonly ownMs: number;
  /** Exact over own: the median of the turns', and its quartiles. */
  readonly ratio: readonly [median: number, low: number, high: number];
  /** Read bandwidth measured beside, GB/s; null where the backend cannot say. */
  readonly bandwidth: number | null;
  /** What weights and the bytes read take at that bandwidth. */
  readonly exactFloorMs: number | null;
  readonly ownFloorMs: number | null;
}

/** Bytes. */
export interface Memory {
  readonly weights: number;
  readonly cache: number;
  readonly index: number;
}

/** What the index cost. */
export interface Build {
  /** Reading the prompt without and with it. */
  readonly readMs: number;
  readonly readWithMs: number;
  /** From the first search to the last of what is built behind it. */
  readonly settleMs: number;
  /** By all threads, as the index counts. */
  readonly threadSeconds: number;
  /** Per decoded token, all layers: keys that join. */
  readonly insertMs: number;
}

/** Where it ran. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGB: number | null;
  readonly os: string;
  readonly deno: string;
}

/** One line of a results file. */
export interface Cell {
  readonly kind: "cell";
  readonly key: string;
  readonly spec: CellSpec;
  readonly machine: Machine;
  /** Of this program. */
  readonly commit: string;
  readonly version: string;
  readonly at: string;
  readonly seconds: number;
  /** SHA-256 of each context with its questions, 16 hex digits. */
  readonly prompts: readonly string[];
  readonly quality: QuestionQuality | TextQuality;
  readonly headErrors: HeadErrors | null;
  readonly work: Work;
  readonly speed: Speed;
  readonly memory: Memory;
  readonly build: Build;
}
