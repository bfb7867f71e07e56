/**
 * A service on a socket, until it is told to end.
 *
 * @module
 */
import type { App } from "./app.ts";
import type { Service } from "./service.ts";
import { ApiError } from "./errors.ts";
import { isLoopback } from "./security.ts";

/** Where to listen. */
export interface ListenOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 5827; 0 takes a free one. */
  readonly port?: number;
  /** PEM texts, for HTTPS. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Listen beyond this machine without keys. */
  readonly insecure?: boolean;
  /** How long requests under way may go on once it ends. Default 30 s. */
  readonly shutdownMs?: number;
}

/** A listening server. */
export interface Listening {
  /** Where clients reach it. */
  readonly url: string;
  /** Takes no more requests, lets those under way finish for a while, then ends them. Idempotent. */
  close(): Promise<void>;
  /** Ends everything at once. */
  abort(): Promise<void>;
}

/** Throws `RangeError` for a host beyond this machine without keys, and `Error` for an address that cannot be had. */
export function listen(app: App, service: Service, options: ListenOptions = {}): Listening {
  const { host = "127.0.0.1", port = 5827, tls, shutdownMs = 30_000 } = options;
  const { keys = [] } = service.options;
  if (!isLoopback(host) && keys.length === 0 && options.insecure !== true) {
    throw new RangeError(`Cannot listen on ${host}: others could use it, give an --api-key or say --insecure`);
  }
  const server = bind(host, port, () =>
    Deno.serve({
      hostname: host.replace(/^\[|\]$/g, ""),
      port,
      ...tls,
      onListen: () => {},
      onError: (error) => {
        service.report(error, "server");
        return new ApiError("server_error", "Cannot answer: something failed within the server").response();
      },
    }, app.fetch));
  const { hostname, port: bound } = server.addr as Deno.NetAddr;
  const name = hostname.includes(":") ? `[${hostname}]` : hostname;
  let closing: Promise<void> | undefined;
  const abort = async () => {
    service.abortAll();
    await server.shutdown();
  };
  return {
    url: `${tls === undefined ? "http" : "https"}://${name}:${bound}`,
    abort: () => closing = abort(),
    close: () => closing ??= drain(service, shutdownMs).then(() => server.shutdown()),
  };
}

/** What keeps a server from an address, with the remedy. */
function bind<T>(host: string, port: number, serve: () => T): T {
  try {
    return serve();
  } catch (error) {
    const refuse = (why: string) => new Error(`Cannot listen on ${host}, port ${port}: ${why}`, { cause: error });
    if (error instanceof Deno.errors.AddrInUse) throw refuse("something else does, choose another --port");
    if (error instanceof Deno.errors.AddrNotAvailable) throw refuse("this machine has no such address");
    if (error instanceof Deno.errors.PermissionDenied) throw refuse("the system refuses, choose a --port from 1024 on");
    throw refuse((error as Error).message);
  }
}

async function drain(service: Service, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, ms));
  await Promise.race([service.admission.drain(), late]);
  clearTimeout(timer);
  service.abortAll();
}
