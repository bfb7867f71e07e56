/**
 * What `plan` says of a model before it is loaded is what the loaded model takes.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import { HybridBackend } from "../backends/hybrid.ts";
import { openBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { openModelFile } from "../model/open.ts";
import { Ops } from "../backends/ops.ts";
import { SequenceState } from "../attention/state.ts";
import { parseMethod } from "../attention/method.ts";
import { Forecaster } from "../engine/forecast.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";

const FILE = new URL("./golden/tiny/llama_gguf/model.gguf", import.meta.url).pathname;
const LENGTH = 1500;

for (const spec of ["cpu", "hybrid:keep=256"]) {
  it(`a forecast for ${spec} counts the bytes that the model takes`, () => {
    for (const method of ["full", "kvasir:min_length=0"]) {
      const attention = parseMethod(method).options;
      using opened = openModelFile(FILE);
      using backend = openBackend(spec);
      using forecaster = new Forecaster(opened, backend, 1e9);
      const before = backend.bytes;
      const [told] = forecaster.answer([{ length: LENGTH, attention, kvType: "f16" }]);
      assert(told !== undefined);
      assertEquals(backend.bytes, before);

      using weights = opened.openWeights(backend);
      const model = loadModel(opened.config, weights);
      const { plan } = planAttention(attention, backend);
      using state = new SequenceState(backend, model.config.layers, "f16", LENGTH + 25, plan);
      const forward = new Forward(model, new Ops(backend), 512);
      const tokens = Int32Array.from({ length: LENGTH + 24 }, (_, i) => i % opened.config.vocab);
      for (let start = 0; start < tokens.length;) {
        const numTokens = start < LENGTH ? Math.min(500, LENGTH - start) : 1;
        forward.run([{ state, tokens, start, numTokens, numLogits: numTokens === 1 ? 1 : 0 }]);
        backend.endStep();
        start += numTokens;
      }
      const { indexMemory } = state.stats();
      const near = (a: number, b: number) => assert(Math.abs(a - b) <= 0.05 * b, `${method}: ${a} told, ${b} counted`);
      if (method === "full") assertEquals(told.indexBytes, 0);
      else assert(told.indexBytes > 0 && told.indexBytes === indexMemory, `${told.indexBytes} and ${indexMemory}`);
      if (backend instanceof HybridBackend) {
        near(told.deviceBytes, backend.sides.device.bytes);
        near(told.hostBytes, backend.sides.host.bytes + indexMemory);
      } else near(told.deviceBytes, backend.bytes + indexMemory);
      assert(told.msPerToken > 0 && told.diskBytes > told.indexBytes);
    }
  });
}
