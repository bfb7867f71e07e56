/**
 * Serves an engine from inside a worker. The first message is memory shared with the caller (engine/link.ts), the others
 * are requests.
 *
 * @module
 */
import type { Loader } from "./loaded.ts";
import type { Request } from "./protocol.ts";
import { workerBreath } from "./breath.ts";
import { Host } from "./host.ts";
import { ABORTED, ENDED, SENT } from "./link.ts";

/** The part of a dedicated worker's global scope that is used; the checker knows only the window's. */
interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
}

/** Answers requests from now on, with models from `load`. */
export function serve(load: Loader): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data: flags }: MessageEvent<Int32Array>) => {
    let numHeard = 0;
    let numEndsHeard = 0;
    const signal = {
      get aborted(): boolean {
        return Atomics.load(flags, ABORTED) !== 0;
      },
    };
    const breath = (isPreparing: () => boolean) =>
      workerBreath(() => Atomics.load(flags, SENT) !== numHeard || isPreparing());
    const isInterrupted = () => Atomics.load(flags, ENDED) !== numEndsHeard;
    const host = new Host({ load, signal, breath, isInterrupted, post: (reply) => scope.postMessage(reply) });
    scope.onmessage = ({ data: request }: MessageEvent<Request>) => {
      numHeard++;
      if (request.type === "cancel" || request.type === "close") numEndsHeard++;
      void host.handle(request);
    };
  };
}
