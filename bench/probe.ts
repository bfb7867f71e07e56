/**
 * A loaded model, one text in its cache, and any way to attend laid over it: what quality is measured with.
 *
 * The text is read once, attending to everything. Each method then opens its policies over that same cache, so that all
 * of them look at equal keys; what a question or a continuation adds is forgotten before the next.
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { PolicyStats } from "../attention/policy.ts";
import type { Loaded } from "../engine/loaded.ts";
import type { Material } from "./tasks/sample.ts";
import { resolveAttention } from "../attention/mod.ts";
import { type Method as AttentionMethod, parseMethod as parseAttention } from "../attention/method.ts";
import type { AttentionPlan } from "../attention/state.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "../engine/forward.ts";
import { load } from "../engine/load.ts";
import { planAttention } from "../engine/plan.ts";
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
  #base: SequenceState | undefined;

  private constructor(loaded: Loaded, options: OpenOptions) {
    this.#loaded = loaded;
    this.#options = options;
    this.#forward = new Forward(loaded.model, new Ops(loaded.backend), CHUNK);
  }

  /** Loads a model; throws what the engine would. */
  static async open(options: OpenOptions): Promise<Probe> {
    const loaded = await load(options, {
      backends: {},
      progress: () => {},
      notice: (text) => console.error(text),
      signal: { aborted: false },
    });
    return new Probe(loaded, options);
  }

  /** The model and what belongs to it. */
  get loaded(): Loaded {
    return this.#loaded;
  }

  /** Reads a text, attending to everything; the one before is forgotten. Room stays for `more` tokens. */
  read(tokens: readonly number[], more: number): void {
    this.#base?.[Symbol.dispose]();
    const { model, backend } = this.#loaded;
    this.#base = new SequenceState(backend, model.config.layers, "f16", tokens.length + more, undefined);
    this.#run(this.#base, tokens, 0);
  }

  /** Opens a method over the text that was read. Methods that learn from prompt queries read the text themselves. */
  under(method: Method, tokens: readonly number[], more: number): Look {
    if (this.#base === undefined) throw new TypeError("Cannot look: no text was read");
    const { model, backend } = this.#loaded;
    const { plan } = planAttention({ ...this.#options, ...method.options }, backend);
    if (plan === undefined) return new Look(this.#loaded, this.#forward, this.#base, tokens.length, false);
    if (!method.options.index?.startsWith("flat") && plan.attention.type.usesIndex) {
      const state = new SequenceState(backend, model.config.layers, "f16", tokens.length + more, plan);
      this.#run(state, tokens, 0);
      return new Look(this.#loaded, this.#forward, state, tokens.length, true);
    }
    return new Look(this.#loaded, this.#forward, overlay(this.#base, plan), tokens.length, true);
  }

  #run(state: SequenceState, tokens: readonly number[], from: number): void {
    for (let start = from; start < tokens.length; start += CHUNK) {
      const numTokens = Math.min(CHUNK, tokens.length - start);
      try {
        this.#forward.run([{ state, tokens, start, numTokens, numLogits: 0 }]);
      } finally {
        this.#loaded.backend.endStep();
      }
    }
  }

  /** Frees the text and the model. */
  [Symbol.dispose](): void {
    this.#base?.[Symbol.dispose]();
    this.#loaded[Symbol.dispose]();
  }
}

/** A method over a text. Dispose frees what is its own. */
export class Look implements Disposable {
  readonly #loaded: Loaded;
  readonly #forward: Forward;
  readonly #state: SequenceState;
  readonly #length: number;
  readonly #isOwn: boolean;

  /** `state` holds `length` tokens. */
  constructor(loaded: Loaded, forward: Forward, state: SequenceState, length: number, isOwn: boolean) {
    this.#loaded = loaded;
    this.#forward = forward;
    this.#state = state;
    this.#length = length;
    this.#isOwn = isOwn;
  }

  /**
   * Runs tokens one by one after the text and calls `visit` with the logits [1, vocab] behind each, valid in the call;
   * then forgets them.
   */
  decode(tokens: readonly number[], visit: (logits: Tensor, i: number) => void): void {
    const state = this.#state;
    const padded = { length: this.#length + tokens.length } as { length: number; [i: number]: number };
    for (const [i, token] of tokens.entries()) padded[this.#length + i] = token;
    try {
      for (let i = 0; i < tokens.length; i++) {
        const start = this.#length + i;
        try {
          visit(this.#forward.run([{ state, tokens: padded, start, numTokens: 1, numLogits: 1 }]) as Tensor, i);
        } finally {
          this.#loaded.backend.endStep();
        }
      }
    } finally {
      state.cache.truncate(this.#length);
    }
  }

  /** What was looked at so far; undefined where everything is. */
  stats(): PolicyStats | undefined {
    const { layers, ...stats } = this.#state.stats();
    return layers === 0 ? undefined : stats;
  }

  /** Frees indexes, and the cache where it is the method's own. */
  [Symbol.dispose](): void {
    if (this.#isOwn) this.#state[Symbol.dispose]();
  }
}

/** Policies of another plan over the cache of `base`, which stays the base's. */
function overlay(base: SequenceState, plan: AttentionPlan): SequenceState {
  const { backend } = base.cache.layers[0]?.segments[0]?.keys as Tensor;
  const own = new SequenceState(backend, base.cache.layers.map(({ shape }) => shape), "f16", 1, undefined);
  const policies = base.cache.layers.map((kv, layer) =>
    plan.attention.type.open({ kv, layer, newIndex: () => plan.newIndex(kv) }, plan.attention.params)
  );
  const state = Object.create(own, {
    cache: { value: base.cache },
    policies: { value: policies },
    [Symbol.dispose]: {
      value: () => {
        for (const policy of policies) policy?.[Symbol.dispose]();
        own[Symbol.dispose]();
      },
    },
  }) as SequenceState;
  state.advance();
  return state;
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
