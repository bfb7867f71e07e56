/**
 * A server on the tiny model, without a socket, for tests of its routes.
 *
 * @module
 */
import type { EngineOptions } from "../engine/types.ts";
import { Engine } from "../engine/engine.ts";
import { localLink } from "../engine/link.ts";
import { tinyLoader, type TinyOptions } from "../engine/tiny_model.ts";
import { type App, makeApp } from "../server/app.ts";
import { type ServerOptions, Service } from "../server/service.ts";

/** A service, its application, and its engine. */
export interface Fixture extends AsyncDisposable {
  readonly engine: Engine;
  readonly service: Service;
  readonly app: App;
  /** What the operator was told. */
  readonly lines: string[];
  /** Sends JSON. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** What a test may choose. */
export interface FixtureOptions extends Partial<ServerOptions> {
  readonly tiny?: TinyOptions;
  readonly engine?: Partial<Omit<EngineOptions, "backends">>;
}

/** Opens a server. */
export async function openServer({ tiny = {}, engine: engineOptions = {}, ...options }: FixtureOptions = {}): Promise<
  Fixture
> {
  const engine = await Engine.openOver((to) => localLink(to, tinyLoader(tiny), {}), {
    model: "tiny",
    ...engineOptions,
  });
  const lines: string[] = [];
  const service = new Service(engine, await engine.info(), {
    model: "tiny",
    version: "test",
    log: (line) => lines.push(line),
    ...options,
  });
  const app = makeApp(service);
  return {
    engine,
    service,
    app,
    lines,
    post: async (path, body, init = {}) =>
      await app.request(path, {
        method: "POST",
        body: JSON.stringify(body),
        ...init,
        headers: { "content-type": "application/json", ...init.headers },
      }),
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

/** The JSON values of an event stream, and whether it ended with `[DONE]`. */
export async function readEvents(response: Response): Promise<{ events: Json[]; isDone: boolean; comments: number }> {
  const blocks = (await response.text()).split("\n\n").filter((block) => block !== "");
  const data = blocks.filter((block) => block.startsWith("data: ")).map((block) => block.slice(6));
  const isDone = data.at(-1) === "[DONE]";
  const events = (isDone ? data.slice(0, -1) : data).map((text) => JSON.parse(text));
  return { events, isDone, comments: blocks.filter((block) => block.startsWith(":")).length };
}

// deno-lint-ignore no-explicit-any -- answers are looked at field by field
export type Json = any;
