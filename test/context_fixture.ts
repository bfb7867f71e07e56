/**
 * A small sequence with an index, saved and opened without an engine; as a program, it saves contexts for ever, to be killed.
 *
 * @module
 */
import type { Loaded } from "../engine/loaded.ts";
import type { ContextAbout } from "../engine/context_about.ts";
import { Ops } from "../backends/ops.ts";
import { SequenceState } from "../attention/state.ts";
import { openContext, saveContext } from "../engine/context_file.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

/** Attention of the fixture: an index in every layer. */
export const ATTENTION = { policy: "retrieval:error=0.2,min_length=0,sinks=4,window=16", index: "flat:codes=int4" };

/** The tiny model with one sequence of `numTokens` tokens. */
export class ContextFixture implements Disposable {
  readonly state: SequenceState;
  readonly tokens: Int32Array<ArrayBuffer>;
  readonly about: Omit<ContextAbout, "layers" | "version">;
  readonly #plan: ReturnType<typeof planAttention>["plan"];

  private constructor(readonly loaded: Loaded, numTokens: number) {
    const { backend, model } = loaded;
    const { plan, policy, index } = planAttention(ATTENTION, backend);
    this.#plan = plan;
    this.tokens = Int32Array.from({ length: numTokens }, (_, i) => (i * 31 + (i >> 3)) % TINY_VOCAB);
    this.state = new SequenceState(backend, model.config.layers, "f16", numTokens, plan);
    const part = { state: this.state, tokens: this.tokens, start: 0, numTokens, numLogits: 1, isPrompt: true };
    new Forward(model, new Ops(backend), numTokens).run([part]);
    backend.endStep();
    const fingerprint = { model: "m", tokenizer: "t", kvType: "f16", rope: "r", policy, index, version: "v" };
    this.about = {
      id: "ctx_1",
      tokens: numTokens,
      createdMs: 0,
      ttlSeconds: 0,
      metadata: {},
      share: "",
      messages: [{ role: "user", content: "hello" }],
      fingerprint,
    };
  }

  static async make(numTokens: number): Promise<ContextFixture> {
    const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
    return new ContextFixture(await tinyLoader()({ model: "tiny", backend: "cpu" }, hooks), numTokens);
  }

  /** To a file, in one go. */
  save(path: string): void {
    const { about, tokens, state, loaded: { backend } } = this;
    for (const _ of saveContext(backend, path, about, tokens, state));
  }

  /** Opens a file and gives its state back; throws for one that is damaged. */
  open(path: string): void {
    const { model: { config }, backend } = this.loaded;
    openContext(path, { backend, shapes: config.layers, plan: this.#plan }, () => {}).state[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.state[Symbol.dispose]();
    this.loaded[Symbol.dispose]();
  }
}

if (import.meta.main) {
  const [dir = ".", count = "Infinity"] = Deno.args;
  using fixture = await ContextFixture.make(400);
  console.log("ready");
  try {
    for (let i = 0; i < Number(count); i++) fixture.save(`${dir}/${i % 3}.kvctx`);
  } catch (error) {
    console.log(`${(error as Error).name}: ${(error as Error).message}`);
    Deno.exit(7);
  }
}
