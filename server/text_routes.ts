/**
 * Text, tokens and templates without generation, in llama.cpp's shapes.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { App } from "./app.ts";
import type { Service } from "./service.ts";
import { chatBody, message, tool } from "./fields.ts";
import { conversationOf } from "./request.ts";

const tokenizeBody = z.looseObject({
  content: z.string(),
  add_special: z.boolean().nullish(),
  parse_special: z.boolean().nullish(),
  with_pieces: z.boolean().nullish(),
}).openapi("TokenizeRequest");

const detokenizeBody = z.looseObject({ tokens: z.array(z.int().min(0).max(2 ** 31 - 1)) }).openapi("DetokenizeRequest");

const templateBody = z.looseObject({
  messages: z.array(message).min(1),
  tools: z.array(tool).max(128).nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
  add_generation_prompt: z.boolean().nullish(),
  continue_final_message: z.boolean().nullish(),
}).openapi("TemplateRequest");

/** Adds the routes. */
export function addTextRoutes(app: App, service: Service): void {
  const { engine } = service;
  const add = <T extends z.ZodType>(
    path: string,
    summary: string,
    schema: T,
    answer: (body: z.infer<T>) => Promise<Readonly<Record<string, unknown>>>,
  ): void => {
    const route = createRoute({
      method: "post",
      path,
      summary,
      request: { body: { required: true, content: { "application/json": { schema } } } },
      responses: {
        200: {
          description: "The answer",
          content: { "application/json": { schema: z.record(z.string(), z.unknown()) } },
        },
      },
    });
    app.openapi(
      route,
      (async (c: { req: { valid(of: "json"): z.infer<T> }; json(body: unknown): Response }) => {
        return c.json(await answer(c.req.valid("json")));
      }) as never,
    );
  };

  add("/tokenize", "Ids of a text", tokenizeBody, async ({ content, add_special, parse_special, with_pieces }) => {
    const tokens = await engine.tokenize(content, { bos: add_special ?? false, special: parse_special ?? true });
    if (!with_pieces) return { tokens: [...tokens] };
    const pieces = await Promise.all(
      [...tokens].map(async (id) => ({ id, piece: await engine.detokenize(Int32Array.of(id)) })),
    );
    return { tokens: pieces };
  });
  add("/detokenize", "The text of ids", detokenizeBody, async ({ tokens }) => {
    return { content: await engine.detokenize(Int32Array.from(tokens)) };
  });
  add("/apply-template", "A conversation as the model reads it", templateBody, async (body) => {
    return { prompt: await engine.render(conversationOf(body, body.tools ?? [])) };
  });
  add("/v1/chat/completions/input_tokens", "Tokens of a conversation", chatBody, async (body) => {
    service.checkModel(body.model);
    const tokens = await engine.encode(conversationOf(body, body.tools ?? []));
    return { object: "response.input_tokens", input_tokens: tokens.length };
  });
}
