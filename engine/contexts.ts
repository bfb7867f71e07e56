/**
 * Sequences that have ended and stay: contexts, under a name or for as long as there is room. Their rows are what forks share.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Message } from "../model/model.ts";
import type { SequenceState } from "../attention/state.ts";
import type { ContextChange, ContextInfo, ContextMatch, Fingerprint } from "./context_types.ts";
import { byteLength } from "../core/dtype.ts";
import { ContextError } from "../core/errors.ts";

/** Fewer tokens than this are read again sooner than a sequence is forked. */
const LEAST_SHARED = 16;
const NAME = /^[A-Za-z0-9._-]{1,64}$/;
const MOST_METADATA = 16;

/** What becomes a context. */
export interface ContextSeed {
  /** See {@link newContextId}. */
  readonly id: string;
  /** Absent: it may go any time. */
  readonly name?: string | undefined;
  /** As many as the state holds. */
  readonly tokens: Int32Array<ArrayBuffer>;
  /** The store's from now on. */
  readonly state: SequenceState;
  /** The conversation they came from, the answer included. */
  readonly messages?: readonly Message[] | undefined;
  /** Specs that it attended by. */
  readonly attention: Pick<Fingerprint, "policy" | "index">;
  /** Only what has the same key begins with it, unless it is named. */
  readonly share: string;
  /** Id of the context that it began with. */
  readonly parent?: string | undefined;
  /** 0: for ever. */
  readonly ttlSeconds?: number | undefined;
  /** The caller's. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

interface Kept extends Omit<ContextSeed, "name" | "ttlSeconds" | "metadata"> {
  name: string | undefined;
  ttlSeconds: number;
  metadata: Readonly<Record<string, string>>;
  readonly createdMs: number;
  usedMs: number;
  /** Larger: used later. Clocks may stand still, or go back. */
  turn: number;
}

/** What a new sequence can begin with. */
export interface ContextPrefix {
  /** Of the context. */
  readonly id: string;
  /** To fork, not to change. */
  readonly state: SequenceState;
  /** Tokens that it shares with the prompt. */
  readonly numTokens: number;
}

/** How a store is made. */
export interface ContextsOptions {
  /** Bytes that it may hold; unnamed contexts go beyond them. */
  readonly ram: number;
  /** Of everything in it; asked once, when it is needed. */
  readonly fingerprint: () => Omit<Fingerprint, "policy" | "index">;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** See the module's head. Owns the states it is given; dispose frees them. */
export class Contexts implements Disposable {
  readonly #options: ContextsOptions;
  readonly #kept = new Map<string, Kept>();
  #turn = 0;
  #fingerprint: Omit<Fingerprint, "policy" | "index"> | undefined;

  constructor(options: ContextsOptions) {
    this.#options = options;
  }

  /** Whether sequences stay that nobody has named. */
  get keepsUnnamed(): boolean {
    return this.#options.ram > 0;
  }

