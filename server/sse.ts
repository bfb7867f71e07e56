/**
 * Server-sent events: a stream that is pulled, so that a slow reader slows nobody else and leaving is noticed at once.
 *
 * @module
 */

const PING = new TextEncoder().encode(": ping\n\n");
const DONE = "data: [DONE]\n\n";

/** One event. */
export function sseEvent(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** The last event of a stream, as OpenAI's. */
export const SSE_DONE: string = DONE;

/** When comment lines tell a waiting client that all is well, in milliseconds. */
export interface PingTimes {
  /** The first one, when nothing was sent until then. */
  readonly firstMs: number;
  /** The others. */
  readonly everyMs: number;
}

/**
 * The body of an event stream from texts of whole events. When the client goes, `leave` is called and `source` closed; what
 * that throws breaks the stream, so it should turn errors into events itself.
 */
export function eventBody(
  source: AsyncGenerator<string>,
  { firstMs, everyMs }: PingTimes,
  leave: () => Promise<void>,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let waitMs = firstMs;
  /** When the client began to wait for the next text; undefined: it does not. */
  let sinceMs: number | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  // One timer that looks now and then, as one for each text costs more than the text.
  const watch = (controller: ReadableStreamDefaultController<Uint8Array>, ms: number) => {
    timer = setTimeout(() => {
      let leftMs = sinceMs === undefined ? waitMs : sinceMs + waitMs - performance.now();
      if (leftMs <= 0) {
        // None behind another that nobody has read yet.
        if ((controller.desiredSize ?? 0) >= 0) controller.enqueue(PING);
        sinceMs = performance.now();
        leftMs = waitMs = everyMs;
      }
      watch(controller, leftMs);
    }, ms);
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      sinceMs = performance.now();
      if (timer === undefined) watch(controller, waitMs);
      let isOpen = false;
      try {
        const next = await source.next();
        if (next.done) controller.close();
        else controller.enqueue(encoder.encode(next.value));
        isOpen = next.done !== true;
      } finally {
        sinceMs = undefined;
        if (!isOpen) clearTimeout(timer);
      }
    },
    async cancel() {
      clearTimeout(timer);
      // A generator that waits hears `return` only after what it waits for.
      await leave();
      await source.return(undefined);
    },
  }, { highWaterMark: 0 });
}

/** Headers of an event stream: nobody on the way may hold it back. */
export const SSE_HEADERS: Readonly<Record<string, string>> = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};
