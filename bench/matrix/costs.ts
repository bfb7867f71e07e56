/**
 * What a method costs over a context: decode steps beside exact attention's in turns, its work, memory and building.
 *
 * @module
 */
import { median } from "../../core/median.ts";
import type { PolicyStats } from "../../attention/policy.ts";
import type { SequenceState } from "../../attention/state.ts";
import { Look } from "../../attention/look.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { KvLayer } from "../../core/kv.ts";
import type { Backend } from "../../backends/backend.ts";
import type { Probe } from "../probe.ts";
import { timeInserting } from "../insert_clock.ts";
import type { Build, HeadErrors, Memory, Speed, Work } from "./cell.ts";

/** Steps before any is timed. */
const WARMING = 3;
const BANDWIDTH_MB = 256;

/** Bytes of one token's row in each layer that has a policy, and in the others, by how many tokens those see. */
interface Rows {
  /** Keys and values, all KV heads. */
  readonly bytes: number;
  readonly slidingWindow: number | undefined;
}

/** What a group of measurements shares. */
export interface CostPlace {
  readonly probe: Probe;
  /** Attends to everything. */
  readonly exact: SequenceState;
  /** Turns that are timed. */
  readonly pairs: number;
  /** Tokens that are decoded, over and over. */
  readonly tokens: readonly number[];
  /** Bytes of the weights. */
  readonly weights: number;
  /** Milliseconds that reading the prompt took. */
  readonly readMs: number;
}

/** What a state took to make. */
export interface MadeIn {
  /** Milliseconds that reading the prompt took with it. */
  readonly readWithMs: number;
  /** And building what is built behind the first queries. */
  readonly settleMs: number;
}

/** Speed, memory and building of `state`, which is settled. */
export function measureCosts(
  place: CostPlace,
  state: SequenceState,
  { readWithMs, settleMs }: MadeIn,
): { readonly speed: Speed; readonly memory: Memory; readonly build: Build } {
  const { probe, exact, pairs, tokens } = place;
  const { backend } = probe.loaded;
  const steps = WARMING + pairs;
  const { length } = state.cache;
  using other = exact.fork(length, length + steps);
  using own = state.fork(length, length + steps);
  const token = (i: number) => tokens[i % tokens.length] as number;
  const time = (fork: SequenceState, i: number) => {
    const start = performance.now();
    probe.step(fork, token(i), (logits) => backend.read(logits));
    return performance.now() - start;
  };
  time(own, 0);
  time(other, 0);
  const inserting = timeInserting(own);
  const [exactMs, ownMs]: [number[], number[]] = [[], []];
  for (let i = 1; i < steps; i++) {
    const [a, b] = [time(other, i), time(own, i)];
    if (i < WARMING) continue;
    exactMs.push(a);
    ownMs.push(b);
  }
  const ratios = exactMs.map((ms, i) => ms / (ownMs[i] as number)).toSorted((a, b) => a - b);
  const at = (q: number) => ratios[Math.min(ratios.length - 1, Math.floor(q * ratios.length))] as number;
  const bandwidth = bandwidthOf(backend);
  const floor = (bytes: number) => bandwidth === null ? null : bytes / bandwidth / 1e6;
  const stats = own.stats();
  const read = (seen: SequenceState, of: PolicyStats & { readonly layers: number }) => {
    const { indexBytes, rowBytes } = workOf(seen, of.layers === 0 ? undefined : of);
    return place.weights + indexBytes + rowBytes;
  };
  let threadSeconds = 0;
  for (const policy of state.policies) threadSeconds += policy?.index?.stats().buildSeconds ?? 0;
  return {
    speed: {
      pairs,
      exactMs: median(exactMs),
      ownMs: median(ownMs),
      ratio: [at(0.5), at(0.25), at(0.75)],
      bandwidth,
      exactFloorMs: floor(read(other, other.stats())),
      ownFloorMs: floor(read(own, stats)),
    },
    memory: {
      weights: place.weights,
      cache: rowsOf(own).reduce((sum, { bytes }) => sum + bytes * length, 0),
      index: stats.indexMemory,
    },
    build: {
      readMs: place.readMs,
      readWithMs,
      settleMs,
      threadSeconds,
      insertMs: inserting() / (steps - 1),
    },
  };
}

