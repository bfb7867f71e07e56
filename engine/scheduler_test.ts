import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { type Batch, Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";

function prompt(length: number): number[] {
  return Array.from({ length }, (_, i) => i % 7);
}

function sizes(batch: Batch | undefined): [number, number, boolean][] {
  return (batch?.rows ?? []).map((r) => [r.sequence.id, r.numTokens, r.samples]);
}

/** What a run must uphold, however it is driven. */
function checkBatch(batch: Batch, limits: { maxRunning: number; maxBatchTokens: number }, chunk: number): void {
  const total = batch.rows.reduce((sum, r) => sum + r.numTokens, 0);
  assertEquals(batch.numTokens, total);
  assert(total >= 1 && total <= limits.maxBatchTokens, `${total} tokens`);
  assert(batch.rows.length <= limits.maxRunning);
  assertEquals(new Set(batch.rows.map((r) => r.sequence)).size, batch.rows.length);
  const samples = batch.rows.map((r) => r.samples);
  assertEquals(batch.numSamples, samples.filter((s) => s).length);
  for (const [i, row] of batch.rows.entries()) {
    assertEquals(row.start, row.sequence.numCachedTokens);
    assertEquals(row.sequence.state, "running");
    assertEquals(row.samples, row.numTokens === row.sequence.numPendingTokens);
    if (i > 0) assert(row.samples && row.numTokens === 1, "only the first row may be a chunk");
    assert(row.numTokens <= Math.max(1, chunk) || (row.samples && row.numTokens <= 1.2 * chunk));
  }
}

describe("Scheduler", () => {
  it("next() runs a prompt in chunks and samples after the last", () => {
    const scheduler = new Scheduler({ maxRunning: 2, maxBatchTokens: 4, maxCachedTokens: 100 });
    const sequence = new Sequence(1, prompt(9), 20);
    scheduler.add(sequence);
    const seen: [number, number, boolean][] = [];
    for (let i = 0; i < 4; i++) {
      const batch = scheduler.next(100) as Batch;
      seen.push(...sizes(batch));
      scheduler.finish(batch, batch.numSamples === 1 ? [42] : []);
    }
    assertEquals(seen, [[1, 4, false], [1, 4, false], [1, 1, true], [1, 1, true]]);
    assertEquals(sequence.tokens.slice(9), [42, 42]);
  });

  it("next() keeps decoding between the chunks of a long prompt", () => {
    const scheduler = new Scheduler({ maxRunning: 2, maxBatchTokens: 8, maxCachedTokens: 100 });
    scheduler.add(new Sequence(1, prompt(1), 20));
    scheduler.add(new Sequence(2, prompt(10), 20));
    const batch = scheduler.next(6) as Batch;
    assertEquals(sizes(batch), [[2, 6, false], [1, 1, true]]);
    assertEquals([batch.numTokens, batch.numChunkTokens, batch.numSamples], [7, 6, 1]);
    scheduler.finish(batch, [5]);
    assertEquals(sizes(scheduler.next(6)), [[2, 4, true], [1, 1, true]]);
  });

  it("next() takes what is left of a prompt where it is little more than a chunk", () => {
    const scheduler = new Scheduler({ maxRunning: 2, maxBatchTokens: 64, maxCachedTokens: 200 });
    scheduler.add(new Sequence(1, prompt(22), 30));
    const seen: [number, number, boolean][] = [];
    for (let i = 0; i < 2; i++) {
      const batch = scheduler.next(10) as Batch;
      seen.push(...sizes(batch));
      scheduler.finish(batch, batch.numSamples === 1 ? [42] : []);
    }
    assertEquals(seen, [[1, 10, false], [1, 12, true]]);
    scheduler.add(new Sequence(2, prompt(13), 30));
    assertEquals(sizes(scheduler.next(10))[0], [2, 10, false]);
    // Where the step has no room for all that is left, a chunk is as long as any.
    const narrow = new Scheduler({ maxRunning: 2, maxBatchTokens: 17, maxCachedTokens: 200 });
    for (const [id, length] of [[1, 1], [2, 17]] as const) narrow.add(new Sequence(id, prompt(length), 30));
    assertEquals(sizes(narrow.next(15)), [[2, 15, false], [1, 1, true]]);
  });

  it("next() admits in order, as far as the cache has room", () => {
    const scheduler = new Scheduler({ maxRunning: 4, maxBatchTokens: 64, maxCachedTokens: 30 });
    const [a, b, c] = [new Sequence(1, prompt(2), 20), new Sequence(2, prompt(2), 20), new Sequence(3, prompt(2), 5)];
    for (const s of [a, b, c]) scheduler.add(s);
    scheduler.next(64);
    // The third would fit, but the second came first.
    assertEquals([a.state, b.state, c.state], ["running", "waiting", "waiting"]);
    scheduler.remove(a);
    scheduler.next(64);
    assertEquals([a.state, b.state, c.state], ["ended", "running", "running"]);
  });

  it("add() refuses a sequence that can never run", () => {
    const scheduler = new Scheduler({ maxRunning: 1, maxBatchTokens: 1, maxCachedTokens: 10 });
    assertThrows(() => scheduler.add(new Sequence(1, prompt(2), 11)), RangeError, "may hold 11 tokens");
    assertThrows(
      () => new Scheduler({ maxRunning: 0, maxBatchTokens: 1, maxCachedTokens: 1 }),
      RangeError,
      "maxRunning",
    );
  });

  it("every sequence finishes or is freed by its cancel, within all limits, first come first served", () => {
    const request = fc.record({
      prompt: fc.integer({ min: 1, max: 40 }),
      output: fc.integer({ min: 1, max: 12 }),
      arrives: fc.integer({ min: 0, max: 30 }),
      cancel: fc.option(fc.integer({ min: 0, max: 40 })),
    });
    fc.assert(fc.property(
      fc.array(request, { maxLength: 9 }),
      fc.record({ maxRunning: fc.integer({ min: 1, max: 5 }), maxBatchTokens: fc.integer({ min: 1, max: 24 }) }),
      fc.array(fc.integer({ min: 0, max: 24 }), { minLength: 1, maxLength: 5 }),
      (requests, base, chunks) => {
        const limits = { ...base, maxCachedTokens: 80 };
        const scheduler = new Scheduler(limits);
        const all = requests.map((r, i) => new Sequence(i, prompt(r.prompt), r.prompt + r.output));
        const admitted: number[] = [];
        const arrival: number[] = [];
        for (let step = 0; step < 2000; step++) {
          requests.forEach((r, i) => {
            if (r.arrives === step) {
              scheduler.add(all[i] as Sequence);
              arrival.push(i);
            }
            if (r.cancel !== null && step === r.arrives + r.cancel) scheduler.remove(all[i] as Sequence);
          });
          const chunk = chunks[step % chunks.length] as number;
          const before = all.map((s) => s.numTokens);
          const batch = scheduler.next(chunk);
          if (batch === undefined) {
            if (step > 30) break;
            continue;
          }
          checkBatch(batch, limits, chunk);
          for (const i of arrival) if (all[i]?.state === "running" && !admitted.includes(i)) admitted.push(i);
          // Every running sequence with one pending token decodes in every step.
          const inBatch = new Set(batch.rows.map((r) => r.sequence));
          for (const s of all) if (s.state === "running" && s.numPendingTokens === 1) assert(inBatch.has(s));
          scheduler.finish(batch, new Array(batch.numSamples).fill(7));
          const cached = all.filter((s) => s.state === "running").reduce((sum, s) => sum + s.numCachedTokens, 0);
          assert(cached <= limits.maxCachedTokens);
          for (const s of all) {
            const sampled = batch.rows.some((r) => r.sequence === s && r.samples);
            assertEquals(s.numTokens - (before[s.id] as number), sampled ? 1 : 0);
            if (s.isFull) scheduler.remove(s);
          }
        }
        assertEquals([scheduler.numWaiting, scheduler.numRunning], [0, 0]);
        const order = arrival.filter((i) => admitted.includes(i));
        assertEquals(admitted, order);
        requests.forEach((r, i) => {
          const s = all[i] as Sequence;
          assertEquals(s.state, "ended");
          if (r.cancel === null) assertEquals(s.numOutputTokens, r.output);
        });
      },
    ));
  });

  it("reads short prompts before long ones, and the oldest all the same", () => {
    const scheduler = new Scheduler({ maxRunning: 8, maxBatchTokens: 64, maxCachedTokens: 10_000 });
    const add = (id: number, length: number) => scheduler.add(new Sequence(id, prompt(length), length + 1));
    add(0, 1000);
    const chunks: number[] = [];
    for (let step = 0; step < 20; step++) {
      if (step > 0) add(step, 13);
      const batch = scheduler.next(10) as Batch;
      chunks.push(batch.rows[0]?.sequence.id as number);
      scheduler.finish(batch, new Array(batch.numSamples).fill(7));
      for (const { sequence } of batch.rows) if (sequence.isFull) scheduler.remove(sequence);
    }
    assertEquals(chunks.filter((id) => id === 0).length, 6);
    assertEquals(chunks.slice(0, 9), [0, 1, 1, 0, 2, 2, 3, 0, 3]);
  });
});
