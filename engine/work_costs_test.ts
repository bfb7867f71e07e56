import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { WorkCosts, type WorkPoint } from "./work_costs.ts";

/** Milliseconds of a machine: for a token, a MB of rows, a MB of an index. */
type Rates = readonly [number, number, number];

/** What a machine of these rates would measure; `factor` is the method's own. */
function point(
  { rates: [constant, row, read], method, length, factor = 1 }: {
    rates: Rates;
    method: "full" | "scan" | "window";
    length: number;
    factor?: number;
  },
): WorkPoint {
  const rowBytes = method === "full" ? 20000 * length : 1e7;
  const readBytes = method === "scan" ? 3000 * length : 0;
  const exactMs = constant + row * 0.02 * length;
  const ms = factor * (constant + row * rowBytes / 1e6 + read * readBytes / 1e6);
  return {
    method,
    length,
    exactMs,
    ratio: exactMs / ms,
    rowBytes,
    readBytes,
    buildMs: length / 100,
    indexBytes: 5000 * length,
    isBuilt: false,
  };
}

Deno.test("times that follow what is read are told exactly, at lengths between and beyond", () => {
  const rate = fc.double({ min: 0.01, max: 3, noNaN: true });
  fc.assert(
    fc.property(rate, rate, rate, fc.double({ min: 0.5, max: 2, noNaN: true }), (constant, row, read, factor) => {
      const rates = [constant, row, read] as const;
      const points = [2000, 5000, 9000].flatMap((length) =>
        (["full", "scan", "window"] as const).map((method) => point({ rates, method, length }))
      );
      const costs = new WorkCosts(points);
      for (const length of [500, 3000, 9000, 100000]) {
        for (const method of ["full", "scan", "window"] as const) {
          const { exactMs, ratio } = point({ rates, method, length });
          assertAlmostEquals(costs.at(method, length).msPerToken / (exactMs / ratio), 1, 1e-6);
        }
        assertAlmostEquals(costs.at("scan", length).indexBytes / (5000 * length), 1, 1e-9);
      }
      // A method that is slower throughout keeps its factor, whatever others do.
      const slow = new WorkCosts(points.map((p) => p.method === "scan" ? { ...p, ratio: p.ratio / factor } : p));
      const { exactMs, ratio } = point({ rates, method: "scan", length: 5000 });
      assertAlmostEquals(slow.at("scan", 5000).msPerToken / (factor * exactMs / ratio), 1, 1e-6);
    }),
  );
});

Deno.test("lengths at which nothing is built, and those at which something is, are told apart", () => {
  const rates = [1, 0.1, 1] as const;
  const scanned = [1000, 2000].map((length) => point({ rates, method: "scan", length }));
  const built = [4000, 8000].map((length) => ({
    ...point({ rates, method: "window", length, factor: 9 }),
    isBuilt: true,
  }));
  const points = [...scanned, ...built.map((p) => ({ ...p, method: "scan" }))];
  const costs = new WorkCosts(points);
  assert(costs.at("scan", 1500).msPerToken < 10 && costs.at("scan", 3000).msPerToken > 15);
  const few = new WorkCosts(points.slice(1));
  assertEquals([1000, 2000, 2001].map((length) => few.tells("scan", length)), [false, false, true]);
});

Deno.test("no byte takes less than nothing, and what nothing is known about is refused", () => {
  const rates = [1, 0.1, 1] as const;
  // Longer prompts that take less, as a busy machine has it.
  const noisy = [2000, 4000, 8000].flatMap((length, i) =>
    (["full", "scan"] as const).map((method) => ({ ...point({ rates, method, length }), exactMs: 9 - i }))
  );
  const costs = new WorkCosts(noisy);
  for (const method of ["full", "scan"]) assert(costs.at(method, 1e6).msPerToken > 0, method);
  assert(costs.exactMs(1e6) > 0);
  const single = new WorkCosts([point({ rates, method: "full", length: 2000 })]);
  assertEquals([single.tells("full", 9), single.tells("scan", 9)], [false, false]);

  assertThrows(() => single.at("scan", 1000), RangeError);
  assertThrows(() => new WorkCosts([]), RangeError, "nothing was measured");
  assertThrows(() => new WorkCosts([{ ...(noisy[0] as WorkPoint), ratio: 0 }]), RangeError, "not above zero");
});
