import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { TINY_VOCAB, tinyLoader } from "../engine/tiny_model.ts";
import { numPromptQueries } from "./recorded_format.ts";
import { record } from "./record.ts";
import { outputError, RecordedHeads } from "./recorded.ts";
import { writePart } from "./recorded_part.ts";

const HEADER = { name: "tiny", tokens: 600, decoded: 9, stride: 7, ropeBase: 0 };
const TOKENS = Int32Array.from({ length: HEADER.tokens }, (_, i) => (i * 31 + (i >> 4)) % TINY_VOCAB);

async function recordTiny(path: string): Promise<void> {
  const hooks = { backends: {}, progress: () => {}, notice: () => {}, signal: { aborted: false } };
  using loaded = await tinyLoader()({ model: "tiny" }, hooks);
  record(path, HEADER, loaded.model, loaded.backend, TOKENS);
}

describe("record()", () => {
  it("writes what attention saw: every decode output follows from the file", async () => {
    const path = await Deno.makeTempFile();
    try {
      await recordTiny(path);
      using file = new RecordedHeads(path);
      assertEquals(file.header, HEADER);
      for (let i = 0; i < file.entries.length; i++) {
        const layer = file.layer(i);
        assertEquals(layer.promptPositions.length, numPromptQueries(HEADER));
        assertEquals([...layer.promptPositions.subarray(0, 3)], [6, 13, 20]);
        for (let query = 0; query < HEADER.decoded; query++) {
          for (let head = 0; head < layer.shape.heads; head++) {
            const error = outputError(file.header, layer, query, head);
            assert(error < 4e-3, `layer ${i}, head ${head}, query ${query}: ${error}`);
          }
        }
        // A prompt query is not all zeros, nor its neighbour's.
        const row = layer.shape.heads * layer.shape.headDim;
        const [a, b] = [layer.promptQueries.subarray(0, row), layer.promptQueries.subarray(row, 2 * row)];
        assert(a.some((x, j) => x !== 0 && x !== b[j]));
      }
    } finally {
      await Deno.remove(path);
    }
  });
});

describe("writePart()", () => {
  it("keeps one layer as it is, without prompt queries", async () => {
    const [path, part] = [await Deno.makeTempFile(), await Deno.makeTempFile()];
    try {
      await recordTiny(path);
      assertEquals(writePart(path, 1, part), (await Deno.stat(part)).size);
      using whole = new RecordedHeads(path);
      using file = new RecordedHeads(part);
      const [want, got] = [whole.layer(1), file.layer(0)];
      assertEquals([file.entries.length, got.layer, got.numPrompt], [1, want.layer, 0]);
      assertEquals(got.shape, want.shape);
      for (const name of ["keys", "values", "decodeQueries", "outputs"] as const) assertEquals(got[name], want[name]);
    } finally {
      await Deno.remove(path);
      await Deno.remove(part);
    }
  });
});

describe("RecordedHeads", () => {
  it("refuses files that are cut off, of another kind or damaged", async () => {
    const path = await Deno.makeTempFile();
    try {
      await recordTiny(path);
      const whole = await Deno.readFile(path);
      const fails = (bytes: Uint8Array, message: string) => {
        Deno.writeFileSync(path, bytes);
        assertThrows(() => new RecordedHeads(path)[Symbol.dispose](), RangeError, message);
      };
      const changed = (at: number, value: number) => whole.map((b, i) => i === at ? value : b);
      fails(whole.subarray(0, whole.length - 1), "cut off");
      fails(whole.subarray(0, 100), "does not begin with KVQK");
      fails(changed(0, 65), "does not begin with KVQK");
      fails(changed(4, 9), "version 9");
      fails(changed(256 + 8, 200), "damaged");
      fails(changed(256 + 56 + 8 + 3, 255), "damaged");
    } finally {
      await Deno.remove(path);
    }
  });
});
