/**
 * Type `flat-reference`: every key is scored, in float64, on any backend. The oracle of every other type, and what searches
 * where there is no native library.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvChunk, KvLayer, KvSegment } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";
import type { FileRange, Goal, IndexStats, IndexType, KvIndex, Params, SearchHits } from "./index.ts";
import { checkChunk, checkFinite, checkGoal, checkQuery, readFloats } from "./check.ts";
import { Unsupported } from "../core/errors.ts";
import { drawKey } from "./draw.ts";
import { best, type Kept, priority, threshold } from "./select_reference.ts";

/** Registry entry: no parameters. */
export const flatReference: IndexType = {
  summary: "pure TypeScript in float64, on any backend: the oracle, and the fallback without a native library",
  defaults: {},
  create: (kv, _params, on) => new FlatReference(kv, on, EMPTY, EXACT),
  map: (path, kv, _params, on, range) => restore(path, kv, on, range, EXACT),
};

/** An estimate of q·k: `q` and `k` hold vectors of `headDim` from positions `qAt` and `kAt` on. */
export type KeyScore<P extends Params> = (
  q: Float32Array,
  qAt: number,
  k: Float32Array,
  kAt: number,
  headDim: number,
  params: P,
) => number;

/**
 * An index type that is a cheap score and nothing else: it finds the keys that score best, or samples by the scores. Everything
 * that a type must do besides is `flat-reference`'s. For trying ideas: keys are copied, and scored one by one in TypeScript.
 */
export function scoredType<P extends Params>(
  name: string,
  summary: string,
  defaults: P,
  score: KeyScore<P>,
): IndexType {
  const method = (params: Params): Method => ({
    name,
    isExact: false,
    settings: JSON.stringify(params),
    // Parameters have the types of their defaults.
    score: (q, qAt, k, kAt, headDim) => score(q, qAt, k, kAt, headDim, params as P),
  });
  return {
    summary,
    defaults,
    create: (kv, params, on) => new FlatReference(kv, on, EMPTY, method(params)),
    map: (path, kv, params, on, range) => restore(path, kv, on, range, method(params)),
  };
}

/** How keys are scored. */
interface Method {
  readonly name: string;
  readonly isExact: boolean;
  /** What files must agree in. */
  readonly settings: string;
  score(q: Float32Array, qAt: number, k: Float32Array, kAt: number, headDim: number): number;
}

const EXACT: Method = {
  name: "flat-reference",
  isExact: true,
  settings: "{}",
  score(q, qAt, k, kAt, headDim) {
    let sum = 0;
    for (let j = 0; j < headDim; j++) sum += (q[qAt + j] as number) * (k[kAt + j] as number);
    return sum;
  },
};

/** Keys of consecutive tokens, f32 [kvHeads, count, headDim]; immutable, so that forks share them. */
interface Block {
  readonly count: number;
  readonly keys: Float32Array;
}

/** Positions [begin, end) were added, [begin, searchable) committed. */
interface State {
  readonly begin: number;
  readonly end: number;
  readonly searchable: number;
  readonly blocks: readonly Block[];
}

const EMPTY: State = { begin: 0, end: 0, searchable: 0, blocks: [] };

class FlatReference implements KvIndex {
  readonly #kv: KvLayer;
  readonly #on: Backend;
  readonly #method: Method;
  #state: State | undefined;

  constructor(kv: KvLayer, on: Backend, state: State, method: Method) {
    this.#kv = kv;
    this.#on = on;
    this.#state = state;
    this.#method = method;
  }

