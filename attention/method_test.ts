import { assertEquals, assertThrows } from "@std/assert";
import { it } from "@std/testing/bdd";
import { parseMethod } from "./method.ts";
import { resolveAttention } from "./mod.ts";

it("parseMethod() lays parameters and an index over a preset", () => {
  const plain = parseMethod("kvasir", { seed: "3" });
  assertEquals([plain.name, plain.options.preset], ["kvasir", "kvasir"]);
  assertEquals(resolveAttention(plain.options).params.seed, 3);
  const { options } = parseMethod("exact-topk:budget=7@lists:recall=0.9");
  assertEquals(options.index, "lists:recall=0.9");
  const { params } = resolveAttention(options);
  assertEquals([params.budget, params.sinks], [7, 128]);
  // Policies that do not draw have no seed to take.
  assertEquals(parseMethod("streaming-llm", { seed: "3" }).options.policy.includes("seed"), false);
  assertThrows(() => parseMethod("nope"), RangeError, "expected one of");
  assertThrows(() => parseMethod("kvasir:"), RangeError);
});
