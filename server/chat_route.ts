/**
 * `POST /v1/chat/completions`.
 *
 * @module
 */
import type { Context } from "hono";
import type { ChatBody } from "./fields.ts";
import type { Env } from "./security.ts";
import type { Service } from "./service.ts";
import { endOf, logprobOf, type Token } from "./answer.ts";
import { ApiError } from "./errors.ts";
import { chatBody, unknownNames } from "./fields.ts";
import { answer, type Shape } from "./generate.ts";
import { conversationOf, samplingOf, wrong } from "./request.ts";

/** Answers a checked request. */
export function chat(c: Context<Env>, service: Service, body: ChatBody): Promise<Response> {
  service.noteUnknown(unknownNames(body, chatBody));
  service.checkModel(body.model);
  if (!service.info.chatTemplate) {
    throw new ApiError("not_supported_error", "Cannot chat: the model has no chat template, use /v1/completions");
  }
  const sampling = samplingOf(body, service.options.sampling ?? {});
  if (sampling.maxTokens === 0) throw wrong("max_tokens", "must be at least 1");
  if (body.top_logprobs && !body.logprobs) throw wrong("top_logprobs", "needs logprobs: true");
  const call = {
    prompt: conversationOf(body, []),
    options: { ...sampling, ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}) },
    knobs: body.kvasir,
  };
  return answer(c, service, call, body, new ChatShape(service, body.logprobs === true));
}

type Choice = Readonly<Record<string, unknown>>;

/** Tokens as deltas and as one message. */
class ChatShape implements Shape {
  readonly chunkObject = "chat.completion.chunk";
  readonly head: Readonly<Record<string, unknown>>;
  readonly #withLogprobs: boolean;
  readonly #logprobs: unknown[] = [];
  #text = "";
  /** Log-probabilities of tokens whose text is held back. */
  #waiting: unknown[] = [];

  constructor(service: Service, withLogprobs: boolean) {
    this.#withLogprobs = withLogprobs;
    this.head = {
      id: `chatcmpl-${crypto.randomUUID().replaceAll("-", "")}`,
      object: "chat.completion",
      created: Math.floor(Date.now() / 1000),
      model: service.options.model,
      system_fingerprint: service.fingerprint,
    };
  }

  first(): Choice {
    return this.#choice({ role: "assistant", content: "" });
  }

  token(event: Token): Choice[] {
    this.#text += event.text;
    const entry = logprobOf(event);
    if (entry !== undefined) {
      this.#logprobs.push(entry);
      this.#waiting.push(entry);
    }
    return event.text === "" ? [] : [this.#choice({ content: event.text })];
  }

  end(done: Parameters<Shape["end"]>[0]): Choice[] {
    const last = { ...this.#choice({}), ...endOf(done) };
    return [last];
  }

  whole(done: Parameters<Shape["whole"]>[0]): Choice {
    return {
      index: 0,
      message: { role: "assistant", content: this.#text, refusal: null },
      logprobs: this.#withLogprobs ? { content: this.#logprobs, refusal: null } : null,
      ...endOf(done),
    };
  }

  #choice(delta: Choice): Choice {
    const content = this.#waiting;
    this.#waiting = [];
    return {
      index: 0,
      delta,
      logprobs: this.#withLogprobs && content.length > 0 ? { content, refusal: null } : null,
      finish_reason: null,
    };
  }
}
