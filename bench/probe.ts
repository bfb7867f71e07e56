/**
 * A loaded model, one text in its cache, and any way to attend laid over it: what quality is measured with.
 *
 * The text is read once, attending to everything. Each method is a fork of it, so that all of them look at equal keys;
 * questions and seeds are forks again and run side by side.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { PolicyStats } from "../attention/policy.ts";
import type { Loaded, Loader } from "../engine/loaded.ts";
import type { Material } from "./tasks/sample.ts";
import { resolveAttention } from "../attention/mod.ts";
import { type Method as AttentionMethod, parseMethod as parseAttention } from "../attention/method.ts";
import type { AttentionPlan } from "../attention/state.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "../engine/forward.ts";
import { load } from "../engine/load.ts";
import { NO_PLUGINS, type Plugins } from "../engine/plugins.ts";
import { type AttentionNames, attentionNames, type EnginePlan, planAttention, tryIndex } from "../engine/plan.ts";
import type { OpenOptions } from "../engine/protocol.ts";

const CHUNK = 512;

/** A way to attend, and whether it draws. */
export interface Method extends AttentionMethod {
  /** Whether what it sees depends on a seed. */
  readonly draws: boolean;
}

/** Reads a method; `extra` parameters are added, `seed` above all. */
export function parseMethod(text: string, extra: Readonly<Record<string, string>> = {}): Method {
  const method = parseAttention(text, extra);
  const resolved = resolveAttention(method.options).params;
  return { ...method, draws: resolved.budget === 0 || resolved.tail === "sample" };
}

/** See the module's head. Dispose frees everything. */
export class Probe implements Disposable {
  readonly #loaded: Loaded;
  readonly #options: OpenOptions;
  readonly #forward: Forward;
  readonly #names: AttentionNames;
  /** Awaited between two chunks of a text, so that a long one can be given up: by throwing. */
  breathe: (() => Promise<void>) | undefined;
  #base: SequenceState | undefined;
  #tokens: readonly number[] = [];

  private constructor(loaded: Loaded, options: OpenOptions, plugins: Plugins) {
    this.#loaded = loaded;
    this.#options = options;
    this.#names = attentionNames(plugins);
    this.#forward = new Forward(loaded.model, new Ops(loaded.backend), CHUNK);
  }

  /** Loads a model, by `loader` where another is wanted; throws what the engine would. */
  static async open(
    options: OpenOptions,
    plugins: Plugins = NO_PLUGINS,
    loader: Loader = load,
  ): Promise<Probe> {
    const loaded = await loader(options, {
      backends: plugins.backends,
      progress: () => {},
      notice: (text) => console.error(text),
      signal: { aborted: false },
    });
    return new Probe(loaded, options, plugins);
  }

  /** The model and what belongs to it. */
  get loaded(): Loaded {
    return this.#loaded;
  }

  /** Reads a text, attending to everything; the one before is forgotten. Rejects with what {@link Probe.breathe} throws. */
  async read(tokens: readonly number[]): Promise<void> {
    this.#base?.[Symbol.dispose]();
    this.#base = undefined;
    this.#tokens = tokens;
    this.#base = await this.#prefilled(undefined);
  }

