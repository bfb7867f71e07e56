/**
 * `/v1/contexts`: documents that are read once and asked many times.
 *
 * @module
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { ContextInfo } from "../engine/context_types.ts";
import type { Prompt } from "../engine/protocol.ts";
import type { App } from "./app.ts";
import type { Env } from "./security.ts";
import { ApiError, toApiError } from "./errors.ts";
import { knobs, message } from "./fields.ts";
import { conversationOf, given, wrong } from "./request.ts";
import { CONTEXT_TTL, type Service } from "./service.ts";
import { eventBody, SSE_DONE, SSE_HEADERS, sseEvent } from "./sse.ts";

const name = z.string().regex(/^[A-Za-z0-9._-]{1,64}$/);
const ttl = z.number().min(0).max(1e10).nullish();
const metadata = z.record(z.string().max(64), z.string().max(512)).nullish();
const content = {
  messages: z.array(message).min(1).max(10_000).nullish(),
  prompt: z.string().nullish(),
  tokens: z.array(z.int().min(0)).nullish(),
};

const createBody = z.looseObject({
  name: name.nullish(),
  ...content,
  kvasir: knobs.nullish(),
  cache_salt: z.string().max(256).nullish(),
  ttl_seconds: ttl,
  metadata,
  stream: z.boolean().nullish(),
}).openapi("ContextRequest");
const changeBody = z.strictObject({ name: name.optional(), ttl_seconds: ttl, metadata }).openapi("ContextChange");
const forkBody = z.strictObject({ name: name.nullish(), at_token: z.int().min(1).nullish() }).openapi("ContextFork");
const appendBody = z.looseObject({ ...content, stream: z.boolean().nullish() }).openapi("ContextAppend");
const lookupBody = z.looseObject({ ...content, cache_salt: z.string().max(256).nullish() }).openapi("ContextLookup");

type Handler<T> = (c: Context<Env>, body: T) => Promise<Response>;

/** Adds them. */
export function addContextRoutes(app: App, service: Service): void {
  const { contexts } = service.engine;
  const add = <T extends z.ZodType>(
    method: "post" | "patch",
    path: string,
    summary: string,
    schema: T,
    handler: Handler<z.infer<T>>,
  ): void => {
    const route = createRoute({
      method,
      path,
      summary,
      request: { body: { required: true, content: { "application/json": { schema } } } },
      responses: { 200: { description: "The answer" } },
    });
    app.openapi(
      route,
      ((c: Context<Env> & { req: { valid(of: "json"): z.infer<T> } }) => {
        return handler(c, c.req.valid("json"));
      }) as never,
    );
  };
  const idOf = (c: Context<Env>) => c.req.param("id") ?? "";

  add("post", "/v1/contexts", "Read a prompt once, to ask about it many times", createBody, async (c, body) => {
    const prompt = promptOf(body);
    const wanted = body.name ?? `c-${crypto.randomUUID().slice(0, 13)}`;
    if ((await contexts.list()).some((known) => known.name === wanted)) {
      throw new ApiError("conflict_error", `Cannot make context: "${wanted}" exists already, delete it first`, {
        param: "name",
      });
    }
    const attention = await service.attentionFor(body.kvasir);
    const options = {
      name: wanted,
      ttlSeconds: body.ttl_seconds ?? CONTEXT_TTL,
      ...given({ attention, metadata: body.metadata, cacheSalt: body.cache_salt, context: body.kvasir?.context }),
    };
    return await create(c, service, prompt, options, body.stream === true, 201);
  });

  app.get("/v1/contexts", async (c) => {
    const { prefix = "", after, limit = "20" } = c.req.query();
    const most = Number(limit);
    if (!Number.isInteger(most) || most < 1 || most > 100) throw wrong("limit", "must be a whole number from 1 to 100");
    const all = (await contexts.list()).filter((known) => prefix === "" || known.name?.startsWith(prefix));
    const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
    if (after !== undefined && start === 0) throw wrong("after", "there is no such context");
    const page = all.slice(start, start + most);
    return c.json({ object: "list", data: page.map(contextOf), has_more: all.length > start + most });
  });
  app.get("/v1/contexts/:id", async (c) => c.json(contextOf(await contexts.show(idOf(c)))));
  add("patch", "/v1/contexts/{id}", "Rename a context, or change how long it stays", changeBody, async (c, body) => {
    const change = given({ name: body.name, ttlSeconds: body.ttl_seconds, metadata: body.metadata });
    return c.json(contextOf(await contexts.update(idOf(c), change)));
  });
  app.delete("/v1/contexts/:id", async (c) => {
    const { id, name } = await contexts.show(idOf(c));
    if (c.req.query("force") !== "true" && (service.isUsed(id) || service.isUsed(name))) {
      throw new ApiError(
        "conflict_error",
        `Cannot delete context "${name ?? id}": it is in use, wait or say force=true`,
      );
    }
    await contexts.delete(id);
    return c.body(null, 204);
  });
  add("post", "/v1/contexts/{id}/fork", "Another context that begins as this one", forkBody, async (c, body) => {
    const wanted = body.name ?? `c-${crypto.randomUUID().slice(0, 13)}`;
    const at = given({ atToken: body.at_token });
    return c.json(contextOf(await contexts.fork(idOf(c), { name: wanted, ...at })), 201);
  });
  add("post", "/v1/contexts/{id}/append", "Read more into a context", appendBody, async (c, body) => {
    const { id, name, metadata, expiresMs, lastUsedMs, fingerprint } = await contexts.show(idOf(c));
    if (name === undefined) throw new ApiError("conflict_error", "Cannot append: give the context a name first");
    const ttlSeconds = expiresMs === undefined ? 0 : (expiresMs - lastUsedMs) / 1000;
    const attention = { policy: fingerprint.policy, index: fingerprint.index };
    const options = { name, context: id, ttlSeconds, metadata, attention };
    return await create(c, service, promptOf(body), options, body.stream === true, 200);
  });
  add("post", "/v1/contexts/lookup", "Contexts that a prompt begins with", lookupBody, async (c, body) => {
    const found = await contexts.lookup(promptOf(body), given({ cacheSalt: body.cache_salt }));
    return c.json(found.map(({ context, matchedTokens }) => ({ id: context.id, matched_tokens: matchedTokens })));
  });
}

