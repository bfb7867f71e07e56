/**
 * One generation as an answer: whole, or as an event stream.
 *
 * @module
 */
import type { Context } from "hono";
import type { TokenEvent } from "../engine/types.ts";
import type { Call, Running, Service } from "./service.ts";
import type { CommonBody } from "./fields.ts";
import type { Env } from "./security.ts";
import { type Done, timingsOf, type Token, usageOf } from "./answer.ts";
import { telemetryOf } from "./answer.ts";
import { toApiError } from "./errors.ts";
import { eventBody, SSE_DONE, SSE_HEADERS, sseEvent } from "./sse.ts";

/** Turns events into the answer's own shape. */
export interface Shape {
  /** Fields at the top of every chunk, and of the whole answer. */
  readonly head: Readonly<Record<string, unknown>>;
  /** `object` of chunks. */
  readonly chunkObject: string;
  /** The first choice of a stream, where there is one. */
  first(): Readonly<Record<string, unknown>> | undefined;
  /** Choices that one token gives, none or several. */
  token(event: Token): Readonly<Record<string, unknown>>[];
  /** Choices that the end gives: what was held back, then the one with the finish reason. */
  end(done: Done): Readonly<Record<string, unknown>>[];
  /** The one choice of a whole answer. */
  whole(done: Done): Readonly<Record<string, unknown>>;
}

const PING = { firstMs: 1000, everyMs: 15_000 };

/** Runs `call` and answers. Errors before the first byte are thrown. */
export async function answer(
  c: Context<Env>,
  service: Service,
  call: Call,
  body: CommonBody,
  shape: Shape,
): Promise<Response> {
  const running = await service.start(call, c.get("tenant"), c.req.raw.signal);
  const about = (done: Done) => ({
    timings: timingsOf(done.timings),
    ...telemetry(call, running, done, service.kvBytes),
  });
  if (body.stream) return await stream(service, running, body, shape, about, c.get("requestId"));
  const done = await finish(running, shape);
  return c.json({ ...shape.head, choices: [shape.whole(done)], usage: usageOf([done.timings]), ...about(done) });
}

/** Answers several prompts in one body, `parallel` of them at once. The first that fails ends the others. */
export async function answerAll(
  c: Context<Env>,
  service: Service,
  calls: readonly Call[],
  shapes: readonly Shape[],
): Promise<Response> {
  const all: Done[] = new Array(calls.length);
  const running = new Set<Running>();
  let next = 0;
  const work = async () => {
    while (next < calls.length) {
      const i = next++;
      const one = await service.start(calls[i] as Call, c.get("tenant"), c.req.raw.signal);
      running.add(one);
      all[i] = await finish(one, shapes[i] as Shape);
      running.delete(one);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(service.options.parallel ?? 4, calls.length) }, work));
  } catch (error) {
    next = calls.length;
    await Promise.all(Array.from(running, (one) => one.leave()));
    throw error;
  }
  const choices = shapes.map((shape, i) => shape.whole(all[i] as Done));
  return c.json({ ...shapes[0]?.head, choices, usage: usageOf(all.map((done) => done.timings)) });
}

/** The last event; the others are the shape's. */
async function finish(running: Running, shape: Shape): Promise<Done> {
  let last: Done | undefined;
  for await (const events of running.events) {
    for (const event of events) {
      if (event.type === "token") shape.token(event);
      else if (event.type === "done") last = event;
    }
  }
  return last as Done;
}

function telemetry(call: Call, running: Running, done: Done, kvBytes: number): Readonly<Record<string, unknown>> {
  if (call.knobs?.telemetry === "off") return {};
  return { kvasir: telemetryOf(done, { ...running.attention, mode: call.knobs?.mode ?? "auto", kvBytes }) };
}

/** Waits a moment for the first event, so that most errors still have a status of their own. */
async function stream(
  service: Service,
  running: Running,
  body: CommonBody,
  shape: Shape,
  about: (done: Done) => Readonly<Record<string, unknown>>,
  requestId: string,
): Promise<Response> {
  const first = running.events.next();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const moment = new Promise<void>((resolve) => timer = setTimeout(resolve, PING.firstMs));
  try {
    await Promise.race([first, moment]);
  } finally {
    clearTimeout(timer);
  }
  const source = texts(running, first, body, shape, about, (error) => service.report(error, requestId));
  const everyMs = body.sse_ping_interval === null || body.sse_ping_interval === undefined
    ? PING.everyMs
    : body.sse_ping_interval * 1000;
  const bytes = eventBody(source, { firstMs: Math.min(PING.firstMs, everyMs), everyMs }, running.leave);
  return new Response(bytes, { headers: SSE_HEADERS });
}

/** The stream's text, as many whole events at a time as have come. */
async function* texts(
  running: Running,
  first: Promise<IteratorResult<readonly TokenEvent[], void>>,
  body: CommonBody,
  shape: Shape,
  about: (done: Done) => Readonly<Record<string, unknown>>,
  report: (error: unknown) => void,
): AsyncGenerator<string, void, undefined> {
  const withUsage = body.stream_options?.include_usage === true;
  const head = { ...shape.head, object: shape.chunkObject };
  // Everything but the choice is the same in every chunk: written once.
  const start = `data: ${JSON.stringify(head).slice(0, -1)},"choices":[`;
  const rest = withUsage ? '],"usage":null}\n\n' : "]}\n\n";
  const chunk = (choice: unknown) => start + JSON.stringify(choice) + rest;
  const startMs = performance.now();
  const opening = shape.first();
  if (opening !== undefined) yield chunk(opening);
  let drawn = 0;
  let firstTokenMs = 0;
  try {
    for (let next = await first; !next.done; next = await running.events.next()) {
      let text = "";
      for (const event of next.value) {
        if (event.type === "prefill") {
          if (body.return_progress) text += progress(head, event.done, event.total, performance.now() - startMs);
        } else if (event.type === "token") {
          if (drawn++ === 0) firstTokenMs = performance.now();
          for (const choice of shape.token(event)) {
            text += body.timings_per_token
              ? sseEvent({ ...head, choices: [choice], timings: soFar(drawn, performance.now() - firstTokenMs) })
              : chunk(choice);
          }
        } else {
          const choices = shape.end(event);
          const last = choices.pop();
          for (const choice of choices) text += chunk(choice);
          const usage = usageOf([event.timings]);
          if (withUsage) {
            text += chunk(last) + sseEvent({ ...head, choices: [], usage, ...about(event) });
          } else {
            text += sseEvent({ ...head, choices: [last], ...about(event) });
          }
          text += SSE_DONE;
        }
      }
      if (text !== "") yield text;
    }
  } catch (error) {
    yield sseEvent(toApiError(error, report).body);
  }
}

function soFar(drawn: number, ms: number): Readonly<Record<string, number>> {
  const steps = drawn - 1;
  return {
    predicted_n: drawn,
    predicted_ms: ms,
    predicted_per_token_ms: steps > 0 ? ms / steps : 0,
    predicted_per_second: ms > 0 ? 1000 * steps / ms : 0,
  };
}

function progress(head: object, done: number, total: number, ms: number): string {
  const eta = done > 0 ? Math.round(ms / done * (total - done)) : null;
  const report = { total, cache: 0, processed: done, time_ms: Math.round(ms), phase: "prefill", eta_ms: eta };
  return sseEvent({ ...head, choices: [], prompt_progress: report });
}
