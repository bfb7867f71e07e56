import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { generate, type GeneratedOptions } from "./generated.ts";
import { headStats } from "./head_stats.ts";
import { RecordedHeads } from "./recorded.ts";

const OPTIONS: GeneratedOptions = { tokens: 4096, dim: 64, kvHeads: 2, group: 2, seed: 3, decoded: 64, stride: 16 };

function bytesOf(options: GeneratedOptions): Uint8Array {
  const path = Deno.makeTempFileSync();
  try {
    generate(path, options);
    return Deno.readFileSync(path);
  } finally {
    Deno.removeSync(path);
  }
}

describe("generate()", () => {
  it("gives equal files for equal seeds only", () => {
    const a = bytesOf(OPTIONS);
    assertEquals(bytesOf(OPTIONS), a);
    assertNotEquals(bytesOf({ ...OPTIONS, seed: 4 }).subarray(1 << 16, 1 << 17), a.subarray(1 << 16, 1 << 17));
  });

  it("spreads mass over sinks, window and the rest as real heads do", () => {
    const path = Deno.makeTempFileSync();
    try {
      generate(path, { ...OPTIONS, tokens: 8192 });
      using file = new RecordedHeads(path);
      const layer = file.layer(0);
      for (let head = 0; head < layer.shape.heads; head++) {
        const stats = headStats(file.header.tokens, file.header.decoded, layer, head, 16);
        assert(stats.sinks > 0.005 && stats.sinks < 0.8, `sinks ${stats.sinks}`);
        assert(stats.window > 0.05 && stats.window < 0.9, `window ${stats.window}`);
        assert(stats.rest > 0.05, `rest ${stats.rest}`);
        assert(stats.top100 > 0.1 && stats.top100 < 0.98, `top 100 ${stats.top100}`);
      }
    } finally {
      Deno.removeSync(path);
    }
  });
});
