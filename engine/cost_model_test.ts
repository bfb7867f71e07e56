import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { CostModel } from "./cost_model.ts";

const point = (length: number, msPerToken: number, buildMs = length ** 1.5 / 100) => ({
  length,
  msPerToken,
  buildMs,
  indexBytes: 40 * length,
});

Deno.test("costs that are a line are predicted exactly, between and beyond", () => {
  const number = { noNaN: true, min: Math.fround(0.01), max: 100 };
  fc.assert(fc.property(fc.float(number), fc.float(number), (a, b) => {
    const ms = (length: number) => a + b * length / 1000;
    const model = new CostModel([1024, 2048, 8192, 16384].map((length) => point(length, ms(length))));
    for (const length of [512, 1024, 1500, 8192, 16384, 32768, 131072]) {
      const predicted = model.at(length);
      assertAlmostEquals(predicted.msPerToken / ms(length), 1, 1e-6);
      assertAlmostEquals(predicted.indexBytes, 40 * length, 1e-3);
    }
    assertAlmostEquals(model.at(131072).buildMs / (131072 ** 1.5 / 100), 1, 1e-9);
  }));
});

Deno.test("a kink stays where it was measured, noise neither falls nor counts twice", () => {
  const model = new CostModel([point(1000, 9), point(3000, 11), point(4000, 8), point(16000, 20)]);
  assertEquals([model.at(3000).msPerToken, model.at(2000).msPerToken, model.at(10000).msPerToken], [11, 10, 14]);
  assertAlmostEquals(model.at(28000).msPerToken, 32, 1e-9);
  assert(new CostModel([point(1000, 9), point(2000, 8)]).at(1e6).msPerToken >= 8);
  assertEquals(new CostModel([point(1, 5), point(1, 50), point(1, 6), point(9, 6)]).at(1).msPerToken, 6);
  assertThrows(() => new CostModel([point(7, 1), point(7, 2)]), RangeError, "two at least");
});
