/**
 * An index type from outside, as `--plugin` takes it: `recent` finds the newest tokens, whatever is asked.
 *
 * @module
 */
import type { KvLayer } from "../core/kv.ts";
import type { IndexType, KvIndex } from "../index/index.ts";

/** What a plugin exports. */
export const indexTypes: Readonly<Record<string, IndexType>> = {
  recent: {
    summary: "the newest tokens, whatever is asked",
    defaults: { most: 1000 },
    create: (kv, { most }, on) => recent(kv, Number(most), on),
    map: (path) => {
      throw new RangeError(`Cannot open index "${path}": recent keeps nothing that a file could hold`);
    },
  },
};

function recent(kv: KvLayer, most: number, on: Parameters<IndexType["create"]>[2], from = 0, end = 0): KvIndex {
  let added = end;
  let first = from;
  return {
    add({ start, count }) {
      if (added === 0) first = start;
      added = start + count;
    },
    commit: () => end = added,
    settle: () => {},
    search(out, _q, goal) {
      const { heads, kvHeads } = kv.shape;
      const rows = "error" in goal ? kvHeads : heads;
      const count = Math.min(most, "error" in goal ? most : goal.topk, end - first);
      out.reserve(rows, count);
      const capacity = out.tokens.shape[1] as number;
      const tokens = Int32Array.from({ length: rows * capacity }, (_, i) => end - count + i % capacity);
      on.write(out.tokens, tokens);
      on.write(out.bias, new Float32Array(tokens.length));
      on.write(out.counts, new Int32Array(rows).fill(count));
      on.write(out.estimatedError, new Float32Array(rows).fill(NaN));
      // It vouches for nothing, and says so.
      Object.assign(out.report, { certificate: "none", keysScored: 0, keysKept: rows * count, bytesRead: 0 });
      out.report.expectedRecall = NaN;
    },
    fork: (to) => recent(to, most, on, first, end),
    save: (path) => {
      throw new RangeError(`Cannot save index "${path}": recent keeps nothing that a file could hold`);
    },
    stats: () => ({
      tokens: added - first,
      bytes: 0,
      pendingTokens: 0,
      buildSeconds: 0,
      insertedTokens: 0,
      decisions: [],
    }),
    [Symbol.dispose]: () => {},
  };
}
