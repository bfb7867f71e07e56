/**
 * A `kvasir serve` of one's own, or a rival's server, for benches that look at it from outside.
 *
 * @module
 */
const ROOT = new URL("..", import.meta.url).pathname;

/** A running server. */
export interface ServerProcess extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  /** What it has written so far. */
  readonly output: string[];
  /** Milliseconds from its start until it answered. */
  readonly startMs: number;
  /** Resident bytes. */
  memory(): number;
  /** Processor seconds that it has used, all its threads together: what others on the machine hardly change. */
  cpuSeconds(): number;
  /** Ends it as the kernel would. */
  kill(): Promise<void>;
}

/** Starts one and waits until it answers. Throws when it ends before. */
export function startServer(args: readonly string[], port = 5899): Promise<ServerProcess> {
  return startProcess(`${ROOT}kvasir`, ["serve", "--port", String(port), ...args], port);
}

/** The same with any server that has `/health`, told its port by its arguments. */
export async function startProcess(command: string, args: readonly string[], port: number): Promise<ServerProcess> {
  const output: string[] = [];
  const startedMs = performance.now();
  const child = new Deno.Command(command, {
    args: [...args],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let ended = false;
  void child.status.then(() => ended = true);
  const read = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) output.push(text);
  })();
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    if (ended) throw new Error(`Cannot start server: ${output.join("")}`);
    const isUp = await fetch(`${url}/health`).then(async (r) => (await r.text(), r.ok), () => false);
    if (isUp) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const end = async (signal: Deno.Signal) => {
    if (!ended) child.kill(signal);
    await child.status;
    await read;
  };
  return {
    url,
    pid: child.pid,
    output,
    startMs: performance.now() - startedMs,
    memory: () => {
      const status = Deno.readTextFileSync(`/proc/${child.pid}/status`);
      return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
    },
    cpuSeconds: () => {
      const stat = Deno.readTextFileSync(`/proc/${child.pid}/stat`);
      // Behind the name, which may hold anything: user and system time are fields 14 and 15, in hundredths.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return (Number(fields[11]) + Number(fields[12])) / 100;
    },
    kill: () => end("SIGKILL"),
    [Symbol.asyncDispose]: () => end("SIGTERM"),
  };
}