  add(chunk: KvChunk): void {
    const state = this.#live();
    const { start, count } = chunk;
    checkChunk(chunk, this.#kv);
    if (count === 0) return;
    const begin = state.blocks.length === 0 ? start : state.begin;
    const end = state.blocks.length === 0 ? start : state.end;
    if (start !== end) throw new RangeError(`Cannot add tokens: they start at ${start}, expected ${end}`);
    const keys = readKeys(this.#kv, this.#on, start, count);
    const last = start + count - 1;
    checkFinite(keys, `add tokens: a key of positions ${start} to ${last}`);
    this.#state = {
      begin,
      end: end + count,
      searchable: state.blocks.length === 0 ? start : state.searchable,
      blocks: merged([...state.blocks, { count, keys }], this.#kv),
    };
  }

  commit(): void {
    const state = this.#live();
    this.#state = { ...state, searchable: state.end };
  }

  settle(): void {
    this.#live();
  }

  search(out: SearchHits, q: Tensor, goal: Goal, exact: Tensor): void {
    const { begin, searchable } = this.#live();
    const { heads, kvHeads, headDim } = this.#kv.shape;
    checkQuery(q, exact, this.#kv.shape);
    checkGoal(goal);
    if ("topk" in goal && goal.tail === "surrogate") {
      throw new Unsupported(`Cannot search index "${this.#method.name}": it has no surrogates, use tail=sample`);
    }
    const queries = readFloats(q);
    const attended = readFloats(exact);
    checkFinite(queries, "search: the query");
    attended.forEach((lse, h) => {
      if (!(lse < Infinity)) throw new RangeError(`Cannot search: log-sum-exp of head ${h} is ${lse}`);
    });
    const rows: Kept[] = [];
    const group = heads / kvHeads;
    for (let head = 0; head < kvHeads; head++) {
      const first = head * group;
      const scores = Array.from({ length: group }, (_, g) => this.#score(queries, first + g, head));
      const key = drawKey(goal.draw, head);
      if ("error" in goal) {
        rows.push(threshold(scores, [...attended.subarray(first, first + group)], goal.error, key, begin));
      } else if (goal.tail === "sample") rows.push(...scores.map((s) => priority(s, goal.topk, key, begin)));
      else rows.push(...scores.map((s) => best(s, goal.topk)));
    }
    fill(out, rows, begin, this.#on);
    const scored = (searchable - begin) * kvHeads;
    const { report } = out;
    const isBest = !("error" in goal) && goal.tail === undefined;
    // Samples are unbiased whatever the scores are: they only decide what is drawn.
    report.certificate = !isBest ? "unbiased" : this.#method.isExact ? "exact" : "none";
    report.keysScored = scored;
    report.keysKept = rows.reduce((sum, row) => sum + row.keys.length, 0);
    report.bytesRead = scored * headDim * Float32Array.BYTES_PER_ELEMENT;
    report.expectedRecall = report.certificate === "exact" ? 1 : NaN;
  }

  fork(kv: KvLayer): KvIndex {
    return new FlatReference(kv, this.#on, this.#live(), this.#method);
  }

  save(path: string): void {
    const draft = `${path}.${Deno.pid}.tmp`;
    try {
      Deno.writeFileSync(draft, this.#describe());
      Deno.renameSync(draft, path);
    } catch (error) {
      try {
        Deno.removeSync(draft);
      } catch {
        // What failed was making it.
      }
      throw error;
    }
  }

  saveInto(path: string, offset: number): number {
    const bytes = this.#describe();
    using file = Deno.openSync(path, { write: true });
    file.seekSync(offset, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    return bytes.length;
  }

  stats(): IndexStats {
    const { begin, end, blocks } = this.#live();
    return {
      tokens: end - begin,
      bytes: blocks.reduce((sum, { keys }) => sum + keys.byteLength, 0),
      pendingTokens: 0,
      buildSeconds: 0,
      insertedTokens: 0,
      decisions: [],
    };
  }

  [Symbol.dispose](): void {
    this.#state = undefined;
  }

  /** What is saved: keys are rows of the cache. */
  #describe(): Uint8Array {
    const { begin, end, searchable } = this.#live();
    const { heads, kvHeads, headDim } = this.#kv.shape;
    const { name, settings, isExact } = this.#method;
    const made = { format: `kvasir ${name} 1`, ...(isExact ? {} : { settings }) };
    const text = JSON.stringify({ ...made, heads, kvHeads, headDim, begin, end, searchable });
    return new TextEncoder().encode(text + "\n");
  }

  /** Logits of all searchable keys: [searchable − begin]. */
  #score(queries: Float32Array, head: number, kvHead: number): Float64Array {
    const { begin, searchable, blocks } = this.#live();
    const { headDim, scale, softcap } = this.#kv.shape;
    const out = new Float64Array(searchable - begin);
    let i = 0;
    for (const { count, keys } of blocks) {
      for (let row = 0; row < count && i < out.length; row++, i++) {
        const at = (kvHead * count + row) * headDim;
        const logit = scale * this.#method.score(queries, head * headDim, keys, at, headDim);
        out[i] = softcap === undefined ? logit : softcap * Math.tanh(logit / softcap);
      }
    }
    return out;
  }

  #live(): State {
    if (this.#state === undefined) throw new Error(`Cannot use index "${this.#method.name}": it was disposed`);
    return this.#state;
  }
}

/** Keys are rows of the cache: a file says which, and of what shape. */
function restore(path: string, kv: KvLayer, on: Backend, range: FileRange | undefined, method: Method): KvIndex {
  const text = readText(path, range);
  let saved: Readonly<Record<string, unknown>> | null = null;
  try {
    saved = JSON.parse(text);
  } catch {
    // Said below.
  }
  const complain = (why: string) => new RangeError(`Cannot open index "${path}": ${why}`);
  if (typeof saved !== "object" || saved?.format !== `kvasir ${method.name} 1`) {
    throw complain(`it is no file of ${method.name}`);
  }
  if (!method.isExact && saved.settings !== method.settings) throw complain(`it was made with ${saved.settings}`);
  for (const key of ["heads", "kvHeads", "headDim"] as const) {
    if (saved[key] !== kv.shape[key]) throw complain(`${key} is ${saved[key]}, expected ${kv.shape[key]}`);
  }
  const [begin, end, searchable] = [saved.begin, saved.end, saved.searchable] as [number, number, number];
  if (![begin, end, searchable].every(Number.isInteger) || !(begin <= searchable && searchable <= end)) {
    throw complain(`positions ${begin}, ${searchable}, ${end} are not in order`);
  }
  const index = new FlatReference(kv, on, EMPTY, method);
  if (searchable > begin) index.add({ start: begin, count: searchable - begin });
  index.commit();
  if (end > searchable) index.add({ start: searchable, count: end - searchable });
  return index;
}

/** Of a file, or a piece of one: a line of text. */
function readText(path: string, range: FileRange | undefined): string {
  if (range === undefined) return Deno.readTextFileSync(path);
  using file = Deno.openSync(path);
  file.seekSync(range.offset, Deno.SeekMode.Start);
  const bytes = new Uint8Array(Math.min(range.bytes, 4096));
  let done = 0;
  for (let n: number | null; done < bytes.length && (n = file.readSync(bytes.subarray(done))) !== null;) done += n;
  return new TextDecoder().decode(bytes.subarray(0, done));
}

/** Neighbours of about one size become one, so that adding one by one leaves few blocks. */
function merged(blocks: Block[], { shape: { kvHeads, headDim } }: KvLayer): readonly Block[] {
  for (;;) {
    const [a, b] = blocks.slice(-2);
    if (a === undefined || b === undefined || a.count > b.count) return blocks;
    const count = a.count + b.count;
    const keys = new Float32Array(kvHeads * count * headDim);
    for (let h = 0; h < kvHeads; h++) {
      keys.set(a.keys.subarray(h * a.count * headDim, (h + 1) * a.count * headDim), h * count * headDim);
      const from = b.keys.subarray(h * b.count * headDim, (h + 1) * b.count * headDim);
      keys.set(from, (h * count + a.count) * headDim);
    }
    blocks.splice(-2, 2, { count, keys });
  }
}

/** Key rows [start, start + count) of all heads, widened: [kvHeads, count, headDim]. */
function readKeys(kv: KvLayer, on: Backend, start: number, count: number): Float32Array {
  const { kvHeads, headDim } = kv.shape;
  const out = new Float32Array(kvHeads * count * headDim);
  const mark = on.mark();
  for (const segment of kv.segments) {
    const from = Math.max(start, segment.start);
    const to = Math.min(start + count, segment.start + segment.count);
    if (from >= to) continue;
    for (let h = 0; h < kvHeads; h++) {
      const rows = readRows(on, segment, h, from - segment.start, to - from, headDim);
      out.set(rows, (h * count + from - start) * headDim);
    }
  }
  on.release(mark);
  return out;
}

function readRows(on: Backend, { keys, keyScales }: KvSegment, head: number, row: number, n: number, headDim: number) {
  const at = head * (keys.shape[1] as number) + row;
  const rows = Float32Array.from(on.read(on.view(keys, [n, headDim], at * headDim)));
  if (keyScales === undefined) return rows;
  const scales = on.read(on.view(keyScales, [n], at));
  return rows.map((x, i) => x * (scales[Math.floor(i / headDim)] as number));
}

function fill(out: SearchHits, rows: readonly Kept[], from: number, on: Backend): void {
  out.reserve(rows.length, rows.reduce((most, row) => Math.max(most, row.keys.length), 0));
  const capacity = out.tokens.shape[1] as number;
  const tokens = new Int32Array(rows.length * capacity);
  const bias = new Float32Array(rows.length * capacity);
  rows.forEach((row, r) => {
    tokens.set(row.keys.map((i) => from + i), r * capacity);
    bias.set(row.bias, r * capacity);
  });
  on.write(out.tokens, tokens);
  on.write(out.bias, bias);
  on.write(out.counts, Int32Array.from(rows, (row) => row.keys.length));
  on.write(out.estimatedError, Float32Array.from(rows, (row) => row.error));
}
