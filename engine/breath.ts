/**
 * How the loop lets others be heard between two steps.
 *
 * Waiting for a message to oneself, the cheapest turn of the event loop there is, can starve everything else: the runtime
 * goes on to other sources of events only every 128 such messages (measured with Deno 2.9: a cancel came through after
 * 128 steps). Timers are fair, but cost 2 ms.
 *
 * @module
 */

/** Nothing, when nobody waits; else resolves when others had their turn. */
export type Breath = () => Promise<void> | undefined;

/** In a worker: `hasMail` knows, from shared memory, whether messages wait. Only then does the event loop turn at all. */
export function workerBreath(hasMail: () => boolean): Breath {
  return () => hasMail() ? untilFalse(hasMail) : undefined;
}

async function untilFalse(hasMail: () => boolean): Promise<void> {
  do await new Promise((resolve) => setTimeout(resolve, 0)); while (hasMail());
}

/** On the caller's thread: a fresh channel each time (some 50 µs) is heard in order with the rest of the program. */
export function localBreath(): Breath {
  return () =>
    new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        port2.close();
        resolve();
      };
      port2.postMessage(0);
    });
}
