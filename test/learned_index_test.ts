/**
 * Indexes that learn from queries see those of a running model's prompt: what they build is calibrated.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import { Ops } from "../backends/ops.ts";
import { SequenceState } from "../attention/state.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

const PROMPT = 1600;
/** Lists take over so many tokens after the first search, and some blocks. */
const ANSWER = 420;

it("lists built in a running model take over and are calibrated on its prompt's queries", async () => {
  const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  using loaded = await tinyLoader()({ model: "tiny", backend: "cpu" }, hooks);
  const { backend, model } = loaded;
  const policy = "retrieval:sinks=4,window=128,budget=50,min_length=0";
  const { plan } = planAttention({ policy, index: "lists:min=512,k=50" }, backend);
  using state = new SequenceState(backend, model.config.layers, "f16", PROMPT + ANSWER, plan);
  const forward = new Forward(model, new Ops(backend), 512);
  const tokens = Int32Array.from({ length: PROMPT + ANSWER }, (_, i) => (i * 31 + (i >> 3)) % TINY_VOCAB);
  const certificates = new Set<string>();
  for (let start = 0; start < tokens.length;) {
    const numTokens = start < PROMPT ? Math.min(300, PROMPT - start) : 1;
    forward.run([{ state, tokens, start, numTokens, numLogits: numTokens === 1 ? 1 : 0 }]);
    backend.endStep();
    start += numTokens;
    if (numTokens > 1) {
      assertEquals(state.policies[0]?.index?.stats().pendingTokens ?? 0, state.policies[0]?.index?.stats().tokens ?? 0);
    } else certificates.add(state.hits.report.certificate);
  }
  // At first a scan, then lists.
  assertEquals([...certificates], ["exact", "calibrated"]);
  assert(state.hits.report.expectedRecall >= 0.95, `${state.hits.report.expectedRecall}`);
  const { decisions } = state.policies[0]?.index?.stats() ?? { decisions: [] };
  const lists = decisions.filter((line) => line.includes("held-out prompt positions"));
  assertEquals(lists.length, 2);
  for (const line of lists) {
    const recall = Number(/recall ([\d.]+)/.exec(line)?.[1]);
    const positions = Number(/on (\d+) held-out/.exec(line)?.[1]);
    assert(recall >= 0.95 && positions >= 32, line);
  }
});
