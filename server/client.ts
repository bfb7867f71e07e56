/**
 * A server from the other end: what the command line needs of it.
 *
 * @module
 */
import type { Message } from "../model/model.ts";
import type { Sampling, Timings, TokenEvent } from "../engine/types.ts";

/** An answer's JSON. */
// deno-lint-ignore no-explicit-any -- fields are looked at one by one
export type Json = any;

/** Speaks to one server. Throws `Error` with the server's own words, or that it cannot be reached. */
export class ServerClient {
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** `url` without a path: `http://127.0.0.1:5827`. Throws `RangeError` for what is no address. */
  constructor(url: string, key?: string) {
    if (!/^https?:$/.test(URL.parse(url)?.protocol ?? "")) {
      throw new RangeError(`Cannot ask server "${url}": it is no address, write one like http://127.0.0.1:5827`);
    }
    this.#url = url.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#headers = {
      "content-type": "application/json",
      ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    };
  }

  /** One request; undefined for an empty answer. */
  async ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Json> {
    const response = await this.#fetch(method, path, body, signal);
    const text = await response.text();
    return text === "" ? undefined : JSON.parse(text);
  }

  /** The JSON values of an event stream. */
  async *events(path: string, body: unknown, signal?: AbortSignal): AsyncGenerator<Json, void, undefined> {
    const response = await this.#fetch("POST", path, { ...body as object, stream: true }, signal);
    let held = "";
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const blocks = (held + piece).split("\n\n");
      held = blocks.pop() ?? "";
      for (const block of blocks) {
        if (!block.startsWith("data: ") || block === "data: [DONE]") continue;
        const value = JSON.parse(block.slice(6));
        if (value.error !== undefined) throw new Error(value.error.message);
        yield value;
      }
    }
  }

  /** As the engine's `generate`, of conversations. Aborting the signal ends it with reason `cancelled`. */
  async *generate(
    messages: readonly Message[],
    { signal, ...sampling }: Partial<Sampling> & { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<TokenEvent, void, undefined> {
    let reason: "stop" | "length" | "cancelled" = "cancelled";
    let timings: Json;
    let promptTokens = 0;
    const body = { messages, return_progress: true, stream_options: { include_usage: true }, ...fieldsOf(sampling) };
    try {
      for await (const event of this.events("/v1/chat/completions", body, signal)) {
        const [choice] = event.choices;
        if (event.prompt_progress !== undefined) {
          yield { type: "prefill", done: event.prompt_progress.processed, total: event.prompt_progress.total };
        }
        const text = choice?.delta?.content ?? "";
        if (text !== "") yield { type: "token", token: -1, text };
        if (choice?.finish_reason) reason = choice.finish_reason;
        timings = event.timings ?? timings;
        promptTokens = event.usage?.prompt_tokens ?? promptTokens;
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
    yield { type: "done", reason, timings: timingsFrom(timings, promptTokens), seed: sampling.seed ?? 0 };
  }

  async #fetch(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
    const request = { method, headers: this.#headers, body: body === undefined ? null : JSON.stringify(body) };
    const response = await fetch(this.#url + path, { ...request, signal: signal ?? null }).catch((error: Error) => {
      // What the connection was refused for stands in the cause, for who debugs.
      if (!(error instanceof TypeError)) throw error;
      throw new Error(`Cannot reach ${this.#url}: no server answers, is one running there?`, { cause: error });
    });
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({ error: undefined }));
    throw new Error(error?.message ?? `Cannot ask server: it answered ${response.status}`);
  }
}

/** Names of the engine as the interface has them. */
const FIELDS: Readonly<Partial<Record<keyof Sampling, string>>> = {
  maxTokens: "max_tokens",
  minTokens: "min_tokens",
  temperature: "temperature",
  topK: "top_k",
  typicalP: "typical_p",
  topP: "top_p",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  seed: "seed",
  stop: "stop",
  ignoreEos: "ignore_eos",
};

function fieldsOf(sampling: Partial<Sampling>): Readonly<Record<string, unknown>> {
  const known = Object.entries(sampling).filter(([name, value]) => name in FIELDS && value !== undefined);
  return Object.fromEntries(known.map(([name, value]) => [FIELDS[name as keyof Sampling], value]));
}

function timingsFrom(t: Json, promptTokens: number): Timings {
  const known = t ?? {};
  return {
    promptTokens,
    cachedTokens: known.cache_n ?? 0,
    promptMs: known.prompt_ms ?? 0,
    predictedTokens: known.predicted_n ?? 0,
    predictedMs: known.predicted_ms ?? 0,
    firstTokenMs: known.prompt_ms ?? 0,
    queueMs: 0,
    tokenizeMs: 0,
    restoreMs: 0,
  };
}
