/**
 * How the loop lets others be heard between two steps.
 *
 * A loop that only waits for messages to itself, the cheapest pause there is (some 10 µs), can starve everything else:
 * the runtime goes on to other sources of events only every 128 such messages (measured with Deno 2.9: a cancel came
 * through after 128 steps). Timers are fair, but cost 2 ms.
 *
 * @module
 */

/** Resolves when others had their turn. */
export type Breath = () => Promise<void>;

/** In a worker: `hasMail` knows, from shared memory, whether messages wait; only then is the fair pause worth its price. */
export function workerBreath(hasMail: () => boolean): Breath {
  const { port1, port2 } = new MessageChannel();
  let heard = () => {};
  port1.onmessage = () => heard();
  return async () => {
    await new Promise<void>((resolve) => {
      heard = resolve;
      port2.postMessage(0);
    });
    while (hasMail()) await new Promise((resolve) => setTimeout(resolve, 0));
  };
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
