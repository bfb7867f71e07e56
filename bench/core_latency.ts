/**
 * How long a line of memory takes between two threads that run at once: some 80 to 140 ns there and back where their CPUs share a cache,
 * 350 and more where they do not. A virtual machine's host moves them about, and what threads pass to each other costs accordingly.
 *
 * @module
 */
import { median } from "../core/median.ts";

const ROUNDS = 7;
const TURNS = 20_000;

/** Answers each odd number with the next one, until it is negative. */
const PARTNER = `onmessage = ({ data: line }) => {
  postMessage("ready");
  for (let turn = 1; ; turn += 2) {
    let seen;
    while ((seen = Atomics.load(line, 0)) !== turn) if (seen < 0) return close();
    Atomics.store(line, 0, turn + 1);
  }
};`;

/** Nanoseconds there and back, the median of some rounds. */
export async function coreLatency(): Promise<number> {
  const line = new Int32Array(new SharedArrayBuffer(128));
  const url = URL.createObjectURL(new Blob([PARTNER], { type: "text/javascript" }));
  const partner = new Worker(url, { type: "module" });
  try {
    await new Promise((resolve, reject) => {
      partner.onmessage = resolve;
      partner.onerror = reject;
      partner.postMessage(line);
    });
    const times: number[] = [];
    for (let round = 0, turn = 1; round < ROUNDS; round++) {
      const start = performance.now();
      for (let i = 0; i < TURNS; i++, turn += 2) {
        Atomics.store(line, 0, turn);
        while (Atomics.load(line, 0) !== turn + 1);
      }
      times.push((performance.now() - start) / TURNS * 1e6);
    }
    return median(times);
  } finally {
    Atomics.store(line, 0, -1);
    partner.terminate();
    URL.revokeObjectURL(url);
  }
}
