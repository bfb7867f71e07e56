/**
 * The engine's side of the protocol: answers requests with a loaded model. Lives in a worker, or beside its caller.
 *
 * @module
 */
import type { AttentionOptions } from "../attention/mod.ts";
import type { EngineOptions } from "./types.ts";
import type { Breath } from "./breath.ts";
import type { Loaded, Loader } from "./loaded.ts";
import type { Tokenizer } from "../model/model.ts";
import type { ContextCall, OpenOptions, Prompt, Reply, Request } from "./protocol.ts";
import { DoesNotFit } from "../core/errors.ts";
import { checkContextName, checkContextOptions } from "./context_names.ts";
import { Contexts } from "./contexts.ts";
import { fingerprint } from "./fingerprint.ts";
import { continued, originOf, shareKey } from "./origin.ts";
import { checkLook } from "../attention/look.ts";
import { evaluate } from "./evaluate.ts";
import { Generation } from "./generation.ts";
import { Loop } from "./loop.ts";
import { Pacer } from "./pacer.ts";
import { attentionNames, type EnginePlan, planAttention, tryIndex } from "./plan.ts";
import { loadPlugins } from "./plugins.ts";
import { toRemote } from "./remote_error.ts";
import { Reserve } from "./reserve.ts";
import { Runner } from "./runner.ts";
import { resolveSampling } from "./sampling.ts";
import { SavedContexts } from "./saved_contexts.ts";
import { Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { TokenMasks } from "./token_mask.ts";

/** What a host is made of. */
export interface HostOptions {
  /** What `open` calls. */
  readonly load: Loader;
  /** Where answers go. */
  readonly post: (reply: Reply) => void;
  /** The caller's own backends. */
  readonly backends?: EngineOptions["backends"];
  /** The caller's own index types. */
  readonly indexTypes?: EngineOptions["indexTypes"];
  /** The caller's own policies. */
  readonly policies?: EngineOptions["policies"];
  /** Of `open`, which cannot hear messages while it works. */
  readonly signal: { readonly aborted: boolean };
  /** Whether a cancel waits to be heard; without it steps are kept short. */
  readonly isInterrupted?: () => boolean;
  /** How to pause between steps; `isPreparing` tells of work of the host's own that waits for it. */
  readonly breath: (isPreparing: () => boolean) => Breath;
}

/** Everything that is there once a model is open. */
interface Open {
  readonly loaded: Loaded;
  readonly loop: Loop;
  readonly pacer: Pacer;
  readonly ctxSize: number;
  readonly batchSize: number;
  readonly kvType: NonNullable<EngineOptions["kvType"]>;
  /** What the engine was opened with. */
  readonly attention: EnginePlan;
  /** What a request wants instead. */
  readonly planOf: (wanted: AttentionOptions) => EnginePlan;
  readonly contexts: Contexts;
}

type GenerateRequest = Extract<Request, { readonly type: "generate" }>;

/** See the module's head. */
export class Host {
  readonly #options: HostOptions;
  #open: Open | undefined;
  #tokenMasks: TokenMasks | undefined;
  /** Generations whose prompt is still being prepared. */
  readonly #preparing = new Set<number>();

  /** Nothing happens before the first request. */
  constructor(options: HostOptions) {
    this.#options = options;
  }

  /** Answers by posting; never throws. */
  async handle(request: Request): Promise<void> {
    try {
      await this.#answer(request);
    } catch (error) {
      // The loop waits for those that are prepared: one that was refused never will be.
      this.#preparing.delete(request.id);
      this.#options.post({ type: "error", id: request.id, error: toRemote(error) });
    }
  }

  async #answer(request: Request): Promise<void> {
    const { id } = request;
    const result = (value: unknown) => this.#options.post({ type: "result", id, value });
    switch (request.type) {
      case "open":
        this.#open = await this.#load(request.options);
        return result(undefined);
      case "info":
        return result(this.#info());
      case "generate":
        return await this.#generate(request);
      case "context":
        return await this.#context(id, request.call, result);
      case "evaluate": {
        const open = this.#opened();
        const { model, backend, tokenizer } = open.loaded;
        const { attention: wanted, cachePrompt } = request.options;
        const attention = wanted === undefined ? open.attention : open.planOf(wanted);
        const { plan } = attention;
        const begin = (most: number) => {
          const kept = open.contexts.longest(request.tokens.subarray(0, most), shareKey(attention));
          return kept?.state.fork(Math.min(kept.numTokens, most), open.ctxSize, { plan });
        };
        const reuses = cachePrompt === true ? { begin } : {};
        const context = { ...open, model, backend, tokenizer, plan, ...reuses, ...this.#interruptible() };
        const pieces = evaluate(context, request.tokens, request.options);
        const failed = (error: unknown) => this.#options.post({ type: "error", id, error: toRemote(error) });
        return open.loop.addJob({ id, pieces, done: result, failed });
      }
      case "tokenize":
        return result(Int32Array.from(this.#opened().loaded.tokenizer.encode(request.text, request.options)));
      case "encode": {
        const encoded = this.#encode(this.#opened().loaded, request.prompt);
        return result(Int32Array.from(encoded instanceof Promise ? await encoded : encoded));
      }
      case "render":
        return result(await this.#opened().loaded.renderChat(request.conversation));
      case "detokenize":
        return result(this.#detokenize(request.tokens));
      case "cancel":
        this.#preparing.delete(id);
        return this.#open?.loop.cancel(id);
      case "close":
        await this.#close();
        return result(undefined);
    }
  }

  async #load(options: OpenOptions): Promise<Open> {
    const { post, signal, backends, indexTypes, policies } = this.#options;
    const plugins = await loadPlugins(options.plugins ?? []);
    const loaded = await this.#options.load(options, {
      backends: { ...plugins.backends, ...backends },
      signal,
      progress: (progress) => post({ type: "progress", progress }),
      notice: (text) => post({ type: "notice", text }),
    });
    try {
      const { contextLength } = loaded.model.config;
      const ctxSize = positive("ctxSize", options.ctxSize ?? contextLength);
      if (ctxSize > contextLength) {
        post({
          type: "notice",
          text: `the context of ${ctxSize} tokens is longer than the ${contextLength} the model was trained for`,
        });
      }
      const batchSize = positive("batchSize", options.batchSize ?? 2048);
      const parallel = positive("parallel", options.parallel ?? 4);
      const kvType = options.kvType ?? "f16";
      const limits = { maxRunning: parallel, maxBatchTokens: batchSize, maxCachedTokens: parallel * ctxSize };
      const pacer = new Pacer(batchSize);
      const names = attentionNames({
        indexTypes: { ...plugins.indexTypes, ...indexTypes },
        policies: { ...plugins.policies, ...policies },
      });
      const planOf = (wanted: AttentionOptions) => planAttention(wanted, loaded.backend, names);
      const planAsked = (wanted: AttentionOptions) => {
        const plan = planOf(wanted);
        // A preset's own can be made, and many prompts are too short to need one.
        if (wanted.index !== undefined) tryIndex(plan, loaded.model.config.layers);
        return plan;
      };
      const attention = planAsked(options);
      const runner = new Runner(loaded.model, loaded.backend, { kvType, maxBatchTokens: batchSize });
      const loop = new Loop(
        new Scheduler(limits),
        runner,
        pacer,
        {
          events: (all) => post({ type: "events", all }),
          error: (id, error) => post({ type: "error", id, error: toRemote(error) }),
        },
        this.#options.breath(() => this.#preparing.size > 0),
        new Reserve(loaded.backend),
        this.#options.isInterrupted,
      );
      const ram = options.contextRam ?? 0;
      if (!(ram >= 0)) throw new RangeError(`Cannot open engine: contextRam is ${ram}, must be a count of bytes`);
      const made = lazy(() => fingerprint(loaded, kvType));
      const now = () => Date.now();
      const { contextDir: dir, contextDisk: maxBytes = Infinity } = options;
      const place = {
        maxBytes,
        backend: loaded.backend,
        shapes: loaded.model.config.layers,
        fingerprint: made,
        planOf,
        now,
      };
      const saved = dir === undefined ? undefined : new SavedContexts({ dir, ...place });
      const contexts = new Contexts({ ram, fingerprint: made, now, saved });
      return { loaded, loop, pacer, ctxSize, batchSize, kvType, attention, planOf: planAsked, contexts };
    } catch (error) {
      loaded[Symbol.dispose]();
      throw error;
    }
  }

  #interruptible(): { readonly isInterrupted?: () => boolean } {
    const { isInterrupted } = this.#options;
    return isInterrupted === undefined ? {} : { isInterrupted };
  }

  #opened(): Open {
    if (this.#open === undefined) throw new TypeError("Cannot use engine: it is not open");
    return this.#open;
  }

  #info() {
    const { loaded, ctxSize, kvType, attention } = this.#opened();
    const { model, backend, file, chatTemplate, numParams: params } = loaded;
    const { policy, index } = attention;
    const { bytes, spec } = backend;
    return { config: model.config, backend: spec, ctxSize, kvType, policy, index, params, bytes, file, chatTemplate };
  }

  async #generate({ id, prompt, sampling: wanted, how }: GenerateRequest): Promise<void> {
    const requestedMs = performance.now();
    const { loaded, loop, ctxSize, contexts, planOf } = this.#opened();
    const { tokenizer, model } = loaded;
    if (how.saveContext !== undefined) checkContextName(how.saveContext);
    checkContextOptions(how);
    if (how.look !== undefined) checkLook(how.look);
    const base = how.context === undefined ? undefined : contexts.find(how.context);
    this.#preparing.add(id);
    const sampling = resolveSampling(wanted, loaded.sampling, model.config.vocab);
    const constraint = how.grammar === undefined ? undefined : this.#masks(tokenizer).constrain(how.grammar);
    constraint?.prepare();
    const whole = base === undefined ? prompt : continued(base, prompt, tokenizer);
    const encoded = this.#encode(loaded, whole);
    const tokens = encoded instanceof Promise ? await encoded : encoded;
    const encodedMs = performance.now();
    if (tokens.length >= ctxSize) {
      throw new DoesNotFit(
        `Cannot generate: the prompt has ${tokens.length} tokens, the context holds ${ctxSize} with the answer; ` +
          "shorten it or raise --ctx-size",
        { promptTokens: tokens.length, ctxSize },
      );
    }
    const attention = how.attention === undefined ? this.#opened().attention : planOf(how.attention);
    const numMaxTokens = Math.min(ctxSize, tokens.length + sampling.maxTokens);
    // Cancelled, or closed, in the meantime? Then nothing is forked.
    const isWanted = this.#preparing.delete(id);
    const { origin, numTokens } = originOf({
      contexts,
      loop,
      attention,
      tokens,
      numMaxTokens,
      how,
      base,
      whole,
      isWanted,
    });
    const restoredMs = performance.now();
    try {
      const sequence = new Sequence(id, tokens, numMaxTokens, numTokens);
      const generation = new Generation(id, sequence, sampling, tokenizer, requestedMs, attention.plan, constraint);
      generation.tokenizeMs = encodedMs - requestedMs;
      generation.restoreMs = restoredMs - encodedMs;
      generation.origin = origin;
      generation.watch = how.look;
      if (isWanted) loop.add(generation);
      else this.#options.post({ type: "events", all: [{ id, events: [generation.cancel()] }] });
    } catch (error) {
      origin.state?.[Symbol.dispose]();
      throw error;
    }
  }

  async #context(id: number, call: ContextCall, result: (value: unknown) => void): Promise<void> {
    const { contexts, loaded, loop, planOf } = this.#opened();
    switch (call.op) {
      case "list":
        return result(contexts.list());
      case "show":
        return result(contexts.show(call.name));
      case "messages":
        return result(contexts.find(call.name).messages);
      case "save": {
        // In pieces: others go on meanwhile.
        const failed = (error: unknown) => this.#options.post({ type: "error", id, error: toRemote(error) });
        return loop.addJob({ id, pieces: contexts.save(call.name), done: result, failed });
      }
      case "fork":
        return result(contexts.fork(call.name, call.to, call.atToken));
      case "update":
        return result(contexts.update(call.name, call.change));
      case "delete":
        return result(contexts.delete(call.name));
      case "lookup": {
        const { attention, cacheSalt } = call.how;
        const plan = attention === undefined ? this.#opened().attention : planOf(attention);
        return result(contexts.lookup(await this.#encode(loaded, call.prompt), shareKey(plan, cacheSalt)));
      }
    }
  }

  #encode({ tokenizer, model, encodeChat }: Loaded, prompt: Prompt): ArrayLike<number> | Promise<number[]> {
    if (typeof prompt === "string") return tokenizer.encode(prompt);
    if (!(prompt instanceof Int32Array)) return encodeChat("messages" in prompt ? prompt : { messages: prompt });
    const { vocab } = model.config;
    const bad = prompt.findIndex((token) => token < 0 || token >= vocab);
    if (bad >= 0) {
      throw new RangeError(`Cannot generate: token ${prompt[bad]} of the prompt is outside 0 to ${vocab - 1}`);
    }
    return prompt;
  }

  /** The vocabulary as a tree, made when the first grammar comes. */
  #masks(tokenizer: Tokenizer): TokenMasks {
    return this.#tokenMasks ??= new TokenMasks(tokenizer);
  }

  #detokenize(tokens: Int32Array): string {
    const { tokenizer } = this.#opened().loaded;
    const bad = tokens.findIndex((token) => token < 0 || token >= tokenizer.vocab);
    if (bad >= 0) {
      throw new RangeError(`Cannot detokenize: token ${tokens[bad]} is outside 0 to ${tokenizer.vocab - 1}`);
    }
    const decoder = tokenizer.decoder({ special: true, start: true });
    let text = "";
    for (const token of tokens) text += decoder.push(token);
    return text + decoder.flush();
  }

  async #close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    this.#preparing.clear();
    await open?.loop.close();
    open?.contexts[Symbol.dispose]();
    open?.loaded[Symbol.dispose]();
  }
}

function lazy<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

function positive(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 1) return value;
  throw new RangeError(`Cannot open engine: ${name} is ${value}, must be a whole number above 0`);
}
