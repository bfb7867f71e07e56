/**
 * What indexes take while a model runs.
 *
 * @module
 */
import type { LayerPolicy } from "../attention/policy.ts";
import type { SequenceState } from "../attention/state.ts";

/** From now on, milliseconds that the state's policies spent on what tokens ask, and on keys that join the index. */
export function timeInserting(state: SequenceState): () => number {
  let ms = 0;
  for (const policy of state.policies as readonly (LayerPolicy | undefined)[]) {
    if (policy === undefined) continue;
    for (const name of ["advance", "observe"] as const) {
      const own = policy[name]?.bind(policy) as ((x: never) => void) | undefined;
      if (own === undefined) continue;
      policy[name] = (x: never) => {
        const start = performance.now();
        own(x);
        ms += performance.now() - start;
      };
    }
  }
  return () => ms;
}
