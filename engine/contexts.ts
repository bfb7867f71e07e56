/**
 * Sequences that have ended and stay: contexts, under a name or for as long as there is room. Their rows are what forks share.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Message } from "../model/model.ts";
import type { SequenceState } from "../attention/state.ts";
import type { ContextChange, ContextInfo, ContextMatch, Fingerprint } from "./context_types.ts";
import type { SavedContext } from "./context_dir.ts";
import type { SavedContexts } from "./saved_contexts.ts";
import { byteLength } from "../core/dtype.ts";
import { ContextError } from "../core/errors.ts";
import {
  begins,
  checkContextName,
  checkContextOptions,
  isContextName,
  newContextId,
  sharedPrefix,
} from "./context_names.ts";

/** Fewer tokens than this are read again sooner than a sequence is forked. */
const LEAST_SHARED = 16;

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
  /** Prompts part here: it is of use beside what goes on from it. */
  readonly isBranch?: boolean;
  /** 0: for ever. */
  readonly ttlSeconds?: number | undefined;
  /** The caller's. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** When it was made; absent: now. */
  readonly createdMs?: number | undefined;
  /** The file that its rows are mapped from. */
  readonly file?: { readonly bytes: number } | undefined;
}

interface Kept extends Omit<ContextSeed, "name" | "ttlSeconds" | "metadata" | "createdMs" | "file"> {
  name: string | undefined;
  ttlSeconds: number;
  metadata: Readonly<Record<string, string>>;
  readonly createdMs: number;
  file?: { readonly bytes: number } | undefined;
  /** Its rows are pages of the file, which the system keeps or drops. */
  readonly isMapped: boolean;
  usedMs: number;
  /** Larger: used later. Clocks may stand still, or go back. */
  turn: number;
}

