import { assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { addTimes, StepClock } from "./step_clock.ts";

describe("StepClock", () => {
  it("gives each part what is its own, and the rest to the model", () => {
    let now = 100;
    const clock = new StepClock(() => now);
    const takes = (ms: number) => () => {
      now += ms;
      return ms;
    };
    takes(1)();
    const found = clock.attend(() => {
      takes(2)();
      return clock.search(takes(4)) + clock.search(takes(8));
    });
    clock.attend(takes(16));
    takes(32)();
    clock.sample(takes(64));
    assertEquals(found, 12);
    const times = clock.times();
    assertEquals(times, { steps: 1, searchMs: 12, attendMs: 18, modelMs: 33, sampleMs: 64 });
    assertEquals(addTimes(undefined, times), times);
    assertEquals(addTimes(times, times), { steps: 2, searchMs: 24, attendMs: 36, modelMs: 66, sampleMs: 128 });
  });
});
