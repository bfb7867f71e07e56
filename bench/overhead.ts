/**
 * Share of a decode step that is spent outside native calls: `deno run -A bench/overhead.ts MODEL [depth] [steps] [backend]`.
 *
 * The whole turn of the engine's loop counts: scheduling, the model's forward pass, sampling, text, posting the event
 * (cloned as to another thread) and the yield. Every symbol of the library is wrapped in a clock as it is loaded. Half of
 * each pair of readings falls outside, which is one reading a call: half of the steps read once more a call, and the
 * difference is taken off. `clockedShare` still contains it.
 *
 * @module
 */
import { median } from "../core/median.ts";
import type { Reply } from "../engine/protocol.ts";
import { workerBreath } from "../engine/breath.ts";
import { Host } from "../engine/host.ts";
import { load } from "../engine/load.ts";

/** Milliseconds inside native calls so far, their number, whether to read the clock once more, what follows each read. */
const native = { ms: 0, calls: 0, isExtra: false, onRead: () => {} };

/**
 * Milliseconds of a steady clock. The runtime's own costs some 0.4 µs a reading, twice 400 times a step: more than what is
 * measured here. The C library's costs a tenth of that.
 */
const now: () => number = (() => {
  if (Deno.build.os !== "linux") return () => performance.now();
  const { symbols } = Deno.dlopen("libc.so.6", { clock_gettime: { parameters: ["i32", "buffer"], result: "i32" } });
  // struct timespec: seconds and nanoseconds, 64 bits each, of which the low halves suffice for differences.
  const time = new Int32Array(4);
  const monotonic = 1;
  return () => {
    symbols.clock_gettime(monotonic, time);
    return (time[0] as number) * 1e3 + (time[2] as number) / 1e6;
  };
})();

/** `f` with the same number of parameters, so that the engine compiles the call as it does without the clock. */
function clocked(f: CallableFunction, arity: number): unknown {
  const names = Array.from({ length: arity }, (_, i) => `a${i}`).join(", ");
  return new Function(
    "f",
    "native",
    "now",
    `return (${names}) => {
      if (native.isExtra) now();
      const start = now();
      const result = f(${names});
      native.ms += now() - start;
      native.calls++;
      return result;
    };`,
  )(f, native, now);
}

type Definitions = Readonly<Record<string, { readonly parameters: readonly unknown[] }>>;

/** From now on libraries are loaded with clocks. */
function clockLibraries(): void {
  const dlopen = Deno.dlopen as (path: string, definitions: Definitions) => {
    readonly symbols: Readonly<Record<string, CallableFunction>>;
    close(): void;
  };
  const patched = (path: string, definitions: Definitions) => {
    const library = dlopen(path, definitions);
    const symbols = Object.fromEntries(
      Object.entries(library.symbols).map(([name, f]) => {
        const timed = clocked(f, definitions[name]?.parameters.length ?? 0) as CallableFunction;
        if (name !== "kvasir_tensor_read") return [name, timed];
        return [name, (...args: unknown[]) => {
          const result = timed(...args);
          native.onRead();
          return result;
        }];
      }),
    );
    return { symbols, close: () => library.close() };
  };
  (Deno as { dlopen: unknown }).dlopen = patched;
}

interface StepTimes {
  readonly ms: number;
  readonly outsideMs: number;
  readonly calls: number;
  /** Whether the clock was read once more a call. */
  readonly isExtra: boolean;
}

/** Times of `steps` decode steps at `depth`. */
async function measure(model: string, depth: number, steps: number, backend: string): Promise<StepTimes[]> {
  const times: StepTimes[] = [];
  const { promise: done, resolve, reject } = Promise.withResolvers<void>();
  let last: { at: number; nativeMs: number; calls: number } | undefined;
  // The one read of a step ends it.
  native.onRead = () => {
    const at = now();
    if (last !== undefined) {
      const ms = at - last.at;
      times.push({
        ms,
        outsideMs: ms - (native.ms - last.nativeMs),
        calls: native.calls - last.calls,
        isExtra: native.isExtra,
      });
    }
    // Two by two: events may be posted every second step.
    native.isExtra = (times.length & 2) !== 0;
    last = { at, nativeMs: native.ms, calls: native.calls };
  };
  const heard = (reply: Reply): void => {
    structuredClone(reply);
    if (reply.type === "error") reject(new Error(reply.error.message));
    if (reply.type === "events" && reply.all[0]?.events.at(-1)?.type === "done") resolve();
  };
  const host = new Host({ load, post: heard, signal: { aborted: false }, breath: workerBreath });
  await host.handle({ type: "open", id: 1, options: { model, backend } });
  const prompt = Int32Array.from({ length: depth - (steps >> 1) }, (_, i) => 100 + (i * 7919) % 500);
  const sampling = { maxTokens: steps + 21, temperature: 0 };
  await host.handle({ type: "generate", id: 2, prompt, sampling, how: {} });
  await done;
  await host.handle({ type: "close", id: 3 });
  if (times.length < steps) throw new Error(`Cannot measure: the model ended after ${times.length} tokens`);
  // The first steps compile and fill step memory.
  return times.slice(-steps);
}

if (import.meta.main) {
  const [model, depth = "2048", steps = "200", backend = "cpu"] = Deno.args;
  if (model === undefined) throw new RangeError("Cannot measure: give a model file");
  clockLibraries();
  const times = await measure(model, Number(depth), 2 * Number(steps), backend);
  const plain = times.filter((t) => !t.isExtra);
  const outsideMs = median(plain.map((t) => t.outsideMs));
  const clockMs = median(times.filter((t) => t.isExtra).map((t) => t.outsideMs)) - outsideMs;
  console.log(JSON.stringify({
    bench: "overhead",
    model: model.slice(model.lastIndexOf("/") + 1),
    backend,
    depth: Number(depth),
    steps: plain.length,
    stepMs: median(plain.map((t) => t.ms)),
    outsideMs: outsideMs - clockMs,
    share: median(plain.map((t) => (t.outsideMs - clockMs) / (t.ms - 2 * clockMs))),
    clockedShare: median(plain.map((t) => t.outsideMs / t.ms)),
    clockMs,
    nativeCalls: median(plain.map((t) => t.calls)),
  }));
}
