import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { KvLayer } from "../core/kv.ts";
import type { IndexType } from "./index.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { Unsupported } from "../core/errors.ts";
import { flatReference } from "./flat_reference.ts";
import { indexConformance } from "../test/index_conformance.ts";
import { TestLayer } from "../test/index_conformance_fixture.ts";
import { HitsBuffer } from "./hits.ts";
import { IndexRegistry, loadIndexTypes } from "./mod.ts";

const KV: KvLayer = { shape: { heads: 2, kvHeads: 1, headDim: 4, scale: 1 }, length: 0, segments: [] };

const mine: IndexType = {
  ...flatReference,
  defaults: { speed: 1 },
  create: (kv, params, on) => {
    assertEquals(params, { speed: 2 });
    return flatReference.create(kv, {}, on);
  },
};

function moduleOf(text: string): string {
  return `data:text/javascript,${encodeURIComponent(text)}`;
}

describe("IndexRegistry", () => {
  it("makes built-in and foreign types with typed parameters", () => {
    using backend = openBackend("reference");
    const registry = new IndexRegistry({ mine });
    using a = registry.create("mine:speed=2", KV, backend);
    using b = registry.create("flat-reference", KV, backend);
    assertEquals([a, b].map((index) => index.stats().tokens), [0, 0]);
    assertEquals(registry.canonical("mine"), "mine:speed=1");
  });

  it("lists the names and keys there are", () => {
    using backend = openBackend("reference");
    const registry = new IndexRegistry({ mine });
    const names = Object.keys(registry.types).sort().join(", ");
    const message = `Cannot find index type "flut": expected one of ${names}`;
    assertThrows(() => registry.create("flut", KV, backend), Error, message);
    assertThrows(() => registry.create("mine:sped=1", KV, backend), RangeError, "expected one of speed");
    assertThrows(() => registry.create("mine:speed=x", KV, backend), RangeError, "expected a number");
  });

  it("says what to use where a backend's memory is not native", async () => {
    try {
      await prepareBackend("cpu");
    } catch (error) {
      if (!(error instanceof Unsupported)) throw error;
      return console.log(`native index types are not tested: ${error.message}`);
    }
    using backend = openBackend("reference");
    const registry = new IndexRegistry();
    assertThrows(() => registry.create("flat", KV, backend), Unsupported, "use index flat-reference or backend cpu");
    using cpu = openBackend("cpu:threads=1");
    assertThrows(() => registry.create("flat:colour=red", KV, cpu), RangeError, "colour");
  });

  it("ends native indexes with their backend, in any order", async () => {
    try {
      await prepareBackend("cpu");
    } catch (error) {
      if (!(error instanceof Unsupported)) throw error;
      return;
    }
    const registry = new IndexRegistry();
    for (let i = 0; i < 3; i++) {
      const backend = openBackend("cpu:threads=1");
      const index = registry.create("flat", KV, backend);
      backend[Symbol.dispose]();
      assertThrows(() => index.commit(), Error, "was disposed");
      index[Symbol.dispose]();
      index[Symbol.dispose]();
    }
  });
});

describe("loadIndexTypes()", () => {
  it("gives the types a module exports", async () => {
    const types = await loadIndexTypes("test/plugin_index.ts");
    assertEquals(Object.keys(types), ["recent"]);
  });

  it("says what is wrong with another shape", async () => {
    const cases: [string, string][] = [
      ["export const x = 1;", "exports no `indexTypes`"],
      ["export const indexTypes = { Bad: {} };", `"Bad" is not an index type name`],
      ["export const indexTypes = { a: { defaults: {} } };", `index type "a" has no summary`],
      [`export const indexTypes = { a: { summary: "s", defaults: {} } };`, "no create()"],
      [`export const indexTypes = { a: { summary: "s", defaults: {}, create() {} } };`, "no map()"],
    ];
    for (const [text, message] of cases) {
      await assertRejects(() => loadIndexTypes(moduleOf(text)), TypeError, message);
    }
  });
});

describe("docs/index_types.md", () => {
  it("shows the toys that are tested", async () => {
    const page = await Deno.readTextFile("docs/index_types.md");
    for (const file of ["native/test/index_toy.cc", "test/plugin_index.ts"]) {
      assert(page.includes(await Deno.readTextFile(file)), `the page does not show ${file} as it is`);
    }
  });

  it("has a plugin that works beside ours", async () => {
    using backend = openBackend("reference");
    const types = new IndexRegistry(await loadIndexTypes("test/plugin_index.ts"));
    using layer = new TestLayer(backend, { length: 50 });
    using index = types.create("recent:most=9", layer.filled(), backend);
    layer.add(index, 10, 40);
    index.commit();
    using hits = new HitsBuffer(backend);
    index.search(hits, layer.queries(0, 1), { topk: 5, draw: 0 }, layer.lend([4], new Float32Array(4)));
    assertEquals([...backend.read(hits.tokens).slice(0, 5)], [35, 36, 37, 38, 39]);
    index.search(hits, layer.queries(0, 1), { error: 0.1, draw: 0 }, layer.lend([4], new Float32Array(4)));
    assertEquals([...backend.read(hits.counts)], [9, 9]);
  });

  it("has a plugin under the laws: it breaks none that its certificate does not promise", async () => {
    using backend = openBackend("reference");
    const types = new IndexRegistry(await loadIndexTypes("test/plugin_index.ts"));
    const failed = indexConformance({ spec: "recent", types, backend }).filter((r) => r.outcome === "failed");
    // What it lacks, the suite says: it keeps no more than it was told to, checks nothing, and has no files.
    assert(failed.some((r) => r.detail.includes("error 0 keeps 1000 keys")), "the suite misses that keys are missing");
    assert(failed.some((r) => r.name === "life: a saved index answers alike, and goes on"));
    assert(!failed.some((r) => r.name.startsWith("draws: samples")), "it is held to what it does not promise");
  });
});

describe("HitsBuffer", () => {
  it("grows, keeps its room, has one a number of rows, and gives all back", () => {
    using backend = openBackend("reference");
    const hits = new HitsBuffer(backend);
    assertThrows(() => hits.tokens, Error, "no search has filled them");
    hits.reserve(2, 10);
    const { tokens } = hits;
    assertEquals(tokens.shape, [2, 256]);
    hits.reserve(6, 300);
    assertEquals(hits.bias.shape, [6, 512]);
    hits.reserve(2, 256);
    assert(hits.tokens === tokens);
    hits.reserve(2, 257);
    assertEquals(hits.tokens.shape, [2, 512]);
    assertThrows(() => backend.read(tokens), RangeError, "freed");
    hits[Symbol.dispose]();
    hits[Symbol.dispose]();
    assertEquals(backend.bytes, 0);
  });
});
