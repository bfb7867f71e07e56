import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import os from "node:os";
import { UsageError } from "./exit.ts";
import { fitMeasured, measuredName } from "./measured.ts";

const place = { backend: "cpu:threads=2", modelHash: "abc" };
const line = (length: number, ms: number, other: object = {}) =>
  JSON.stringify({
    kind: "cell",
    spec: { ...place, policy: "retrieval:error=0.05", index: "flat", length },
    machine: { cpu: os.cpus()[0]?.model, cores: navigator.hardwareConcurrency },
    speed: { exactMs: 20, ratio: [20 / ms, 1, 1] },
    build: { settleMs: 1 },
    memory: { index: 10 * length, weights: 5e8 },
    work: { rowBytes: 1e6, indexBytes: 20 * length },
    ...other,
  });

Deno.test("plans go by what the matrix measured on this machine, model and backend", () => {
  const name = measuredName("retrieval:error=0.05", "flat");
  const foreign = [
    line(2000, 999, { machine: { cpu: "another", cores: 1 } }),
    line(2000, 999, {
      spec: { ...place, modelHash: "x", policy: "retrieval:error=0.05", index: "flat", length: 2000 },
    }),
    line(2000, 999, { spec: { ...place, policy: "full", index: "", length: 2000 } }),
    '{"kind":"note"}',
  ];
  const text = [line(1000, 10), line(3000, 14), ...foreign, ""].join("\n");
  const { costs, weights } = fitMeasured(text, "r.jsonl", place);
  assertEquals([costs.tells(name, 5000), costs.tells(measuredName("full", ""), 5000), weights], [true, false, 5e8]);
  // Nearly: what else was measured of the model has a say.
  assertAlmostEquals(costs.at(name, 5000).msPerToken, 18, 0.1);
  assertEquals(costs.at(name, 2000).indexBytes, 20000);
});

Deno.test("what holds no results, or not enough, is refused", () => {
  assertThrows(() => fitMeasured(line(1000, 10), "r.jsonl", place), UsageError, "two lengths");
  for (const bad of ["{", '{"kind":"cell"}', line(1000, -1), line(1000, 1, { speed: {} })]) {
    assertThrows(() => fitMeasured(bad, "r.jsonl", place), UsageError, "line 1");
  }
});
