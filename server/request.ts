/**
 * Requests to engine options: names, aliases and defaults.
 *
 * @module
 */
import type { Sampling } from "../engine/types.ts";
import type { ContextUse } from "../engine/context_types.ts";
import type { Conversation, Message } from "../model/model.ts";
import type { ChatBody, CommonBody } from "./fields.ts";
import { ApiError } from "./errors.ts";

/** Sampling that the API of OpenAI starts from. */
export const OPENAI_SAMPLING: Partial<Sampling> = { temperature: 1, topK: 0, typicalP: 1, topP: 1, minP: 0 };

/** Which prefixes a request may share. */
export function sharingOf({ cache_prompt, cache_salt }: CommonBody): Pick<ContextUse, "cachePrompt" | "cacheSalt"> {
  return given({ cachePrompt: cache_prompt, cacheSalt: cache_salt });
}

/** What was asked for of how tokens are drawn; absent fields are the model's or the engine's. */
export function samplingOf(body: CommonBody, defaults: Partial<Sampling>): Partial<Sampling> {
  if (body.n !== null && body.n !== undefined && body.n !== 1) throw wrong("n", "n must be 1");
  const stop = typeof body.stop === "string" ? [body.stop] : body.stop;
  const topK = body.top_k === -1 ? 0 : body.top_k;
  return {
    ...defaults,
    ...given({
      maxTokens: maxTokens(body),
      minTokens: body.min_tokens,
      temperature: body.temperature,
      topK,
      typicalP: body.typical_p,
      topP: body.top_p,
      minP: body.min_p,
      repetitionPenalty: body.repetition_penalty ?? body.repeat_penalty,
      presencePenalty: body.presence_penalty,
      frequencyPenalty: body.frequency_penalty,
      seed: body.seed,
      stop,
      stopTokens: body.stop_token_ids,
      ignoreEos: body.ignore_eos,
      logitBias: body.logit_bias,
    }),
  };
}

/** Entries that are neither undefined nor null. */
export function given<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined && value !== null);
  return Object.fromEntries(entries) as { [K in keyof T]?: NonNullable<T[K]> };
}

function maxTokens(body: CommonBody): number | undefined {
  const { max_completion_tokens, max_tokens, n_predict } = body;
  const wanted = max_completion_tokens ?? max_tokens ?? (n_predict === -1 ? undefined : n_predict);
  return wanted ?? undefined;
}

type Rendered =
  & Pick<ChatBody, "messages">
  & Partial<Pick<ChatBody, "add_generation_prompt" | "continue_final_message" | "chat_template_kwargs">>;

/** The conversation of a chat request, as templates expect it. */
export function conversationOf(body: Rendered, tools: readonly unknown[]): Conversation {
  return {
    messages: body.messages.map(messageOf),
    ...given({
      addGenerationPrompt: body.add_generation_prompt,
      continueFinalMessage: body.continue_final_message,
      variables: body.chat_template_kwargs,
    }),
    ...(tools.length === 0 ? {} : { tools }),
  };
}

function messageOf(message: ChatBody["messages"][number], i: number): Message {
  const { role, content, name, tool_calls, tool_call_id } = message;
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text).join("\n");
  const calls = tool_calls?.map((call, j) => {
    const { name, arguments: written } = call.function;
    return {
      ...call,
      type: "function",
      function: { name, arguments: argumentsOf(written, `messages.${i}.tool_calls.${j}`) },
    };
  });
  if (content === undefined && calls === undefined && role !== "assistant") {
    throw wrong(`messages.${i}.content`, "content is missing");
  }
  return {
    role: role === "developer" ? "system" : role,
    content: text,
    ...given({ name, tool_call_id, tool_calls: calls }),
  };
}

/** Templates write arguments as JSON themselves. */
function argumentsOf(written: string, at: string): unknown {
  try {
    return written.trim() === "" ? {} : JSON.parse(written);
  } catch {
    throw wrong(`${at}.function.arguments`, "arguments are no JSON");
  }
}

/** 400 that names the field. */
export function wrong(param: string, message: string): ApiError {
  return new ApiError("invalid_request_error", `Cannot use ${param}: ${message}`, { param });
}
