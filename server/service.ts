/**
 * What all routes share: the engine, limits, metrics, and how one generation is run for a client.
 *
 * @module
 */
import type { AttentionOptions, Policies } from "../attention/mod.ts";
import type { ContextInfo, ContextOptions } from "../engine/context_types.ts";
import type {
  EngineInfo,
  EngineLike,
  Evaluation,
  GenerateOptions,
  Progress,
  Sampling,
  TokenEvent,
} from "../engine/types.ts";
import type { Prompt } from "../engine/protocol.ts";
import type { Knobs } from "./fields.ts";
import { resolveAttention } from "../attention/mod.ts";
import { Admission } from "./admission.ts";
import { endOf } from "./answer.ts";
import { ApiError, toApiError } from "./errors.ts";
import { cancelled, Life } from "./life.ts";
import { attentionOf } from "./knobs.ts";
import { probeTemplate, type TemplateTools, type ToolParserName } from "./tools.ts";
import { Metrics } from "./metrics.ts";
import { type Asked, type GenerationRecord, recordOf } from "./record.ts";

/** How a server behaves. */
export interface ServerOptions {
  /** What clients call the model. */
  readonly model: string;
  /** More names for it. */
  readonly aliases?: readonly string[];
  /** Accepted keys; none: everybody may ask. */
  readonly keys?: readonly string[];
  /** Whether only names of this machine are answered: bound to loopback, without keys. */
  readonly localOnly?: boolean;
  /** Origins whose pages may read answers; default this machine's. */
  readonly corsOrigins?: readonly string[];
  /** Requests that run at once: the engine's. Default 4. */
  readonly parallel?: number;
  /** Requests that may wait. Default 512. */
  readonly maxQueue?: number;
  /** Requests of one key under way. Default: all. */
  readonly maxPerKey?: number;
  /** Default 64 MiB. */
  readonly maxBodyBytes?: number;
  /** Most time of a request. Default an hour. */
  readonly timeoutMs?: number;
  /** Sampling of requests that say nothing. */
  readonly sampling?: Partial<Sampling>;
  /** Unknown fields are errors. */
  readonly strictFields?: boolean;
  /** What the engine was opened with. */
  readonly attention?: AttentionOptions;
  /** The engine's policies beside ours. */
  readonly policies?: Policies;
  /** Indexes that requests may name; empty: all. */
  readonly allowIndex?: readonly string[];
  /** Most keys a request may ask for. Default 4096. */
  readonly maxBudget?: number;
  /** How calls of tools are written; default: as the model's template does. */
  readonly toolParser?: ToolParserName;
  /** Of the program. */
  readonly version?: string;
  /** Gets one line at a time. */
  readonly log?: (line: string) => void;
  /** Gets what each generation did when it ends. */
  readonly record?: (record: GenerationRecord) => void;
}

/** One generation as routes ask for it. */
export interface Call {
  readonly prompt: Prompt;
  readonly options: GenerateOptions;
  readonly knobs: Knobs | null | undefined;
  /** For the operator's records. */
  readonly requestId?: string;
}

/** What a route gets of a generation under way. */
export interface Running {
  /** Its events, in batches; throws `ApiError`. The last one is of type `done`, never with reason `cancelled`. */
  readonly events: AsyncGenerator<readonly TokenEvent[], void, undefined>;
  /** The client left: ends it; resolves when all that it held is freed. */
  leave(): Promise<void>;
  /** Canonical specs that it runs with. */
  readonly attention: { readonly policy: string; readonly index: string };
}

const SYSTEM_CODE = "0123456789abcdef";

/** See the module's head. */
export class Service {
  readonly engine: EngineLike;
  readonly info: EngineInfo;
  readonly options: ServerOptions;
  readonly admission: Admission;
  readonly metrics: Metrics;
  /** Seconds since 1970 at which the server started. */
  readonly created: number = Math.floor(Date.now() / 1000);
  /** Of a token's keys and values. */
  readonly kvBytes: number;
  /** Changes with the program, the model and the backend. */
  readonly fingerprint: string;
  readonly #lives = new Set<Life>();
  readonly #warned = new Set<string>();
  /** Generations whose first step has begun. */
  #running = 0;
  #cachedTokens = 0;
  /** Tokens since the last status. */
  #drawn = 0;
  readonly #contextUses = new Map<string, number>();
  #templateTools: Promise<TemplateTools> | undefined;

  /** The engine stays the caller's. */
  constructor(engine: EngineLike, info: EngineInfo, options: ServerOptions) {
    this.engine = engine;
    this.info = info;
    this.options = options;
    const { parallel = 4, maxQueue = 512, maxPerKey = Infinity } = options;
    this.admission = new Admission({ parallel, maxQueue, maxPerKey });
    this.kvBytes = kvBytesOf(info);
    const capacity = parallel * info.ctxSize;
    this.metrics = new Metrics(options.model, () => ({
      running: this.#running,
      waiting: this.admission.total - this.#running,
      usage: this.#cachedTokens / capacity,
    }), () => engine.contexts.list());
    this.fingerprint = `kvasir-${options.version ?? "0"}-${
      hash([info.config.name, info.backend, info.kvType, info.policy, info.index].join("|"))
    }`;
  }

