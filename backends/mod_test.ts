import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { BackendType } from "./backend.ts";
import { builtinBackends, loadPlugin, openBackend, prepareBackend } from "./mod.ts";
import { ReferenceBackend } from "./reference.ts";

const mine: BackendType = {
  summary: "a plugin",
  defaults: { speed: 1 },
  open: (params) => {
    assertEquals(params, { speed: 2 });
    return new ReferenceBackend();
  },
};

function moduleOf(text: string): string {
  return `data:text/javascript,${encodeURIComponent(text)}`;
}

describe("openBackend()", () => {
  it("opens built-in and foreign backends with typed parameters", () => {
    using a = openBackend("reference");
    assertEquals(a.spec, "reference");
    using b = openBackend("mine:speed=2", { mine });
    assert(b instanceof ReferenceBackend);
  });

  it("lists the names and keys there are", () => {
    const names = Object.keys({ ...builtinBackends, mine }).sort().join(", ");
    assertThrows(() => openBackend("gpu", { mine }), RangeError, `Cannot find backend "gpu": expected one of ${names}`);
    assertThrows(() => openBackend("reference:threads=1"), RangeError, "it takes none");
    assertThrows(() => openBackend("cpu:thread=1"), RangeError, "expected one of isa, precision, threads");
    assertThrows(() => openBackend("constructor"), RangeError, "Cannot find backend");
  });

  it("refuses values that cpu does not have, before any library is loaded", () => {
    assertThrows(() => openBackend("cpu:isa=sse"), RangeError, "expected one of auto, avx512, avx2, portable");
    assertThrows(() => openBackend("cpu:precision=best"), RangeError, "expected one of exact, fast");
    for (const threads of ["-1", "1.5", "4096"]) {
      assertThrows(() => openBackend(`cpu:threads=${threads}`), RangeError, `threads is ${threads}`);
    }
  });
});

describe("prepareBackend()", () => {
  it("runs what the backend asks for, and reports", async () => {
    const seen: string[] = [];
    const slow: BackendType = { ...mine, prepare: (report) => Promise.resolve(report(1, 2, "it")) };
    await prepareBackend("slow:speed=9", { slow }, (done, total, detail) => seen.push(`${detail} ${done}/${total}`));
    assertEquals(seen, ["it 1/2"]);
    await prepareBackend("reference");
    await assertRejects(() => prepareBackend("gpu"), RangeError, "Cannot find backend");
  });
});

describe("loadPlugin()", () => {
  it("gives the backends a module exports", async () => {
    const plugin = await loadPlugin(
      moduleOf(`export const backends = { mine: { summary: "s", defaults: { a: 1 }, open() {} } };`),
    );
    assertEquals(Object.keys(plugin), ["mine"]);
  });

  it("takes paths from the working directory, whatever they hold", async () => {
    const folder = await Deno.makeTempDir({ dir: ".", prefix: ".plugin #1 " });
    try {
      await Deno.writeTextFile(
        `${folder}/mine?.js`,
        `export const backends = { mine: { summary: "s", defaults: {}, open() {} } };`,
      );
      assertEquals(Object.keys(await loadPlugin(`${folder}/mine?.js`)), ["mine"]);
      assertEquals(Object.keys(await loadPlugin(await Deno.realPath(`${folder}/mine?.js`))), ["mine"]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  it("says what is wrong with another shape", async () => {
    const cases: [string, string][] = [
      ["export const x = 1;", "exports no `backends`"],
      ["export const backends = 3;", "exports no `backends`"],
      ["export const backends = { Bad: {} };", `"Bad" is not a backend name`],
      ["export const backends = { a: null };", `backend "a" has no summary`],
      [`export const backends = { a: { summary: "s" } };`, "no defaults"],
      [`export const backends = { a: { summary: "s", defaults: { k: [] } } };`, `default "k" of backend "a"`],
      [`export const backends = { a: { summary: "s", defaults: {} } };`, "no open()"],
    ];
    for (const [text, message] of cases) await assertRejects(() => loadPlugin(moduleOf(text)), TypeError, message);
  });
});
