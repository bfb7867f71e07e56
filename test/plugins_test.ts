import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Backend, HostMemory } from "../backends/backend.ts";
import type { EngineOptions } from "../engine/types.ts";
import { prepareBackend } from "../backends/mod.ts";
import { Engine } from "../engine/engine.ts";
import { localLink } from "../engine/link.ts";
import { loadPlugins } from "../engine/plugins.ts";
import { tinyLoader } from "../engine/tiny_model.ts";
import { attentionOf } from "../server/knobs.ts";
import { policies } from "./plugin_policy.ts";

const PLUGIN = new URL("plugin_policy.ts", import.meta.url).href;
const moduleOf = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;

type Own = Pick<EngineOptions, "indexTypes" | "policies">;

function open(own: Own, options: Partial<EngineOptions> = {}): Promise<Engine> {
  return Engine.openOver((to) => localLink(to, tinyLoader(), own), { model: "tiny", backend: "reference", ...options });
}

async function attended(engine: Engine, attention = {}, length = 40) {
  for await (
    const event of engine.generate("x".repeat(length), { maxTokens: 9, temperature: 0, ignoreEos: true, attention })
  ) {
    if (event.type === "done") return event.attended;
  }
  return undefined;
}

describe("a policy from outside", () => {
  for (
    const [how, own, options] of [
      ["as a value", { policies }, {}],
      ["as a module", {}, { plugins: [PLUGIN] }],
    ] as const
  ) {
    it(`is used by its name, ${how}`, async () => {
      await using engine = await open(own, { ...options, policy: "strided:stride=7" });
      assertEquals((await engine.info()).policy, "strided:stride=7");
      const all = await attended(engine, { preset: "full" });
      const some = await attended(engine, { policy: "strided:stride=10" });
      assert(all === undefined || all.spanned === all.tokens);
      assert(some !== undefined && some.dense === 0 && some.queries > 0);
      // The last 10, and one in 10 of what lies before.
      const perQuery = some.spanned / some.queries;
      assert(perQuery >= 13 && perQuery <= 14, `${perQuery}`);
      await assertRejects(() => attended(engine, { policy: "strided:stride=0" }), RangeError, "stride is 0");
    });
  }

  it("is listed where another name is asked for, and known to requests of a server", async () => {
    await assertRejects(() => open({ policies }, { policy: "nope" }), RangeError, "strided");
    const limits = { allowIndex: [], maxBudget: 1 };
    const asked = { policy: "strided:stride=5" };
    assertEquals(attentionOf(asked, {}, { ...limits, policies })?.policy, "strided:stride=5");
    assertThrows(() => attentionOf(asked, {}, limits), Error, "strided");
  });
});

describe("an index that cannot be made", () => {
  const indexTypes: Own["indexTypes"] = {
    picky: {
      summary: "takes no x but 2",
      defaults: { x: 2 },
      create: (_kv, { x }) => {
        throw new RangeError(`Cannot use "picky": x is ${x}`);
      },
      map: () => {
        throw new RangeError("Cannot open index");
      },
    },
  };

  it("is refused when the engine opens and when a request comes, not after a prompt was read", async () => {
    const policy = "retrieval:min_length=100000";
    await assertRejects(() => open({ indexTypes }, { policy, index: "picky:x=3" }), RangeError, "x is 3");
    await using engine = await open({ indexTypes });
    const { bytes } = await engine.info();
    await assertRejects(() => attended(engine, { policy, index: "picky" }), RangeError, "x is 2");
    assertEquals((await engine.info()).bytes, bytes);
  });

  it("is the engine's to replace where a request of a server names none", () => {
    const limits = { allowIndex: [], maxBudget: 100 };
    assertEquals(attentionOf({ mode: "retrieval" }, {}, limits)?.index, undefined);
    assertEquals(attentionOf({ mode: "retrieval" }, {}, limits)?.preset, "kvasir");
    assertEquals(attentionOf({ preset: "quest", window: 64 }, {}, limits)?.preset, "quest");
    assertEquals(attentionOf({ index: "lists", window: 64 }, {}, limits)?.index, "lists");
    assertEquals(attentionOf({ window: 64 }, { index: "graph" }, limits)?.index, "graph");
  });
});

describe("indexes of an engine's requests", () => {
  it("share one context of the native library", async () => {
    await prepareBackend("cpu");
    let contexts = 0;
    const onBackend = ({ host }: Backend) => {
      const { attach } = host as HostMemory;
      Object.assign(host as HostMemory, {
        attach: (library: Disposable) => {
          contexts++;
          attach(library);
        },
      });
    };
    const loader = tinyLoader({ onBackend });
    await using engine = await Engine.openOver((to) => localLink(to, loader, {}), { model: "tiny", backend: "cpu" });
    for (const index of ["flat", "lists", "flat:codes=int4"]) {
      await attended(engine, { policy: "retrieval:min_length=0,window=8", index }, 300);
    }
    assertEquals(contexts, 1);
  });
});

describe("loadPlugins()", () => {
  it("says what is wrong with a module, and which", async () => {
    const entry = "summary: 's', defaults: {}, isDense: false";
    const cases: [string, string][] = [
      ["throw new Error('oh no')", "oh no"],
      ["export const x = ;", "Cannot load plugin"],
      ["export const x = 1;", "no `backends`, `indexTypes` or `policies`"],
      [`export const policies = { a: { ${entry} } };`, 'policy "a" does not say usesIndex'],
      [`export const policies = { a: { ${entry}, usesIndex: true } };`, "no check()"],
    ];
    for (const [text, message] of cases) {
      const error = await assertRejects(() => loadPlugins([moduleOf(text)]), TypeError, message);
      assert(error.message.startsWith('Cannot load plugin "data:'), error.message);
    }
    await assertRejects(() => loadPlugins(["/no/such/plugin.ts"]), TypeError, "/no/such/plugin.ts");
  });
});