type Options = Parameters<Service["createContext"]>[1];

async function create(
  c: Context<Env>,
  service: Service,
  prompt: Prompt,
  options: Options,
  isStream: boolean,
  status: 200 | 201,
): Promise<Response> {
  const tenant = c.get("tenant");
  if (!isStream) {
    return c.json(contextOf(await service.createContext(prompt, options, tenant, c.req.raw.signal)), status);
  }
  const left = new AbortController();
  const news: string[] = [];
  let wake = () => {};
  let isOver = false;
  const tell = (text: string) => {
    news.push(text);
    wake();
  };
  const onProgress: NonNullable<Options["onProgress"]> = ({ phase, done, total }) => {
    tell(sseEvent({ object: "context.progress", progress: { phase, processed: done, total } }));
  };
  const made = service.createContext(prompt, { ...options, onProgress }, tenant, left.signal)
    .then((info) => tell(sseEvent(contextOf(info)) + SSE_DONE))
    .catch((error) => tell(sseEvent(toApiError(error, (e) => service.report(e, c.get("requestId"))).body)))
    .finally(() => {
      isOver = true;
      wake();
    });
  async function* source(): AsyncGenerator<string, void, undefined> {
    for (;;) {
      while (news.length === 0 && !isOver) await new Promise<void>((resolve) => wake = resolve);
      if (news.length === 0) return;
      yield news.splice(0).join("");
    }
  }
  const leave = async () => {
    left.abort();
    await made;
  };
  return new Response(eventBody(source(), { firstMs: 1000, everyMs: 15_000 }, leave), { headers: SSE_HEADERS });
}

function promptOf({ messages, prompt, tokens }: z.infer<typeof lookupBody>): Prompt {
  const all = [messages, prompt, tokens].filter((one) => one !== null && one !== undefined);
  if (all.length !== 1) throw wrong("messages", "give one of messages, prompt and tokens");
  if (typeof prompt === "string") return prompt;
  if (tokens) return Int32Array.from(tokens);
  return { ...conversationOf({ messages: messages ?? [] }, []), addGenerationPrompt: false };
}

function contextOf(info: ContextInfo): Readonly<Record<string, unknown>> {
  const { id, tokens, bytes, createdMs, lastUsedMs, expiresMs, parent, metadata, fingerprint } = info;
  const seconds = (ms: number) => Math.floor(ms / 1000);
  return {
    id,
    name: info.name ?? null,
    object: "context",
    created_at: seconds(createdMs),
    expires_at: expiresMs === undefined ? null : seconds(expiresMs),
    last_used_at: seconds(lastUsedMs),
    status: "ready",
    tokens,
    bytes,
    policy: fingerprint.policy,
    index: fingerprint.index,
    fingerprint,
    parent: parent ?? null,
    metadata,
  };
}