/** Means over what `stats` sums up; without stats everything was attended to. */
export function workOf(state: SequenceState, stats: PolicyStats | undefined): Work {
  const { length } = state.cache;
  const rows = rowsOf(state);
  const open = rows.filter((_, i) => state.policies[i] !== undefined);
  const closed = rows.filter((_, i) => state.policies[i] === undefined);
  const bytesOf = (some: readonly Rows[], keys: number) =>
    some.reduce((sum, { bytes, slidingWindow }) => sum + bytes * Math.min(keys, slidingWindow ?? keys), 0);
  if (stats === undefined || stats.queries === 0) {
    const rowBytes = bytesOf(rows, length);
    const all = { keys: length, spanned: length, retrieved: 0, scored: 0, share: 1 };
    return { queries: 0, dense: 0, ...all, indexBytes: 0, rowBytes, estimatedError: null };
  }
  const { queries, dense, tokens, spanned, retrieved, scored, indexBytes } = stats;
  const attended = (spanned + retrieved) / queries;
  const answered = queries - dense;
  return {
    queries,
    dense,
    keys: tokens / queries,
    spanned: spanned / queries,
    retrieved: retrieved / queries,
    scored: scored / queries,
    share: (spanned + retrieved) / tokens,
    indexBytes: indexBytes / queries * open.length,
    rowBytes: bytesOf(open, attended) + bytesOf(closed, length),
    estimatedError: answered > 0 && stats.estimatedError > 0 ? stats.estimatedError / answered : null,
  };
}

/** Stats of several runs as one. */
export function addStats(all: readonly (PolicyStats | undefined)[]): PolicyStats | undefined {
  const some = all.filter((stats) => stats !== undefined);
  const [first, ...rest] = some;
  if (first === undefined) return undefined;
  const sum: Record<keyof PolicyStats, number> = { ...first };
  for (const stats of rest) {
    for (const key of Object.keys(sum) as (keyof PolicyStats)[]) sum[key] += stats[key];
  }
  return sum;
}

/** Lets `state` decode `steps` tokens and looks how far each head's output is from exact attention over the same inputs. */
export function measureHeads(probe: Probe, state: SequenceState, tokens: readonly number[]): HeadErrors | null {
  if (state.policies.length === 0 || probe.loaded.backend.kernels.attendWindow === undefined) return null;
  const { length } = state.cache;
  using fork = state.fork(length, length + tokens.length);
  const errors = new ErrorOfHeads(state.cache.layers.length);
  fork.look = errors;
  for (const token of tokens) probe.step(fork, token, () => {});
  return errors.summary();
}

/** Notes every head of every step. */
class ErrorOfHeads extends Look {
  readonly #all: number[][][];

  constructor(layers: number) {
    super({ every: 1, stretches: 0 }, 1, 1, 1);
    this.#all = Array.from({ length: layers }, () => []);
  }

  override note(backend: Backend, layer: number, kv: KvLayer, q: Tensor, out: Tensor): void {
    const [, heads = 0, dim = 0] = q.shape;
    const mark = backend.mark();
    const part = { o: backend.alloc(q.shape, "f32", "step"), lse: backend.alloc([1, heads], "f32", "step") };
    const from = Math.max(0, kv.length - (kv.shape.slidingWindow ?? kv.length));
    backend.kernels.attendWindow?.(part, q, kv, Int32Array.of(from, kv.length));
    const [exact, own] = [backend.read(part.o) as Float32Array, backend.read(out) as Float32Array];
    this.#all[layer]?.push(Array.from({ length: heads }, (_, head) => {
      let [wrong, all] = [0, 0];
      for (let i = head * dim; i < (head + 1) * dim; i++) {
        wrong += ((own[i] as number) - (exact[i] as number)) ** 2;
        all += (exact[i] as number) ** 2;
      }
      return all === 0 ? 0 : Math.sqrt(wrong / all);
    }));
    backend.release(mark);
  }

  summary(): HeadErrors {
    const each = this.#all.flat(2).toSorted((a, b) => a - b);
    return {
      mean: each.reduce((sum, x) => sum + x, 0) / each.length,
      p99: each[Math.floor(0.99 * each.length)] as number,
      heads: this.#all.map((steps) =>
        (steps[0] ?? []).map((_, head) =>
          round(steps.reduce((sum, errors) => sum + (errors[head] as number), 0) / steps.length)
        )
      ),
    };
  }
}

function round(x: number): number {
  return Number(x.toPrecision(4));
}

function rowsOf(state: SequenceState): Rows[] {
  const [size, scale] = state.cache.type === "i8" ? [1, 4] : state.cache.type === "f16" ? [2, 0] : [4, 0];
  return state.cache.layers.map(({ shape: { kvHeads, headDim, slidingWindow } }) => ({
    bytes: 2 * kvHeads * (headDim * size + scale),
    slidingWindow,
  }));
}

function bandwidthOf(backend: Backend): number | null {
  return "bandwidth" in backend && typeof backend.bandwidth === "function"
    ? backend.bandwidth(BANDWIDTH_MB) as number
    : null;
}
