/**
 * Who may ask what: keys, hosts, origins, request ids, and headers that keep browsers careful.
 *
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, MiddlewareHandler } from "hono";
import { ApiError } from "./errors.ts";

/** What handlers find in a request's context. */
export interface Variables {
  /** Echoed, or made. */
  readonly requestId: string;
  /** Stands for the client's key; the same for everybody where there are no keys. */
  readonly tenant: string;
}

/** Hono's name for what {@link Variables} are. */
export interface Env {
  Variables: Variables;
}

const LOCAL_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;
const LOCAL_ORIGIN = /^https?:\/\/(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

/** Whether a name or address to bind is this machine alone. */
export function isLoopback(host: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|::1|\[::1\])$/i.test(host);
}

/** Answers carry the client's request id, or a new one. */
export const requestIds: MiddlewareHandler<Env> = async (c, next) => {
  const given = c.req.header("x-request-id");
  const id = given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : `req_${crypto.randomUUID()}`;
  c.set("requestId", id);
  await next();
  c.res.headers.set("x-request-id", id);
  c.res.headers.set("x-content-type-options", "nosniff");
  c.res.headers.set("referrer-policy", "no-referrer");
};

/**
 * Without a key only names of this machine may be asked for: a page elsewhere whose name was made to point here (DNS
 * rebinding) is turned away.
 */
export function localNames(isNeeded: boolean): MiddlewareHandler<Env> {
  return async (c, next) => {
    const host = c.req.header("host");
    if (isNeeded && host !== undefined && !LOCAL_HOST.test(host)) {
      throw new ApiError("permission_error", "Cannot answer: the Host header names another machine, use an --api-key");
    }
    await next();
  };
}

/** Checks `Authorization: Bearer` or `x-api-key` in constant time; `isOpen` paths need none. */
export function keyCheck(keys: readonly string[], isOpen: (path: string) => boolean): MiddlewareHandler<Env> {
  // Digests have one length, whatever the keys'.
  const digests = keys.map(digest);
  return async (c, next) => {
    let tenant = "";
    if (digests.length > 0) {
      const given = digest(keyOf(c));
      let found = -1;
      for (let i = 0; i < digests.length; i++) if (timingSafeEqual(digests[i] as Uint8Array, given)) found = i;
      if (found < 0 && !isOpen(c.req.path)) {
        throw new ApiError("authentication_error", "Cannot answer: the API key is missing or wrong", {
          headers: { "www-authenticate": "Bearer" },
        });
      }
      tenant = String(found);
    }
    c.set("tenant", tenant);
    await next();
  };
}

function keyOf(c: Context): string {
  const bearer = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "");
  return bearer?.[1] ?? c.req.header("x-api-key") ?? "";
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Which origin may read an answer: this machine's by default, those listed, or all with `*`. Undefined: none. */
export function allowedOrigin(origins: readonly string[], origin: string): string | undefined {
  if (origins.includes("*")) return "*";
  if (origins.length === 0) return LOCAL_ORIGIN.test(origin) ? origin : undefined;
  return origins.includes(origin) ? origin : undefined;
}

/** Bodies are JSON and say so, which also keeps plain forms of other sites out. */
export const jsonOnly: MiddlewareHandler<Env> = async (c, next) => {
  const { method } = c.req;
  const type = c.req.header("content-type") ?? "";
  const hasBody = method === "POST" || method === "PATCH" || method === "PUT";
  if (hasBody && !/^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(type) && c.req.raw.body !== null) {
    throw new ApiError("unsupported_media_type_error", "Cannot read body: Content-Type must be application/json");
  }
  await next();
};
