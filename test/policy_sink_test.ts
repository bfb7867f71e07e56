/**
 * A policy from outside sees what a prompt's queries look at.
 *
 * @module
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import type { Tensor } from "../core/tensor.ts";
import type { AttentionPolicy, LayerPolicy } from "../attention/policy.ts";
import { Ops } from "../backends/ops.ts";
import { window } from "../attention/window.ts";
import { resolveAttention } from "../attention/mod.ts";
import { SequenceState } from "../attention/state.ts";
import { Forward } from "../engine/forward.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

const TOKENS = Int32Array.from({ length: 60 }, (_, i) => (i * 31 + (i >> 3)) % TINY_VOCAB);
const EVERY = 4;

for (const name of ["reference", "cpu:threads=2"]) {
  it(`a layer's sink is filled by every chunk of a prompt, in the last layer too: ${name}`, async () => {
    const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
    using loaded = await tinyLoader()({ model: "tiny", backend: name }, hooks);
    const { model, backend } = loaded;
    const sums: Tensor[] = [];
    const found: number[][] = [];
    const noting: AttentionPolicy<{ sinks: number; window: number }> = {
      ...window,
      summary: "notes what a prompt looks at",
      open(place, params) {
        const { heads } = place.kv.shape;
        const columnSums = backend.alloc([heads, TOKENS.length], "f32", "sequence");
        backend.write(columnSums, new Float32Array(heads * TOKENS.length));
        sums.push(columnSums);
        found.push([]);
        const layer = window.open(place, params) as LayerPolicy;
        let tokens: Tensor | undefined;
        layer.sink = (start, count) => {
          const queries = Math.ceil((start + count) / EVERY) - Math.ceil(start / EVERY);
          tokens = backend.alloc([queries, heads, 1], "i32", "sequence");
          return { every: EVERY, tokens, columnSums };
        };
        const advance = layer.advance.bind(layer);
        layer.advance = (length) => {
          advance(length);
          if (tokens === undefined) return;
          found[place.layer]?.push(...backend.read(tokens));
          backend.free(tokens);
          tokens = undefined;
        };
        return layer;
      },
    };
    const before = backend.bytes;
    const none = () => {
      throw new TypeError("The policy has no index");
    };
    const plan = {
      attention: resolveAttention({ policy: "noting" }, { noting }),
      index: "",
      newIndex: none,
      mapIndex: none,
    };
    {
      using state = new SequenceState(backend, model.config.layers, "f32", TOKENS.length, plan);
      const forward = new Forward(model, new Ops(backend), 512);
      for (const [start, numTokens, numLogits] of [[0, 7, 0], [7, 40, 0], [47, 12, 1], [59, 1, 1]] as const) {
        forward.run([{ state, tokens: TOKENS, start, numTokens, numLogits }]);
        backend.endStep();
      }
      for (const [layer, { heads }] of model.config.layers.entries()) {
        // 60 tokens, of which the last is a decode query: it looks by its policy.
        const queries = Math.ceil(59 / EVERY);
        const weights = backend.read(sums[layer] as Tensor);
        for (let h = 0; h < heads; h++) {
          const row = weights.subarray(h * TOKENS.length, (h + 1) * TOKENS.length) as Float32Array;
          assertAlmostEquals(row.reduce((a, b) => a + b, 0), queries, 1e-3);
        }
        assertEquals(found[layer]?.length, queries * heads);
        assert(found[layer]?.every((token, i) => token >= 0 && token <= Math.floor(i / heads) * EVERY));
      }
    }
    for (const tensor of sums) backend.free(tensor);
    assertEquals(backend.bytes, before);
  });
}
