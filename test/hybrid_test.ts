/**
 * Two backends as one: each side's tensors stay there, and the device's memory does not grow with the length.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HybridBackend } from "../backends/hybrid.ts";
import { openBackend } from "../backends/mod.ts";
import { Ops } from "../backends/ops.ts";
import { SequenceState } from "../attention/state.ts";
import { Forward } from "../engine/forward.ts";
import { planAttention } from "../engine/plan.ts";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";

function open(spec: string): HybridBackend {
  const backend = openBackend(spec);
  assert(backend instanceof HybridBackend);
  return backend;
}

describe("hybrid", () => {
  for (const spec of ["hybrid:device=cpu,host=cpu", "hybrid:device=cpu,host=reference"]) {
    it(`${spec}: a tensor of one side used on the other is an error`, () => {
      using backend = open(spec);
      const { device, host } = backend.sides;
      const near = backend.alloc([4], "f32", "step");
      const far = backend.alloc([4], "f32", "sequence");
      backend.write(near, Float32Array.of(1, 2, 3, 4));
      assertThrows(
        () => backend.kernels.add(near, near, far),
        RangeError,
        "it lies on the host, expected it on the device",
      );
      assertThrows(() => backend.kernels.add(far, near, near), RangeError, "it lies on the host");
      const rows = () => backend.alloc([1, 4, 4], "f32", "model");
      const segment = { start: 0, count: 0, sealed: false, keys: rows(), values: rows() };
      const k = backend.alloc([1, 1, 4], "f32", "step");
      assertThrows(() => backend.kernels.append(segment, 0, k, k), RangeError, "it lies on the device");
      // Nor do the sides know each other's, or what wraps them.
      assertThrows(() => host.read(device.alloc([4], "f32", "step")), RangeError, "another backend");
      assertThrows(() => device.read(host.alloc([4], "f32", "sequence")), RangeError, "another backend");
      assertThrows(() => device.read(near), RangeError, "another backend");
      if (backend.host !== undefined) {
        const { host } = backend;
        assertThrows(() => host.address(near), RangeError, "it lies on the device");
        assert(host.input(near) !== null && host.input(far) !== null);
      }
      backend.free(far);
    });
  }

  it("keeps the window on the device, whatever the length, and all of the cache on the host", async () => {
    const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
    const held: number[] = [];
    const kept: number[] = [];
    for (const length of [600, 2600]) {
      using loaded = await tinyLoader()({ model: "tiny", backend: "hybrid:device=cpu,host=cpu,keep=256" }, hooks);
      const backend = loaded.backend as HybridBackend;
      const { plan } = planAttention({ policy: "retrieval:window=64,min_length=0" }, backend);
      const [deviceBefore, hostBefore] = [backend.sides.device.bytes, backend.sides.host.bytes];
      {
        using state = new SequenceState(backend, loaded.model.config.layers, "f16", 4096, plan);
        const forward = new Forward(loaded.model, new Ops(backend), 512);
        const tokens = Int32Array.from({ length: length + 5 }, (_, i) => i % TINY_VOCAB);
        let most = 0;
        for (let start = 0; start < tokens.length;) {
          const numTokens = Math.min(start < length ? 200 : 1, tokens.length - start);
          forward.run([{ state, tokens, start, numTokens, numLogits: 1 }]);
          backend.endStep();
          most = Math.max(most, backend.sides.device.bytes - deviceBefore);
          start += numTokens;
        }
        held.push(most);
        kept.push(backend.sides.host.bytes - hostBefore);
        assert(state.stats().retrieved > 0);
      }
      assertEquals([backend.sides.device.bytes, backend.sides.host.bytes], [deviceBefore, hostBefore]);
    }
    const [short, long] = held as [number, number];
    assert(short > 0 && long <= short + 2 * 2 * 2 * 128 * 2 * 8 * 2, `${short} bytes at first, then ${long}`);
    assert((kept[1] as number) > 2 * (kept[0] as number), JSON.stringify(kept));
  });

  it("says what it cannot be made of", () => {
    for (
      const [spec, part] of [["hybrid:codes=x", "codes is"], ["hybrid:keep=-1", "keep is"], [
        "hybrid:device=hybrid",
        "backend",
      ]]
    ) {
      assertThrows(() => openBackend(spec as string), RangeError, part);
    }
  });
});
