/**
 * The HTTP application: routes, and what every request passes.
 *
 * @module
 */
import { createRoute, OpenAPIHono, z } from "@hono/zod-openapi";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import type { Env } from "./security.ts";
import type { Service } from "./service.ts";
import { chat } from "./chat_route.ts";
import { completion } from "./completion_route.ts";
import { ApiError, toApiError } from "./errors.ts";
import { chatBody, completionBody } from "./fields.ts";
import { allowedOrigin, jsonOnly, keyCheck, localNames, requestIds } from "./security.ts";
import { addPage, PAGE_PATHS } from "./page.ts";
import { addContextRoutes } from "./context_routes.ts";
import { addModelRoutes } from "./model_routes.ts";
import { addTextRoutes } from "./text_routes.ts";

/** Hono with a document. */
export type App = OpenAPIHono<Env>;

/** Paths that need no key: health, and the page, which holds nothing. */
const OPEN_PATHS = new Set(["/health", "/v1/health", "/ping", ...PAGE_PATHS]);

/** What an error looks like, for the document. */
export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.int(),
  }),
}).openapi("Error");

/** The application of a service; it listens nowhere yet. */
export function makeApp(service: Service): App {
  const { keys = [], corsOrigins = [], maxBodyBytes = 64 << 20, localOnly = false } = service.options;
  const app: App = new OpenAPIHono<Env>({
    defaultHook: (result) => {
      if (result.success) return;
      const issue = result.error.issues[0];
      const param = issue?.path.join(".") ?? "";
      const message = `Cannot use ${param === "" ? "body" : param}: ${issue?.message ?? "it is wrong"}`;
      throw new ApiError("invalid_request_error", message, param === "" ? {} : { param });
    },
  });
  app.onError((error, c) => {
    const known = error instanceof HTTPException
      ? new ApiError("invalid_request_error", "Cannot read body: it is no JSON")
      : toApiError(error, (unknown) => service.report(unknown, c.get("requestId")));
    return known.response();
  });
  app.notFound((c) => {
    const path = c.req.path.slice(0, 100);
    return new ApiError("not_found_error", `Cannot find ${c.req.method} ${path}: there is no such route`).response();
  });
  app.use(requestIds);
  app.use(localNames(localOnly));
  app.use(cors({
    origin: (origin) => allowedOrigin(corsOrigins, origin),
    allowMethods: ["GET", "POST", "PATCH", "DELETE", "OPTIONS"],
    exposeHeaders: ["x-request-id", "retry-after"],
    maxAge: 600,
  }));
  app.use(keyCheck(keys, (path) => OPEN_PATHS.has(path)));
  app.use(jsonOnly);
  app.use(bodyLimit({
    maxSize: maxBodyBytes,
    onError: () => {
      throw new ApiError("payload_too_large_error", `Cannot read body: it is larger than ${maxBodyBytes} bytes`);
    },
  }));

  const health = (): Response => {
    if (service.admission.isDraining) {
      return new ApiError("unavailable_error", "Cannot answer: the server is shutting down", {
        headers: { "retry-after": "5" },
      }).response();
    }
    return Response.json({ status: "ok" });
  };
  for (const path of ["/health", "/v1/health", "/ping"]) app.get(path, health);

  app.openapi(
    generationRoute("/v1/chat/completions", "Answer a conversation", chatBody),
    ((c: never) => chat(c, service, (c as { req: { valid(of: "json"): never } }).req.valid("json"))) as never,
  );
  app.openapi(
    generationRoute("/v1/completions", "Continue a text", completionBody),
    ((c: never) => completion(c, service, (c as { req: { valid(of: "json"): never } }).req.valid("json"))) as never,
  );
  addPage(app);
  addModelRoutes(app, service);
  addTextRoutes(app, service);
  addContextRoutes(app, service);
  app.get("/metrics", async (c) => {
    c.header("content-type", service.metrics.contentType);
    return c.body(await service.metrics.text());
  });
  app.get("/openapi.json", (c) =>
    c.json(app.getOpenAPI31Document({
      openapi: "3.1.0",
      info: { title: "Kvasir", version: service.options.version ?? "0" },
    })));
  return app;
}

// deno-lint-ignore explicit-function-return-type -- the route's type is inferred
function generationRoute(path: string, summary: string, schema: z.ZodType) {
  return createRoute({
    method: "post",
    path,
    summary,
    request: { body: { required: true, content: { "application/json": { schema } } } },
    responses: {
      200: {
        description: "The answer, or with `stream` its chunks as server-sent events",
        content: {
          "application/json": { schema: z.looseObject({ id: z.string() }) },
          "text/event-stream": { schema: z.string() },
        },
      },
      400: { description: "A field is wrong", content: { "application/json": { schema: errorSchema } } },
    },
  });
}