  /** Writes one line for the operator. */
  log(line: string): void {
    this.options.log?.(line);
  }

  /** What happened since the last call, as one line; undefined when nothing did. */
  status(seconds: number): string | undefined {
    const drawn = this.#drawn;
    this.#drawn = 0;
    if (drawn === 0 && this.admission.total === 0) return undefined;
    const { ctxSize } = this.info;
    const usage = this.#cachedTokens / ((this.options.parallel ?? 4) * ctxSize);
    return `${(drawn / seconds).toFixed(1)} tokens/s, ${this.#running} running, ` +
      `${this.admission.total - this.#running} waiting, KV cache ${(100 * usage).toFixed(1)} %`;
  }

  /** A failure that the client is not told of. */
  report(error: unknown, requestId: string): void {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    this.log(`${requestId}: ${text}`);
  }

  /** Unknown fields: an error, or one line in the log for each name. */
  noteUnknown(names: readonly string[]): void {
    for (const name of names) {
      if (this.options.strictFields) {
        throw new ApiError("invalid_request_error", `Cannot use ${name}: there is no such field`, { param: name });
      }
      // Names come from outside: neither long ones nor many of them.
      if (this.#warned.has(name) || this.#warned.size >= 1000) continue;
      this.#warned.add(name);
      this.log(`ignoring unknown field ${JSON.stringify(name.slice(0, 64))}`);
    }
  }

  /** What the model's template does with tools: asked once. */
  templateTools(): Promise<TemplateTools> {
    return this.#templateTools ??= probeTemplate((conversation) => this.engine.render(conversation));
  }

  /** Throws 404 unless `model` names what is loaded. */
  checkModel(model: string | null | undefined): void {
    if (model === null || model === undefined || model === "" || this.isModel(model)) return;
    throw new ApiError(
      "not_found_error",
      `Cannot use model "${model.slice(0, 256)}": this server has "${this.options.model}"`,
      {
        param: "model",
      },
    );
  }

  /** Whether that name is the loaded model's. */
  isModel(name: string): boolean {
    return name === this.options.model || (this.options.aliases ?? []).includes(name);
  }

  /**
   * How a request attends; undefined: as the engine does. With a context and no word of policy or index: as that was made.
   * Throws 409 for another index than the context's, unless it is to be rebuilt.
   */
  async attentionFor(knobs: Knobs | null | undefined): Promise<AttentionOptions | undefined> {
    const { attention: defaults = {}, allowIndex = [], maxBudget = 4096, policies = {} } = this.options;
    const wanted = attentionOf(knobs, defaults, { allowIndex, maxBudget, policies });
    if (knobs?.context === undefined) return wanted;
    const { policy, index } = (await this.#wantedContext(knobs.context)).fingerprint;
    if (wanted === undefined) {
      return policy === this.info.policy && index === this.info.index ? undefined : { policy, index };
    }
    const other = resolveAttention(wanted, policies).index;
    if (index !== "" && other !== index && knobs.rebuild !== true && knobs.mode !== "exact") {
      const why = `Cannot use index "${other}": the context has "${index}", say rebuild: true`;
      throw new ApiError("conflict_error", why, { param: "kvasir.index" });
    }
    return wanted;
  }

  async #wantedContext(name: string): Promise<ContextInfo> {
    try {
      const info = await this.engine.contexts.show(name);
      this.metrics.restore("hit");
      return info;
    } catch (error) {
      this.metrics.restore("miss");
      throw error;
    }
  }

  /** Whether a generation under way began with a context of that name or id. */
  isUsed(name: string | undefined): boolean {
    return name !== undefined && this.#contextUses.has(name);
  }

  #useContext(name: string | undefined): () => void {
    if (name === undefined) return () => {};
    this.#contextUses.set(name, (this.#contextUses.get(name) ?? 0) + 1);
    return () => {
      const left = (this.#contextUses.get(name) ?? 1) - 1;
      if (left > 0) this.#contextUses.set(name, left);
      else this.#contextUses.delete(name);
    };
  }

  /** Reads a prompt into a context, as one request of `tenant`. Throws `ApiError`. */
  async createContext(
    prompt: Prompt,
    options: ContextOptions & { readonly name: string; readonly onProgress?: (progress: Progress) => void },
    tenant: string,
    signal: AbortSignal,
  ): Promise<ContextInfo> {
    using life = new Life(this.admission.enter(tenant), signal, this.options.timeoutMs ?? 3_600_000);
    this.#lives.add(life);
    try {
      return await this.engine.contexts.create(prompt, { ...options, signal: life.signal });
    } catch (error) {
      if (life.signal.aborted) throw cancelled(life.isLate);
      throw error;
    } finally {
      this.#lives.delete(life);
    }
  }

  /** What the model thinks of a text's tokens but the first, as one request of `tenant`. Throws `ApiError`. */
  async score(tokens: Int32Array, top: number, tenant: string, signal: AbortSignal): Promise<Evaluation> {
    using life = new Life(this.admission.enter(tenant), signal, this.options.timeoutMs ?? 3_600_000);
    this.#lives.add(life);
    try {
      return await this.engine.evaluate(tokens, { from: 1, mode: "prefill", top, signal: life.signal });
    } catch (error) {
      if (life.signal.aborted) throw cancelled(life.isLate);
      throw toApiError(error, (unknown) => this.report(unknown, "scoring"));
    } finally {
      this.#lives.delete(life);
    }
  }

  /** Ends everything that runs. */
  abortAll(): void {
    for (const life of this.#lives) life.end();
  }

  /**
   * Begins a generation for `tenant`. It ends with the events, by `abort`, with `signal`, or after the server's time limit.
   * Its events must be asked for at least once, or it holds its place for ever.
   */
  async start(call: Call, tenant: string, signal: AbortSignal): Promise<Running> {
    const attention = await this.attentionFor(call.knobs);
    const resolved = attention === undefined ? this.info : resolveAttention(attention, this.options.policies);
    const life = new Life(this.admission.enter(tenant), signal, this.options.timeoutMs ?? 3_600_000);
    this.#lives.add(life);
    const asked = {
      request_id: call.requestId ?? "",
      policy: resolved.policy,
      index: resolved.index,
      context: call.knobs?.context,
    };
    const events = this.#events(call, attention, asked, life);
    return {
      events,
      leave: async () => {
        life.end();
        await events.return();
      },
      attention: { policy: resolved.policy, index: resolved.index },
    };
  }

  async *#events(
    { prompt, options, knobs }: Call,
    attention: AttentionOptions | undefined,
    asked: Asked,
    life: Life,
  ): AsyncGenerator<readonly TokenEvent[], void, undefined> {
    let cached = 0;
    let isRunning = false;
    let isRecorded = false;
    const leaveContext = this.#useContext(knobs?.context);
    const hold = (tokens: number) => {
      this.#cachedTokens += tokens - cached;
      cached = tokens;
    };
    try {
      const wanted = {
        ...options,
        ...contextUse(knobs),
        ...(attention === undefined ? {} : { attention }),
        signal: life.signal,
      };
      for await (const events of this.engine.generateBatches(prompt, wanted)) {
        if (!isRunning) this.#running++;
        isRunning = true;
        let held = cached;
        for (const event of events) {
          if (event.type === "prefill") held = event.done;
          else if (event.type === "token") held++;
          if (event.type === "token") this.#drawn++;
        }
        hold(held);
        const last = events.at(-1);
        if (last?.type === "done") {
          const { finish_reason } = endOf(last);
          this.metrics.book(last, last.reason === "cancelled" ? "abort" : finish_reason, asked.index);
          this.options.record?.(recordOf(asked, last));
          isRecorded = true;
          if (last.reason === "cancelled") throw cancelled(life.isLate);
        }
        yield events;
      }
    } catch (error) {
      const known = toApiError(error, (unknown) => this.report(unknown, "generation"));
      if (!life.signal.aborted) this.metrics.fail(known.type);
      if (!isRecorded) this.options.record?.(recordOf(asked, known));
      isRecorded = true;
      throw known;
    } finally {
      hold(0);
      // Who asked has left.
      if (!isRecorded) this.options.record?.(recordOf(asked, { type: "abort" }));
      leaveContext();
      if (isRunning) this.#running--;
      this.#lives.delete(life);
      life[Symbol.dispose]();
    }
  }
}

/** Seconds since its last use after which a context goes. */
export const CONTEXT_TTL = 86_400;

/** What a request wants of contexts, and of looking at attention. */
function contextUse(knobs: Knobs | null | undefined): Partial<GenerateOptions> {
  if (knobs === null || knobs === undefined) return {};
  const { context, save_context: saveContext, look, telemetry } = knobs;
  const isSampled = telemetry === "sampled";
  const watch = look !== undefined
    ? { every: 4, stretches: look }
    : isSampled
    ? { every: 64, stretches: 0 }
    : undefined;
  return {
    ...(context === undefined ? {} : { context }),
    ...(saveContext === undefined ? {} : { saveContext, ttlSeconds: CONTEXT_TTL }),
    ...(watch === undefined ? {} : { look: watch }),
  };
}

/** Bytes of a token's keys and values in all layers. */
function kvBytesOf({ config, kvType }: EngineInfo): number {
  // One-byte keys and values come with a scale of four bytes a head.
  const [size, extra] = kvType === "f32" ? [4, 0] : kvType === "f16" ? [2, 0] : [1, 4];
  return config.layers.reduce((sum, { kvHeads, headDim }) => sum + 2 * kvHeads * (headDim * size + extra), 0);
}

/** Eight hexadecimal digits (FNV-1a). */
function hash(text: string): string {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  let out = "";
  for (let shift = 28; shift >= 0; shift -= 4) out += SYSTEM_CODE[(h >>> shift) & 15];
  return out;
}
