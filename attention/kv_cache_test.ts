import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import type { Backend } from "../backends/backend.ts";
import type { LayerShape } from "../core/kv.ts";
import { openBackend } from "../backends/mod.ts";
import { KvCache, type KvType } from "./kv_cache.ts";

const SHAPES: LayerShape[] = [
  { heads: 2, kvHeads: 1, headDim: 4, scale: 1 },
  { heads: 2, kvHeads: 2, headDim: 2, scale: 1, slidingWindow: 3 },
];

/** Keys whose every element tells layer and position; values are their negatives. */
function rows(backend: Backend, layer: number, start: number, n: number, sign: number) {
  const { kvHeads, headDim } = SHAPES[layer] as LayerShape;
  const tensor = backend.alloc([n, kvHeads, headDim], "f32", "step");
  const size = kvHeads * headDim;
  backend.write(
    tensor,
    Float32Array.from({ length: n * size }, (_, i) => sign * (10 * (start + Math.floor(i / size)) + layer)),
  );
  return tensor;
}

describe("KvCache", () => {
  it("forks of forks hold whole segments of what they share, wherever they left each other", () => {
    const steps = fc.array(fc.record({ keep: fc.nat(99), grow: fc.integer({ min: 1, max: 40 }) }), { maxLength: 8 });
    fc.assert(fc.property(fc.integer({ min: 1, max: 70 }), steps, (first, forks) => {
      using backend = openBackend("reference");
      const all = [new KvCache(backend, SHAPES, "f32", 4200)];
      const grow = (cache: KvCache, n: number) => {
        const start = cache.length;
        cache.reserve(start + n);
        SHAPES.forEach((_, layer) =>
          cache.append(layer, rows(backend, layer, start, n, 1), rows(backend, layer, start, n, -1))
        );
        backend.endStep();
      };
      grow(all[0] as KvCache, first);
      for (const { keep, grow: n } of forks) {
        const from = all[keep % all.length] as KvCache;
        const fork = from.fork(1 + keep % from.length, 4200);
        grow(fork, n);
        all.push(fork);
      }
      for (const cache of all) {
        for (const { length, segments } of cache.layers) {
          assertEquals(segments.reduce((sum, { count }) => sum + count, 0), length);
          let at = 0;
          for (const segment of segments) {
            if (segment.count > 0) assertEquals(segment.start, at);
            at += segment.count;
          }
        }
      }
      for (const cache of all) cache[Symbol.dispose]();
      assertEquals(backend.bytes, 0);
    }));
  });

  it("append() fills segment after segment, in chunks of any size, and dispose() frees all", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 6 }), (chunks) => {
        using backend = openBackend("reference");
        const cache = new KvCache(backend, SHAPES, "f32", 4200);
        let length = 0;
        for (const n of chunks) {
          cache.reserve(length + n);
          SHAPES.forEach((_, layer) =>
            cache.append(layer, rows(backend, layer, length, n, 1), rows(backend, layer, length, n, -1))
          );
          backend.endStep();
          length += n;
        }
        for (const [layer, kv] of cache.layers.entries()) {
          assertEquals(kv.length, length);
          let at = 0;
          for (const segment of kv.segments) {
            assertEquals(segment.start, at);
            const [heads, capacity, dim] = segment.keys.shape as [number, number, number];
            assertEquals(segment.sealed, segment.count === capacity);
            const [keys, values] = [backend.read(segment.keys), backend.read(segment.values)];
            for (let h = 0; h < heads; h++) {
              for (const row of [0, segment.count >> 1, segment.count - 1].filter((r) => r >= 0 && r < segment.count)) {
                const i = (h * capacity + row) * dim;
                assertEquals([keys[i], values[i]], [10 * (at + row) + layer, -(10 * (at + row) + layer)]);
              }
            }
            at += segment.count;
          }
          assertEquals(at, length);
        }
        // An eighth ahead, and whole units.
        assert(cache.capacity - length < length / 8 + 256);
        cache[Symbol.dispose]();
        cache[Symbol.dispose]();
        assertEquals(backend.bytes, 0);
      }),
      { numRuns: 20 },
    );
  });

  it("reserve() makes room for a long prompt about as fast as its chunks come", () => {
    const size = fc.integer({ min: 1, max: 500 });
    const sizes = fc.oneof(size.map((n) => [n]), fc.array(size, { minLength: 2, maxLength: 8 }));
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 6000 }), (chunks, numExpected) => {
        using backend = openBackend("reference");
        const shapes = Array.from({ length: 30 }, () => SHAPES[0] as LayerShape);
        using cache = new KvCache(backend, shapes, "f32", 8000);
        const rowBytes = 30 * 2 * 4 * 4;
        let isLate = false;
        for (let length = 0, i = 0; length < numExpected; i++) {
          const n = Math.min(chunks[i % chunks.length] as number, numExpected - length);
          const before = backend.bytes;
          const { capacity } = cache;
          cache.reserve(length + n, numExpected);
          const grown = (backend.bytes - before) / rowBytes;
          // Twice what the chunk takes where segments become longer, and what is missing to a whole one: all of it where the chunk before
          // began a segment, for nothing is made ahead then, or was much smaller.
          const isPrepared = chunks.length === 1 && !isLate;
          assert(
            grown <= 2 * n + Math.max(512, length / (isPrepared ? 4 : 1.5)),
            `${n} tokens at ${length} of ${numExpected} took ${grown} rows`,
          );
          isLate = cache.capacity > capacity;
          for (const layer of shapes.keys()) {
            cache.append(layer, rows(backend, 0, length, n, 1), rows(backend, 0, length, n, -1));
          }
          backend.endStep();
          length += n;
          // The segment that follows is at most half as long as the cache; small chunks make it early.
          assert(cache.capacity >= length && cache.capacity <= 1.5 * length + 512);
          assert(backend.bytes <= rowBytes * (1.5 * cache.capacity + 512));
        }
        cache[Symbol.dispose]();
        assertEquals(backend.bytes, 0);
      }),
      { numRuns: 20 },
    );
  });

  it("stays small for a short context and has scales only with 8-bit rows", () => {
    const bytes: Record<KvType, number> = {
      f16: 2 * 2 * 2 * 256 * 4,
      f32: 2 * 2 * 4 * 256 * 4,
      i8: 2 * 2 * 256 * 4 + 2 * 3 * 256 * 4,
    };
    for (const type of ["f16", "f32", "i8"] as const) {
      using backend = openBackend("reference");
      using cache = new KvCache(backend, SHAPES, type, 4096);
      assertEquals(backend.bytes, 0);
      cache.reserve(1);
      assertEquals([cache.capacity, backend.bytes], [256, bytes[type]]);
      assertEquals(cache.layers[0]?.segments[0]?.keyScales !== undefined, type === "i8");
    }
  });

  it("refuses more than its maximum, and rows without room", () => {
    using backend = openBackend("reference");
    using cache = new KvCache(backend, SHAPES, "f32", 100);
    assertThrows(() => cache.reserve(101), RangeError, "101 tokens, its maximum is 100");
    cache.reserve(3);
    assertEquals(cache.capacity, 128);
    assertThrows(
      () => cache.append(0, rows(backend, 0, 0, 129, 1), rows(backend, 0, 0, 129, 1)),
      RangeError,
      "no room",
    );
  });

  it("reserve() frees what it took when memory runs out in the middle", () => {
    using backend = openBackend("reference");
    using cache = new KvCache(backend, SHAPES, "i8", 4096);
    cache.reserve(10);
    const before = backend.bytes;
    const alloc = backend.alloc.bind(backend);
    for (const at of [1, 2, 4, 6, 8]) {
      let calls = 0;
      backend.alloc = (...args) => {
        if (++calls === at) throw new RangeError("out of memory");
        return alloc(...args);
      };
      assertThrows(() => cache.reserve(257), RangeError, "out of memory");
      assertEquals([backend.bytes, cache.capacity], [before, 256]);
    }
    backend.alloc = alloc;
    cache.reserve(257);
    assertEquals(cache.capacity, 512);
  });
});
