/**
 * Contexts on disk, for an engine: found by name or by prefix, mapped when they are used, written in pieces between steps.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { LayerShape } from "../core/kv.ts";
import type { ContextSeed } from "./contexts.ts";
import type { Fingerprint } from "./context_types.ts";
import type { EnginePlan } from "./plan.ts";
import { ContextError } from "../core/errors.ts";
import { expectFingerprint } from "./context_about.ts";
import { type BadContext, ContextDir, type SavedContext } from "./context_dir.ts";
import { openContext, saveContext } from "./context_file.ts";

/** What a store on disk works with. */
export interface SavedPlace {
  /** Absolute. */
  readonly dir: string;
  /** Bytes that it may hold; the least recently used go before a new one is refused. */
  readonly maxBytes: number;
  /** Where rows are. */
  readonly backend: Backend;
  /** Of the model's layers. */
  readonly shapes: readonly LayerShape[];
  /** Of what is open. */
  readonly fingerprint: () => Omit<Fingerprint, "policy" | "index">;
  /** How a context of those specs attends. */
  readonly planOf: (wanted: { readonly policy: string; readonly index?: string }) => EnginePlan;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** See the module's head. */
export class SavedContexts {
  readonly #place: SavedPlace;
  readonly #dir: ContextDir;

  constructor(place: SavedPlace) {
    this.#place = place;
    this.#dir = new ContextDir(place.dir);
    this.#dir.sweep(place.now());
  }

  /** Those that can be read and have not outlived their time. */
  list(): SavedContext[] {
    const all = this.#dir.list().filter((e: SavedContext | BadContext): e is SavedContext => "about" in e);
    return all.filter((e) => this.#lives(e));
  }

  #lives({ usedMs, about: { ttlSeconds } }: SavedContext): boolean {
    return ttlSeconds === 0 || this.#place.now() - usedMs < 1000 * ttlSeconds;
  }

  /** Whether contexts can be opened here at all. */
  get canOpen(): boolean {
    return this.#place.backend.files !== undefined;
  }

  /** Name of the context with that id, if there is one. */
  nameOf(id: string): string | undefined {
    return this.list().find(({ about }) => about.id === id)?.name;
  }

  /** Maps the context of that name; undefined when there is none. Throws `ContextError` for one that cannot be used. */
  open(name: string): ContextSeed | undefined {
    const entry = this.#dir.read(name);
    if (entry === undefined) return undefined;
    if ("error" in entry) throw entry.error;
    if (!this.#lives(entry)) return undefined;
    const { backend, shapes, planOf, fingerprint } = this.#place;
    expectFingerprint(name, entry.about.fingerprint, fingerprint());
    const { policy, index } = entry.about.fingerprint;
    const { plan } = planOf({ policy, ...(index === "" ? {} : { index }) });
    const { about, tokens, state } = openContext(entry.path, { backend, shapes, plan }, (about) => {
      expectFingerprint(name, about.fingerprint, { ...fingerprint(), policy, index });
    });
    this.#dir.touch(name);
    return {
      id: about.id,
      name,
      tokens,
      state,
      messages: about.messages,
      attention: { policy, index },
      share: about.share,
      parent: about.parent,
      ttlSeconds: about.ttlSeconds,
      metadata: about.metadata,
      createdMs: about.createdMs,
      file: { bytes: entry.bytes },
    };
  }

  /** Whether a file of that name exists. */
  has(name: string): boolean {
    return this.#dir.read(name) !== undefined;
  }

  /** Of the file, 0 where there is none. */
  bytes(name: string): number {
    return this.#dir.read(name)?.bytes ?? 0;
  }

  /** Writes a context, a layer a `next()`, and makes room for it first. The state, a fork, is freed at the end. */
  *save(seed: ContextSeed, createdMs: number): Generator<void, void> {
    const { state } = seed;
    try {
      const { backend, maxBytes, fingerprint, now } = this.#place;
      const name = seed.name as string;
      this.#dir.make();
      const bytes = bytesToSave(state, seed.tokens.length);
      if (bytes > maxBytes) {
        throw new ContextError(
          "full",
          `Cannot save context "${name}": it takes ${bytes} bytes, all may take ${maxBytes}`,
        );
      }
      this.#dir.prune({ maxBytes: maxBytes - bytes, keep: [name] }, now());
      const about = {
        id: seed.id,
        tokens: seed.tokens.length,
        createdMs,
        ttlSeconds: seed.ttlSeconds ?? 0,
        metadata: seed.metadata ?? {},
        share: seed.share,
        fingerprint: { ...fingerprint(), ...seed.attention },
        ...(seed.parent === undefined ? {} : { parent: seed.parent }),
        ...(seed.messages === undefined ? {} : { messages: seed.messages }),
      };
      yield* saveContext(backend, this.#dir.path(name), about, seed.tokens, state);
    } finally {
      state[Symbol.dispose]();
    }
  }

  /** Without effect when there is none. */
  delete(name: string): void {
    if (this.has(name)) this.#dir.delete(name);
  }

  /** Throws `ContextError` when the other name is taken. */
  rename(name: string, to: string): void {
    if (this.has(name)) this.#dir.rename(name, to);
  }

  /** It was used now. */
  touch(name: string): void {
    if (this.has(name)) this.#dir.touch(name);
  }
}

function bytesToSave({ cache, policies }: ContextSeed["state"], numTokens: number): number {
  const size = { f16: 2, f32: 4, i8: 1 }[cache.type];
  let bytes = 1 << 16;
  for (const [l, { shape: { kvHeads, headDim } }] of cache.layers.entries()) {
    bytes += 2 * kvHeads * numTokens * (headDim * size + (cache.type === "i8" ? 4 : 0));
    bytes += policies[l]?.index?.stats().bytes ?? 0;
  }
  return bytes;
}
