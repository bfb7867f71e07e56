/**
 * The worker that an engine's loop runs in. The first message is the abort flag of `open`, the others are requests.
 *
 * @module
 */
import type { Request } from "./protocol.ts";
import { Host } from "./host.ts";
import { load } from "./load.ts";

/** The part of a dedicated worker's global scope that is used; the checker knows only the window's. */
interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = ({ data: flag }: MessageEvent<Int32Array>) => {
  const signal = {
    get aborted(): boolean {
      return Atomics.load(flag, 0) !== 0;
    },
  };
  const host = new Host({ load, signal, post: (reply) => scope.postMessage(reply) });
  scope.onmessage = ({ data: request }: MessageEvent<Request>) => void host.handle(request);
};