  /** A method over the text that was read. Methods that learn from prompt queries read the text themselves. */
  async under(method: Method): Promise<SequenceState> {
    if (this.#base === undefined) throw new TypeError("Cannot look: no text was read");
    const { plan } = this.plan(method);
    if (this.readsItself(method)) return await this.#prefilled(plan);
    return this.#base.fork(this.#tokens.length, this.#tokens.length, { plan });
  }

  /** Whether the method learns from what a prompt asks, and so must read it. */
  readsItself(method: Method): boolean {
    const { plan } = this.plan(method);
    return plan?.attention.type.usesIndex === true && !plan.index.startsWith("flat");
  }

  /** What a method comes to here: canonical specs. Throws what making its index would. */
  plan(method: Method): EnginePlan {
    const { backend, model } = this.#loaded;
    const plan = planAttention({ ...this.#options, ...method.options }, backend, this.#names);
    tryIndex(plan, model.config.layers);
    return plan;
  }

  /** A fork of `state` that `tokens` were run on behind what it holds, one by one, each a decode query. */
  extend(state: SequenceState, tokens: readonly number[]): SequenceState {
    const { length } = state.cache;
    const fork = state.fork(length, length + tokens.length);
    try {
      for (let i = 0; i < tokens.length; i++) this.step(fork, tokens[i] as number, () => {});
      return fork;
    } catch (error) {
      fork[Symbol.dispose]();
      throw error;
    }
  }

  /** Runs one token on `state` itself; `visit` gets its logits [1, vocab], valid in the call. */
  step(state: SequenceState, token: number, visit: (logits: Tensor) => void): void {
    const start = state.cache.length;
    try {
      const part = { state, tokens: behind(start, [token]), start, numTokens: 1, numLogits: 1 };
      visit(this.#forward.run([part]) as Tensor);
    } finally {
      this.#loaded.backend.endStep();
    }
  }

  /**
   * Runs tokens behind what states hold one by one, on a fork of each, side by side. `visit` gets the logits [1, vocab] behind
   * token `i` of `runs[run]`, valid in the call. Gives what the forks looked at.
   */
  decode(
    runs: readonly { readonly state: SequenceState; readonly tokens: readonly number[] }[],
    visit: (logits: Tensor, run: number, i: number) => void,
  ): (PolicyStats | undefined)[] {
    const { backend, model } = this.#loaded;
    const lengths = runs.map(({ state }) => state.cache.length);
    const forks: SequenceState[] = [];
    try {
      for (const [i, { state, tokens }] of runs.entries()) {
        const length = lengths[i] as number;
        forks.push(state.fork(length, length + tokens.length));
      }
      const tokens = runs.map((run, i) => behind(lengths[i] as number, run.tokens));
      for (let i = 0; i < Math.max(...runs.map((run) => run.tokens.length)); i++) {
        const live = [...runs.keys()].filter((run) => i < (runs[run] as { tokens: readonly number[] }).tokens.length);
        try {
          const logits = this.#forward.run(live.map((run) => ({
            state: forks[run] as SequenceState,
            tokens: tokens[run] as ArrayLike<number>,
            start: (lengths[run] as number) + i,
            numTokens: 1,
            numLogits: 1,
          }))) as Tensor;
          const { vocab } = model.config;
          for (const [row, run] of live.entries()) visit(backend.view(logits, [1, vocab], row * vocab), run, i);
        } finally {
          backend.endStep();
        }
      }
      return forks.map((fork) => {
        const { layers, ...stats } = fork.stats();
        return layers === 0 ? undefined : stats;
      });
    } finally {
      for (const fork of forks) fork[Symbol.dispose]();
    }
  }

  async #prefilled(plan: AttentionPlan | undefined): Promise<SequenceState> {
    const { model, backend } = this.#loaded;
    const tokens = this.#tokens;
    const state = new SequenceState(backend, model.config.layers, "f16", tokens.length, plan);
    try {
      for (let start = 0; start < tokens.length; start += CHUNK) {
        const numTokens = Math.min(CHUNK, tokens.length - start);
        try {
          this.#forward.run([{ state, tokens, start, numTokens, numLogits: 0, isPrompt: true }]);
        } finally {
          backend.endStep();
        }
        await this.breathe?.();
      }
      return state;
    } catch (error) {
      state[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees the text and the model. */
  [Symbol.dispose](): void {
    this.#base?.[Symbol.dispose]();
    this.#loaded[Symbol.dispose]();
  }
}

/** `tokens` at positions from `length` on; what stands before them is in the cache and not looked at. */
function behind(length: number, tokens: readonly number[]): ArrayLike<number> {
  const all = new Int32Array(length + tokens.length);
  all.set(tokens, length);
  return all;
}

/** Words of a model that are one token, common ones first, and prose as filler. */
export function material(loaded: Loaded, prose: string): Material {
  const { tokenizer } = loaded;
  const encode = (text: string) => tokenizer.encode(text, { bos: false });
  const decoder = new TextDecoder();
  const words: number[] = [];
  for (let id = 0; id < tokenizer.vocab; id++) {
    const bytes = tokenizer.bytes(id);
    if (bytes.length < 5 || bytes.length > 12) continue;
    const text = decoder.decode(bytes);
    if (!/^ [a-z]+$/.test(text)) continue;
    const ids = encode(`the${text}`);
    if (ids.at(-1) === id) words.push(id);
  }
  const start = tokenizer.addBos && tokenizer.bos !== undefined ? [tokenizer.bos] : encode("\n");
  return { words, filler: encode(prose), encode, start };
}
