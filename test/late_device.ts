/**
 * A backend as a device with one stream: kernels and writes are queued, and done when somebody waits for what comes behind them.
 *
 * @module
 */
import type { Backend, Fetched, Kernels } from "../backends/backend.ts";
import { Unsupported } from "../core/errors.ts";

/** What was done, in order, by name; fetches that are under way; how often the host waited. */
export interface LateLog {
  readonly done: string[];
  fetches: number;
  waits: number;
}

interface Step {
  readonly name: string;
  readonly body: () => void;
}

/** See the module's head. Step memory is given back by `endStep` alone. `refuse`: throws at a call of that name. */
export function lateDevice(inner: Backend, log: LateLog, refuse: (name: string) => void = () => {}): Backend {
  const queue: Step[] = [];
  const add = (name: string, body: () => void) => {
    refuse(name);
    const step = { name, body };
    queue.push(step);
    return step;
  };
  const runTo = (last: Step | undefined) => {
    while (last !== undefined && queue.includes(last)) {
      const step = queue.shift() as Step;
      step.body();
      log.done.push(step.name);
    }
  };
  const kernels = Object.fromEntries(
    Object.entries(inner.kernels).map(([name, kernel]) => [name, (...args: unknown[]) => {
      // As a launch has them: what the caller does to its lists afterwards is nothing to it.
      const kept = args.map(copied);
      add(name, () => void (kernel as (...args: unknown[]) => unknown).apply(inner.kernels, kept));
    }]),
  );
  return {
    get spec() {
      return inner.spec;
    },
    get bytes() {
      runTo(queue.at(-1));
      return inner.bytes;
    },
    kernels: kernels as unknown as Kernels,
    alloc: (shape, dtype, life) => inner.alloc(shape, dtype, life),
    free: (tensor) => void add("free", () => inner.free(tensor)),
    view: (tensor, shape, offset) => inner.view(tensor, shape, offset),
    write(dst, src, row) {
      const bytes = new Uint8Array(src.buffer, src.byteOffset, src.byteLength).slice();
      add("write", () => inner.write(dst, bytes, row));
    },
    read(src) {
      log.waits++;
      runTo(queue.at(-1));
      return inner.read(src);
    },
    fetch(src): Fetched {
      let data: ReturnType<Backend["read"]> | undefined;
      const step = add("fetch", () => void (data = inner.read(src)));
      log.fetches++;
      let isUnderWay = true;
      const end = () => {
        if (isUnderWay) log.fetches--;
        isUnderWay = false;
      };
      return {
        take: () => {
          end();
          log.waits++;
          runTo(step);
          return data as ReturnType<Backend["read"]>;
        },
        [Symbol.dispose]: end,
      };
    },
    readRows(src, row, out) {
      log.waits++;
      runTo(queue.at(-1));
      if (inner.readRows === undefined) throw new Unsupported("Cannot read rows");
      inner.readRows(src, row, out);
    },
    mark: () => inner.mark(),
    release: () => {},
    endStep() {
      runTo(queue.at(-1));
      inner.endStep();
    },
    [Symbol.dispose]() {
      runTo(queue.at(-1));
      inner[Symbol.dispose]();
    },
  };
}

/** Lists and plain objects of an argument, copied; tensors are what they are. */
function copied(x: unknown): unknown {
  if (ArrayBuffer.isView(x)) return (x as Uint8Array).slice();
  if (Array.isArray(x)) return x.map(copied);
  if (typeof x !== "object" || x === null || Object.getPrototypeOf(x) !== Object.prototype) return x;
  return Object.fromEntries(Object.entries(x).map(([key, value]) => [key, copied(value)]));
}
