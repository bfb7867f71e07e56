/**
 * Bodies of generation requests: one schema checks them and documents them.
 *
 * @module
 */
import { z } from "@hono/zod-openapi";

const number = (low: number, high: number) => z.number().min(low).max(high).nullish();
const whole = (low: number, high = 2 ** 31 - 1) => z.int().min(low).max(high).nullish();
const flag = z.boolean().nullish();
const ids = z.array(z.int().min(0)).max(1024);

/** A key of a policy, or a mode: `kvasir` of a request. */
export const knobs = z.strictObject({
  mode: z.enum(["auto", "exact", "retrieval"]).optional().openapi({
    description: "auto: retrieval from its break-even length on; exact; retrieval at every length",
  }),
  preset: z.string().max(64).optional(),
  policy: z.string().max(256).optional().openapi({ example: "retrieval:window=512" }),
  index: z.string().max(256).optional().openapi({ example: "graph:m=32,ef=96" }),
  budget: z.int().min(1).max(4096).optional().openapi({ description: "keys per query head; excludes error" }),
  error: z.number().gt(0).max(1).optional().openapi({ description: "relative error of attention outputs to aim at" }),
  sinks: z.int().min(0).max(65536).optional(),
  window: z.int().min(1).max(2 ** 30).optional(),
  dense_layers: z.union([z.int().min(0), z.string().max(64)]).optional(),
  min_length: z.int().min(0).max(2 ** 30).optional().openapi({
    description: "below so many tokens attention is dense",
  }),
  context: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/).optional(),
  save_context: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/).optional(),
  rebuild: z.boolean().optional(),
  telemetry: z.enum(["off", "basic", "sampled"]).optional(),
  look: z.int().min(1).max(512).optional().openapi({
    description: "see the prompt as so many stretches, and say how much attention each got on one step of 4",
  }),
}).openapi("Kvasir");

/** What `kvasir` of a request may say. */
export type Knobs = z.infer<typeof knobs>;

const schemaFormat = z.object({
  name: z.string().max(128).optional(),
  description: z.string().optional(),
  schema: z.record(z.string(), z.unknown()),
  strict: flag,
});

const responseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object"), schema: z.record(z.string(), z.unknown()).optional() }),
  z.object({ type: z.literal("json_schema"), json_schema: schemaFormat }),
]);

/** Fields that both routes have. */
const common = {
  model: z.string().max(256).nullish(),
  stream: flag,
  stream_options: z.looseObject({ include_usage: flag }).nullish(),
  max_tokens: whole(0),
  max_completion_tokens: whole(0),
  n_predict: z.int().min(-1).nullish(),
  temperature: number(0, 100),
  top_p: number(0, 1),
  top_k: z.int().min(-1).nullish(),
  min_p: number(0, 1),
  typical_p: number(0, 1),
  repetition_penalty: number(0.01, 100),
  repeat_penalty: number(0.01, 100),
  presence_penalty: number(-100, 100),
  frequency_penalty: number(-100, 100),
  seed: z.int().nullish(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(16)]).nullish(),
  stop_token_ids: ids.nullish(),
  ignore_eos: flag,
  min_tokens: whole(0),
  logit_bias: z.record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100)).nullish(),
  n: z.int().nullish(),
  response_format: responseFormat.nullish(),
  grammar: z.string().min(1).max(65_536).nullish().openapi({
    description:
      "what the answer's text must look like, in llama.cpp's GBNF; excludes response_format and calls of tools by force",
  }),
  cache_prompt: flag,
  cache_salt: z.string().max(256).nullish(),
  return_progress: flag,
  timings_per_token: flag,
  sse_ping_interval: number(0.1, 3600),
  kvasir: knobs.nullish(),
  user: z.unknown().optional(),
  store: z.unknown().optional(),
  metadata: z.unknown().optional(),
  service_tier: z.unknown().optional(),
  reasoning_effort: z.unknown().optional(),
};

const part = z.looseObject({
  type: z.literal("text", { error: "only parts of type text are understood" }),
  text: z.string(),
});

const toolCall = z.looseObject({
  id: z.string().max(256).optional(),
  type: z.literal("function").optional(),
  function: z.looseObject({ name: z.string().max(256), arguments: z.string() }),
});

/** One turn, as OpenAI's. */
export const message = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z.union([z.string(), z.array(part)]).nullish(),
  name: z.string().max(256).nullish(),
  tool_calls: z.array(toolCall).max(128).nullish(),
  tool_call_id: z.string().max(256).nullish(),
}).openapi("Message");

/** A function that the model may call. */
export const tool = z.object({
  type: z.literal("function"),
  function: z.object({
    name: z.string().regex(/^[\w.-]{1,64}$/),
    description: z.string().optional(),
    parameters: z.record(z.string(), z.unknown()).optional(),
    strict: flag,
  }),
}).openapi("Tool");

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("function"), function: z.object({ name: z.string() }) }),
]);

/** Body of `POST /v1/chat/completions`. */
export const chatBody = z.looseObject({
  messages: z.array(message).min(1).max(10_000),
  ...common,
  logprobs: flag,
  top_logprobs: whole(0, 20),
  tools: z.array(tool).max(128).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: flag,
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  add_generation_prompt: flag,
  continue_final_message: flag,
}).openapi("ChatRequest");

/** Body of `POST /v1/completions`. */
export const completionBody = z.looseObject({
  prompt: z.union([z.string(), z.array(z.string()), z.array(z.int().min(0)), z.array(z.array(z.int().min(0)))]),
  ...common,
  logprobs: whole(0, 20),
  echo: flag,
  suffix: z.null().optional(),
  best_of: z.int().nullish(),
}).openapi("CompletionRequest");

/** A checked chat request. */
export type ChatBody = z.infer<typeof chatBody>;
/** A checked completion request. */
export type CompletionBody = z.infer<typeof completionBody>;
/** What both have. */
export type CommonBody = Pick<ChatBody & CompletionBody, keyof typeof common>;

/** Names in `body` that `schema` does not have. */
export function unknownNames(body: object, schema: { readonly shape: object }): string[] {
  return Object.keys(body).filter((name) => !Object.hasOwn(schema.shape, name));
}
