/**
 * Carries requests to a host and replies back, from a worker or within the caller's thread.
 *
 * @module
 */
import type { EngineOptions } from "./types.ts";
import type { Loader } from "./loaded.ts";
import type { Reply, Request } from "./protocol.ts";

/** Shared with the worker, which hears no messages while it works: whether `open` is aborted, how many requests were sent. */
export const ABORTED = 0;
/** See {@link ABORTED}. */
export const SENT = 1;
/** How many of them end something: a step that keeps others waiting gives up for their sake. See {@link ABORTED}. */
export const ENDED = 2;
const FLAG_COUNT = 3;

/** A way to a host. */
export interface Link {
  /** Delivered in order. */
  send(request: Request): void;
  /** `open` looks at this while it works and hears no messages. */
  abort(): void;
  /** Ends the other side at once; nothing is heard any more. */
  close(): void;
}

/** Where a link delivers. */
export interface Receiver {
  /** In order. */
  reply(reply: Reply): void;
  /** The other side is gone. */
  crashed(error: Error): void;
}

/** A host in a worker of its own, so that steps never block the caller's thread. `script` is for tests. */
export function workerLink(to: Receiver, script: URL = new URL("./worker.ts", import.meta.url)): Link {
  const worker = new Worker(script, { type: "module", name: "kvasir" });
  const flags = new Int32Array(new SharedArrayBuffer(4 * FLAG_COUNT));
  worker.postMessage(flags);
  worker.onmessage = ({ data }: MessageEvent<Reply>) => to.reply(data);
  worker.onmessageerror = () => to.crashed(new Error("Cannot use engine: a message of its worker could not be read"));
  worker.onerror = (event) => {
    // Handled here: whoever waits is told, and the program decides.
    event.preventDefault();
    to.crashed(new Error(`Cannot use engine: its worker failed: ${event.message}`));
  };
  return {
    send: (request) => {
      if (request.type === "cancel" || request.type === "close") Atomics.add(flags, ENDED, 1);
      Atomics.add(flags, SENT, 1);
      worker.postMessage(request);
    },
    abort: () => void Atomics.store(flags, ABORTED, 1),
    close: () => worker.terminate(),
  };
}

/** A host on the caller's thread: for loaders, backends, index types and policies that are values, which cannot cross threads. */
export async function localLink(
  to: Receiver,
  load: Loader,
  own: Pick<EngineOptions, "backends" | "indexTypes" | "policies">,
): Promise<Link> {
  const [{ Host }, { localBreath }] = await Promise.all([import("./host.ts"), import("./breath.ts")]);
  const signal = { aborted: false };
  const host = new Host({ load, ...own, signal, post: (reply) => to.reply(reply), breath: localBreath });
  return {
    send: (request) => void host.handle(request),
    abort: () => void (signal.aborted = true),
    close: () => {},
  };
}