/** So many tokens are read as fast as an index is built anew, which one that ends elsewhere would take. */
const BRANCH_WORTH = 64;

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
  /** Contexts on disk; absent: names live as long as the engine. */
  readonly saved?: SavedContexts | undefined;
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
      const isEnough = ({ length }: Int32Array) => seed.isBranch !== true || length === seed.tokens.length;
      const isKnown = ({ share, tokens }: Kept) =>
        share === seed.share && isEnough(tokens) && begins(tokens, seed.tokens);
      if (this.#kept.values().some(isKnown)) return false;
    }
    // What it continues without a name of its own is of no use beside it.
    for (const kept of [...this.#kept.values()]) {
      const isOlder = kept.name === undefined && kept.isBranch !== true && kept.share === seed.share &&
        begins(seed.tokens, kept.tokens);
      if (isOlder || name !== undefined && kept.name === name) this.#drop(kept);
    }
    const nowMs = this.#options.now();
    const turn = ++this.#turn;
    const createdMs = seed.createdMs ?? nowMs;
    const isMapped = seed.file !== undefined;
    this.#kept.set(seed.id, { ...seed, name, ttlSeconds, metadata, createdMs, usedMs: nowMs, turn, isMapped });
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
      const worth = shared + (kept.isBranch === true && shared === kept.tokens.length ? BRANCH_WORTH : 0);
      if (worth > numTokens) [best, numTokens] = [kept, worth];
    }
    let file: string | undefined;
    const { saved: disk } = this.#options;
    for (const { name, about, tokens: saved } of disk?.canOpen === true ? disk.list() : []) {
      if (about.share !== share || this.#kept.has(about.id)) continue;
      const shared = sharedPrefix(tokens, saved);
      if (shared > numTokens) [file, numTokens] = [name, shared];
    }
    // What was saved by another model or program shares no prefix; what is damaged is said when it is asked for by name.
    if (file !== undefined) best = this.#load(file, true) ?? best;
    return best === undefined ? undefined : this.#used(best, sharedPrefix(tokens, best.tokens));
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

  /** All, the most recently used first; then those on disk that were not used yet. */
  list(): ContextInfo[] {
    this.#expire();
    const kept = [...this.#kept.values()].sort((a, b) => b.turn - a.turn).map((kept) => this.#info(kept));
    const names = new Set(kept.map((info) => info.name));
    return [...kept, ...(this.#options.saved?.list() ?? []).filter(({ name }) => !names.has(name)).map(infoOf)];
  }

  /**
   * Writes a context to its file, a layer a `next()`; what happens to it meanwhile is not in it. Without a folder, and for one
   * that is as its file, there is nothing to do.
   */
  *save(name: string): Generator<void, ContextInfo> {
    const { saved } = this.#options;
    const kept = this.#find(name);
    if (saved !== undefined && kept.name !== undefined && kept.file === undefined) {
      const state = kept.state.fork(kept.tokens.length, kept.tokens.length);
      yield* saved.save({ ...kept, state }, kept.createdMs);
      kept.file = { bytes: saved.bytes(kept.name) };
    }
    return this.#info(kept);
  }

  /** See {@link EngineContexts.show}. */
  show(name: string): ContextInfo {
    this.#expire();
    return this.#info(this.#find(name));
  }

  /** See {@link EngineContexts.lookup}; only those in memory, and on disk by the same model. */
  lookup(tokens: ArrayLike<number>, share: string): ContextMatch[] {
    this.#expire();
    const all = [...this.#kept.values()].filter((kept) => kept.share === share);
    const inMemory = all.map((kept) => ({
      context: this.#info(kept),
      matchedTokens: sharedPrefix(tokens, kept.tokens),
    }));
    const onDisk = (this.#options.saved?.list() ?? [])
      .filter(({ about }) => about.share === share && !this.#kept.has(about.id))
      .map((entry) => ({ context: infoOf(entry), matchedTokens: sharedPrefix(tokens, entry.tokens) }));
    return [...inMemory, ...onDisk]
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
    if (change.name !== undefined && kept.name !== undefined) this.#options.saved?.rename(kept.name, change.name);
    // What a file says of itself is not changed in place: it is written anew.
    if (ttlSeconds !== undefined || metadata !== undefined) kept.file = undefined;
    kept.name = change.name ?? kept.name;
    kept.ttlSeconds = ttlSeconds ?? kept.ttlSeconds;
    kept.metadata = metadata ?? kept.metadata;
    return this.#info(kept);
  }

  /** Throws `ContextError` when there is none. */
  delete(name: string): void {
    const { saved } = this.#options;
    const kept = this.#lookUp(name);
    if (kept === undefined) {
      // Not opened: what is damaged, or another model's, can be deleted too.
      const file = isContextName(name) ? name : saved?.nameOf(name);
      if (saved === undefined || file === undefined || !saved.has(file)) throw this.#missing(name);
      return saved.delete(file);
    }
    if (kept.name !== undefined) saved?.delete(kept.name);
    this.#drop(kept);
  }

  /** Throws `RangeError` for what is no name, `ContextError` for one that is taken. */
  checkFree(name: string): void {
    checkContextName(name);
    if (this.#kept.values().some((kept) => kept.name === name) || this.#options.saved?.has(name) === true) {
      throw new ContextError("exists", `Cannot make context: "${name}" exists already, delete it first`);
    }
  }

  /** Frees all. */
  [Symbol.dispose](): void {
    for (const kept of [...this.#kept.values()]) this.#drop(kept);
  }

  #lookUp(name: string): Kept | undefined {
    return this.#kept.get(name) ?? this.#kept.values().find((kept) => kept.name === name);
  }

  #find(name: string): Kept {
    const known = this.#lookUp(name) ?? this.#loadNamed(name);
    if (known === undefined) throw this.#missing(name);
    return known;
  }

  /** By the name of its file, or the id that it says it has. */
  #loadNamed(name: string): Kept | undefined {
    const file = isContextName(name) ? name : this.#options.saved?.nameOf(name);
    return file === undefined ? undefined : this.#load(file);
  }

  #missing(name: string): ContextError {
    const names = this.list().flatMap((info) => info.name ?? []).sort();
    const there = names.length === 0 ? "there is none" : `there are ${names.slice(0, 10).join(", ")}`;
    return new ContextError("missing", `Cannot find context "${String(name).slice(0, 80)}": ${there}`);
  }

  /** From its file; undefined when there is none, or, `isOptional`, when it cannot be used. */
  #load(name: string, isOptional = false): Kept | undefined {
    try {
      const seed = this.#options.saved?.open(name);
      if (seed === undefined) return undefined;
      this.keep(seed);
      return this.#kept.get(seed.id);
    } catch (error) {
      if (isOptional && error instanceof ContextError) return undefined;
      throw error;
    }
  }

  #used(kept: Kept, numTokens: number): ContextPrefix {
    kept.usedMs = this.#options.now();
    if (kept.file !== undefined && kept.name !== undefined) this.#options.saved?.touch(kept.name);
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
    const { ram } = this.#options;
    if (ram === 0) return;
    const held = [...this.#kept.values()].filter((kept) => !kept.isMapped).sort((a, b) => a.turn - b.turn);
    const unnamed = held.filter((kept) => kept.name === undefined);
    // What lies on disk as well is mapped when it is asked for again.
    const saved = held.filter((kept) => kept.file !== undefined);
    for (const kept of [...unnamed, ...saved]) {
      if (bytesOf(this.#kept.values()) <= ram) return;
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
      bytes: { memory: kept.isMapped ? 0 : bytesOf([kept]), disk: kept.file?.bytes ?? 0 },
      createdMs,
      lastUsedMs: usedMs,
      ...(ttlSeconds === 0 ? {} : { expiresMs: usedMs + 1000 * ttlSeconds }),
      ...(parent === undefined ? {} : { parent }),
      metadata,
      fingerprint: { ...this.#fingerprint ??= this.#options.fingerprint(), ...kept.attention },
    };
  }
}

/** Of one that lies on disk. */
function infoOf({ name, bytes, usedMs, about }: SavedContext): ContextInfo {
  const { id, tokens, createdMs, ttlSeconds, parent, metadata, fingerprint } = about;
  return {
    id,
    name,
    tokens,
    bytes: { memory: 0, disk: bytes },
    createdMs,
    lastUsedMs: usedMs,
    ...(ttlSeconds === 0 ? {} : { expiresMs: usedMs + 1000 * ttlSeconds }),
    ...(parent === undefined ? {} : { parent }),
    metadata,
    fingerprint,
  };
}

/** Rows that several of them show count once. */
function bytesOf(all: Iterable<Kept>): number {
  const seen = new Set<Tensor>();
  let bytes = 0;
  for (const { state, isMapped } of all) {
    if (isMapped) continue;
    for (const tensor of state.cache.tensors()) {
      if (seen.has(tensor)) continue;
      seen.add(tensor);
      bytes += byteLength(tensor.shape, tensor.dtype);
    }
    for (const policy of state.policies) bytes += policy?.index?.stats().bytes ?? 0;
  }
  return bytes;
}
