import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { Pacer } from "./pacer.ts";

describe("Pacer", () => {
  it("keeps chunks of a deepening prompt near 170 ms, whatever the machine's speed", () => {
    fc.assert(fc.property(
      fc.double({ min: 0.01, max: 40, noNaN: true }),
      fc.double({ min: 0, max: 1e-4, noNaN: true }),
      (msPerToken, perDepth) => {
        const pacer = new Pacer(2048);
        let depth = 0;
        for (let i = 0; depth < 7000 && i < 200; i++) {
          const n = pacer.chunkTokens(false);
          const ms = n * msPerToken * (1 + perDepth * (depth + n / 2));
          if (i > 0 && n > 1) assert(ms < 290, `chunk ${i} of ${n} tokens takes ${ms} ms`);
          if (i > 2 && n < 2048 && n > 1) assert(ms > 80, `chunk ${i} of ${n} tokens takes only ${ms} ms`);
          pacer.record(n, ms);
          depth += n;
        }
      },
    ));
  });

  it("lets nobody wait 300 ms where the machine takes 1.45 times as long between two chunks, and later no more", () => {
    const speeds = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 });
    fc.assert(fc.property(
      fc.double({ min: 0.05, max: 4, noNaN: true }),
      fc.double({ min: 0, max: 1e-4, noNaN: true }),
      speeds,
      (msPerToken, perDepth, lengths) => {
        const pacer = new Pacer(2048);
        for (let depth = 0, i = 0, left = 3, phase = 0; depth < 7000 && i < 300; i++) {
          const n = pacer.chunkTokens(false);
          const ms = n * msPerToken * (1 + perDepth * (depth + n / 2)) * (phase % 2 === 0 ? 1 : 1.45);
          if (i > 1) assert(ms < 300, `chunk ${i} of ${n} tokens takes ${ms} ms`);
          pacer.record(n, ms);
          depth += n;
          if (--left === 0) left = lengths[phase++ % lengths.length] as number;
        }
      },
    ));
  });

  it("does not shrink chunks for what a step takes anyway", () => {
    fc.assert(fc.property(
      fc.double({ min: 0, max: 250, noNaN: true }),
      fc.double({ min: 0.01, max: 8, noNaN: true }),
      (fixed, msPerToken) => {
        const pacer = new Pacer(2048);
        const msOf = (n: number) => fixed + n * msPerToken;
        let tokens = 0;
        let ms = 0;
        for (let i = 0; i < 60; i++) {
          const n = pacer.chunkTokens(false);
          if (i > 0 && i <= 40 && msOf(32) < 249) {
            assert(n >= 32, `chunk ${i} has ${n} tokens, 32 would take ${msOf(32)} ms`);
          }
          if (i > 40) tokens += n, ms += msOf(n);
          if (i > 3) assert(msOf(n) < Math.max(290, msOf(32) + 1), `chunk ${i} of ${n} tokens takes ${msOf(n)} ms`);
          pacer.record(n, msOf(n));
        }
        // Nor where a tile is too long: a token costs at most some times what it would in one.
        assert(ms / tokens < 3 * msOf(32) / 32, `${tokens} tokens take ${ms} ms`);
      },
    ));
  });

  it("tries a tile again when the machine is less busy", () => {
    const pacer = new Pacer(2048);
    for (let i = 0; i < 5; i++) pacer.record(32, 1000);
    assertEquals(pacer.chunkTokens(false), 5);
    for (let i = 0; i < 5; i++) pacer.record(pacer.chunkTokens(false), 170);
    assertEquals(pacer.chunkTokens(false), 5);
    // What remains is what a step takes anyway.
    pacer.record(3, 170);
    assertEquals(pacer.chunkTokens(false), 32);
    for (let i = 0; i < 5; i++) pacer.record(32, 250);
    assertEquals(pacer.chunkTokens(false), 32);
  });

  it("gives longer chunks to a prompt that is alone", () => {
    const pacer = new Pacer(2048);
    pacer.record(32, 32);
    assertEquals([pacer.chunkTokens(false), pacer.chunkTokens(true)], [160, 672]);
  });

  it("gives whole tiles, at least a token, at most the batch", () => {
    const pacer = new Pacer(100);
    assertEquals(pacer.chunkTokens(false), 32);
    // What a short prompt takes is no measure.
    pacer.record(5, 30);
    assertEquals(pacer.chunkTokens(false), 32);
    pacer.record(64, 1);
    assertEquals(pacer.chunkTokens(false), 100);
    for (let i = 0; i < 20; i++) pacer.record(60, 120);
    assertEquals(pacer.chunkTokens(false), 64);
    for (let i = 0; i < 20; i++) pacer.record(1, 1e6);
    assertEquals(pacer.chunkTokens(false), 1);
    pacer.record(0, 5);
    assertEquals(pacer.chunkTokens(false), 1);
  });
});