  /**
   * Takes a sequence in; one of the same name is replaced. False, and the state stays the caller's, when there is no room for
   * it: that is never so with a name.
   */
  keep(seed: ContextSeed): boolean {
    const { name, ttlSeconds = 0, metadata = {} } = seed;
    this.#expire();
    seed.state.cache.trim();
    if (name === undefined) {
      if (!this.keepsUnnamed || seed.tokens.length < LEAST_SHARED) return false;
      if (this.#kept.values().some((kept) => kept.share === seed.share && begins(kept.tokens, seed.tokens))) {
        return false;
      }
    }
    // What it continues without a name of its own is of no use beside it.
    for (const kept of [...this.#kept.values()]) {
      const isOlder = kept.name === undefined && kept.share === seed.share && begins(seed.tokens, kept.tokens);
      if (isOlder || name !== undefined && kept.name === name) this.#drop(kept);
    }
    const nowMs = this.#options.now();
    const turn = ++this.#turn;
    this.#kept.set(seed.id, { ...seed, name, ttlSeconds, metadata, createdMs: nowMs, usedMs: nowMs, turn });
    this.#evict();
    return name !== undefined || this.#kept.has(seed.id);
  }

  /** Of contexts with that key, the one that shares the longest prefix with `tokens`. */
  longest(tokens: ArrayLike<number>, share: string): ContextPrefix | undefined {
    this.#expire();
    let best: Kept | undefined;
    let numTokens = LEAST_SHARED - 1;
    for (const kept of this.#kept.values()) {
      const shared = kept.share === share ? sharedPrefix(tokens, kept.tokens) : 0;
      if (shared > numTokens) [best, numTokens] = [kept, shared];
    }
    return best === undefined ? undefined : this.#used(best, numTokens);
  }

  /** The context of that name or id, with what a prompt that continues it needs. Throws `ContextError` when there is none. */
  find(name: string): Pick<ContextSeed, "id" | "tokens" | "messages" | "share"> {
    this.#expire();
    return this.#find(name);
  }

  /** What a prompt can begin with of one context. */
  prefix(id: string, tokens: ArrayLike<number>): ContextPrefix {
    const kept = this.#find(id);
    return this.#used(kept, sharedPrefix(tokens, kept.tokens));
  }

  /** All, the most recently used first. */
  list(): ContextInfo[] {
    this.#expire();
    return [...this.#kept.values()].sort((a, b) => b.turn - a.turn).map((kept) => this.#info(kept));
  }

  /** See {@link EngineContexts.show}. */
  show(name: string): ContextInfo {
    this.#expire();
    return this.#info(this.#find(name));
  }

  /** See {@link EngineContexts.lookup}. */
  lookup(tokens: ArrayLike<number>, share: string): ContextMatch[] {
    this.#expire();
    const all = [...this.#kept.values()].filter((kept) => kept.share === share);
    return all.map((kept) => ({ context: this.#info(kept), matchedTokens: sharedPrefix(tokens, kept.tokens) }))
      .filter(({ matchedTokens }) => matchedTokens > 0)
      .sort((a, b) => b.matchedTokens - a.matchedTokens);
  }

  /** See {@link EngineContexts.fork}. */
  fork(from: string, name: string, atToken?: number): ContextInfo {
    const source = this.#find(from);
    const numTokens = atToken ?? source.tokens.length;
    if (!Number.isInteger(numTokens) || numTokens < 1 || numTokens > source.tokens.length) {
      throw new RangeError(`Cannot fork context: at token ${numTokens}, it has ${source.tokens.length}`);
    }
    this.checkFree(name);
    const id = newContextId();
    const isWhole = numTokens === source.tokens.length;
    this.keep({
      id,
      name,
      tokens: source.tokens.slice(0, numTokens),
      state: source.state.fork(numTokens, numTokens),
      messages: isWhole ? source.messages : undefined,
      attention: source.attention,
      share: source.share,
      parent: source.id,
      ttlSeconds: source.ttlSeconds,
      metadata: source.metadata,
    });
    return this.show(id);
  }

  /** See {@link EngineContexts.update}. */
  update(name: string, change: ContextChange): ContextInfo {
    const kept = this.#find(name);
    if (change.name !== undefined && change.name !== kept.name) this.checkFree(change.name);
    const { ttlSeconds, metadata } = checkContextOptions(change);
    kept.name = change.name ?? kept.name;
    kept.ttlSeconds = ttlSeconds ?? kept.ttlSeconds;
    kept.metadata = metadata ?? kept.metadata;
    return this.#info(kept);
  }

  /** Throws `ContextError` when there is none. */
  delete(name: string): void {
    this.#drop(this.#find(name));
  }

  /** Throws `RangeError` for what is no name, `ContextError` for one that is taken. */
  checkFree(name: string): void {
    checkContextName(name);
    if (this.#kept.values().some((kept) => kept.name === name)) {
      throw new ContextError("exists", `Cannot make context: "${name}" exists already, delete it first`);
    }
  }

  /** Frees all. */
  [Symbol.dispose](): void {
    for (const kept of [...this.#kept.values()]) this.#drop(kept);
  }

  #find(name: string): Kept {
    const known = this.#kept.get(name) ?? this.#kept.values().find((kept) => kept.name === name);
    if (known !== undefined) return known;
    const names = [...this.#kept.values()].flatMap((kept) => kept.name ?? []).sort();
    const there = names.length === 0 ? "there is none" : `there are ${names.slice(0, 10).join(", ")}`;
    throw new ContextError("missing", `Cannot find context "${String(name).slice(0, 80)}": ${there}`);
  }

  #used(kept: Kept, numTokens: number): ContextPrefix {
    kept.usedMs = this.#options.now();
    kept.turn = ++this.#turn;
    return { id: kept.id, state: kept.state, numTokens };
  }

  #expire(): void {
    const nowMs = this.#options.now();
    for (const kept of [...this.#kept.values()]) {
      if (kept.ttlSeconds > 0 && kept.usedMs + 1000 * kept.ttlSeconds <= nowMs) this.#drop(kept);
    }
  }

  #evict(): void {
    const unnamed = [...this.#kept.values()].filter((kept) => kept.name === undefined).sort((a, b) => a.turn - b.turn);
    for (const kept of unnamed) {
      if (bytesOf(this.#kept.values()) <= this.#options.ram) return;
      this.#drop(kept);
    }
  }

  #drop(kept: Kept): void {
    this.#kept.delete(kept.id);
    kept.state[Symbol.dispose]();
  }

  #info(kept: Kept): ContextInfo {
    const { id, name, tokens, createdMs, usedMs, ttlSeconds, parent, metadata } = kept;
    return {
      id,
      ...(name === undefined ? {} : { name }),
      tokens: tokens.length,
      bytes: { memory: bytesOf([kept]), disk: 0 },
      createdMs,
      lastUsedMs: usedMs,
      ...(ttlSeconds === 0 ? {} : { expiresMs: usedMs + 1000 * ttlSeconds }),
      ...(parent === undefined ? {} : { parent }),
      metadata,
      fingerprint: { ...this.#fingerprint ??= this.#options.fingerprint(), ...kept.attention },
    };
  }
}

/** Rows that several of them show count once. */
function bytesOf(all: Iterable<Kept>): number {
  const seen = new Set<Tensor>();
  let bytes = 0;
  for (const { state } of all) {
    for (const tensor of state.cache.tensors()) {
      if (seen.has(tensor)) continue;
      seen.add(tensor);
      bytes += byteLength(tensor.shape, tensor.dtype);
    }
    for (const policy of state.policies) bytes += policy?.index?.stats().bytes ?? 0;
  }
  return bytes;
}

/** How many of their first tokens are the same, of `most` at most. */
export function sharedPrefix(a: ArrayLike<number>, b: ArrayLike<number>, most = b.length): number {
  const n = Math.min(a.length, b.length, most);
  let i = 0;
  while (i < n && a[i] === b[i]) i++;
  return i;
}

function begins(tokens: ArrayLike<number>, prefix: ArrayLike<number>): boolean {
  return sharedPrefix(tokens, prefix) === prefix.length;
}

/** `ctx_` and 96 random bits. */
export function newContextId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `ctx_${Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("")}`;
}

/** Throws `RangeError` unless `name` is 1 to 64 letters, digits, dots, dashes and underscores, and no id. */
export function checkContextName(name: string): string {
  if (typeof name === "string" && NAME.test(name) && !/^\.+$/.test(name) && !name.startsWith("ctx_")) return name;
  throw new RangeError(
    `Cannot name context ${JSON.stringify(String(name).slice(0, 80))}: ` +
      'expected 1 to 64 letters, digits, ".", "-" and "_", not all dots, not ctx_…',
  );
}

/** Throws `RangeError` for a lifetime or metadata out of range. */
export function checkContextOptions<T extends Pick<ContextChange, "ttlSeconds" | "metadata">>(options: T): T {
  const { ttlSeconds, metadata } = options;
  if (ttlSeconds !== undefined && !(Number.isFinite(ttlSeconds) && ttlSeconds >= 0 && ttlSeconds <= 1e10)) {
    throw new RangeError(`Cannot keep context: ttlSeconds is ${ttlSeconds}, expected seconds, 0 for ever`);
  }
  if (metadata === undefined) return options;
  const entries = Object.entries(metadata);
  const fits = ([key, value]: [string, unknown]) =>
    key.length > 0 && key.length <= 64 && typeof value === "string" && value.length <= 512;
  if (entries.length > MOST_METADATA || !entries.every(fits)) {
    throw new RangeError(
      `Cannot keep context: metadata may have ${MOST_METADATA} entries, keys of 64 and texts of 512 characters`,
    );
  }
  return options;
}
