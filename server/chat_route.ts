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
import { checked, grammarOf } from "./structured.ts";
import { offeredTools, type Parsed, type ToolCall, ToolCallReader, toolGrammar, withToolTexts } from "./tools.ts";
import { conversationOf, samplingOf, sharingOf, wrong } from "./request.ts";

/** Answers a checked request. */
export async function chat(c: Context<Env>, service: Service, body: ChatBody): Promise<Response> {
  service.noteUnknown(unknownNames(body, chatBody));
  service.checkModel(body.model);
  if (!service.info.chatTemplate) {
    throw new ApiError("not_supported_error", "Cannot chat: the model has no chat template, use /v1/completions");
  }
  const sampling = samplingOf(body, service.options.sampling ?? {});
  if (sampling.maxTokens === 0) throw wrong("max_tokens", "must be at least 1");
  if (body.top_logprobs && !body.logprobs) throw wrong("top_logprobs", "needs logprobs: true");
  const { conversation, tools, format } = await toolsOf(service, body);
  const calls = checked(toolGrammar(body, tools, format), "tools");
  if (calls !== undefined && body.grammar) throw wrong("grammar", "excludes tool_choice required or by name");
  const grammar = grammarOf(body) ?? calls;
  const call = {
    prompt: conversation,
    options: {
      ...sampling,
      ...sharingOf(body),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
      ...(grammar === undefined ? {} : { grammar }),
    },
    knobs: body.kvasir,
    requestId: c.get("requestId"),
  };
  const reads = tools.length > 0 && service.options.toolParser !== "none";
  const reader = reads ? new ToolCallReader(format) : undefined;
  return await answer(c, service, call, body, new ChatShape(service, body.logprobs === true, reader));
}

/** The conversation as the model's template takes it, with the tools that may be called. */
async function toolsOf(service: Service, body: ChatBody) {
  const tools = offeredTools(body);
  const conversation = conversationOf(body, tools);
  const usesTools = tools.length > 0 ||
    conversation.messages.some((m) => m.role === "tool" || m.tool_calls !== undefined);
  if (!usesTools) return { conversation, tools, format: "hermes" as const };
  const template = await service.templateTools();
  const { toolParser = "auto" } = service.options;
  const format = toolParser === "auto" || toolParser === "none" ? template.format : toolParser;
  return { conversation: template.knowsTools ? conversation : withToolTexts(conversation), tools, format };
}

type Choice = Readonly<Record<string, unknown>>;

/** Tokens as deltas and as one message. */
class ChatShape implements Shape {
  readonly chunkObject = "chat.completion.chunk";
  readonly head: Readonly<Record<string, unknown>>;
  readonly #withLogprobs: boolean;
  readonly #logprobs: unknown[] = [];
  #text = "";
  readonly #reader: ToolCallReader | undefined;
  readonly #calls: ToolCall[] = [];
  /** Log-probabilities of tokens whose text is held back. */
  #waiting: unknown[] = [];

  constructor(service: Service, withLogprobs: boolean, reader: ToolCallReader | undefined) {
    this.#reader = reader;
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
    const entry = logprobOf(event);
    if (entry !== undefined) {
      this.#logprobs.push(entry);
      this.#waiting.push(entry);
    }
    return this.#said(this.#reader?.push(event.text) ?? { text: event.text, calls: [] });
  }

  #said({ text, calls }: Parsed): Choice[] {
    this.#text += text;
    const choices = text === "" ? [] : [this.#choice({ content: text })];
    for (const call of calls) {
      choices.push(this.#choice({ tool_calls: [{ index: this.#calls.length, ...call }] }));
      this.#calls.push(call);
    }
    return choices;
  }

  end(done: Parameters<Shape["end"]>[0]): Choice[] {
    const rest = this.#reader === undefined ? [] : this.#said(this.#reader.flush());
    return [...rest, { ...this.#choice({}), ...this.#end(done) }];
  }

  whole(done: Parameters<Shape["whole"]>[0]): Choice {
    if (this.#reader !== undefined) this.#said(this.#reader.flush());
    const calls = this.#calls.length === 0 ? {} : { tool_calls: this.#calls };
    const content = this.#text === "" && this.#calls.length > 0 ? null : this.#text;
    return {
      index: 0,
      message: { role: "assistant", content, refusal: null, ...calls },
      logprobs: this.#withLogprobs ? { content: this.#logprobs, refusal: null } : null,
      ...this.#end(done),
    };
  }

  #end(done: Parameters<Shape["end"]>[0]): ReturnType<typeof endOf> {
    const end = endOf(done);
    return this.#calls.length > 0 && end.finish_reason === "stop" ? { ...end, finish_reason: "tool_calls" } : end;
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
