import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type Fixture, type Json, openServer, readEvents } from "./server_fixture.ts";

const CHAT = "/v1/chat/completions";
const DOCUMENT = "In the beginning God created the heaven and the earth. ".repeat(4);
const messages = [{ role: "user", content: DOCUMENT }];
const question = { messages: [{ role: "user", content: "Who?" }], temperature: 0, max_tokens: 4 };

const open = (options: Parameters<typeof openServer>[0] = {}): Promise<Fixture> =>
  openServer({ ...options, engine: { contextRam: 1e8, ...options.engine } });

describe("prefixes", () => {
  it("are reused without asking, apart by cache_salt, and not with cache_prompt false", async () => {
    await using server = await open();
    const cached = async (fields: object) => {
      const body = {
        ...question,
        messages: [...messages, { role: "assistant", content: "Yes" }, ...question.messages],
        ...fields,
      };
      const answer = await (await server.post(CHAT, body)).json();
      assertEquals(answer.usage.prompt_tokens_details.cached_tokens, answer.timings.cache_n);
      return answer.usage.prompt_tokens_details.cached_tokens;
    };
    assertEquals(await cached({ cache_salt: "a" }), 0);
    assert(await cached({ cache_salt: "a" }) > 200);
    assertEquals(await cached({ cache_salt: "b" }), 0);
    assertEquals(await cached({}), 0);
    assertEquals(await cached({ cache_salt: "a", cache_prompt: false }), 0);
  });
});

describe("/v1/contexts", () => {
  it("reads a document once: made, listed, asked, appended to, forked, changed, found and deleted", async () => {
    await using server = await open();
    const made = await server.post("/v1/contexts", { name: "bible", messages, metadata: { file: "x" } });
    assertEquals(made.status, 201);
    const context = await made.json();
    assertEquals([context.object, context.name, context.status, context.metadata], ["context", "bible", "ready", {
      file: "x",
    }]);
    assertEquals(context.expires_at - context.last_used_at, 86_400);
    assertEquals((await server.post("/v1/contexts", { name: "bible", messages })).status, 409);

    const asked = await (await server.post(CHAT, { ...question, kvasir: { context: "bible", save_context: "talk" } }))
      .json();
    assertEquals(asked.kvasir.context, {
      id: context.id,
      reused_tokens: asked.usage.prompt_tokens_details.cached_tokens,
    });
    assert(
      asked.kvasir.context.reused_tokens >= context.tokens - 1,
      JSON.stringify([asked.kvasir.context, context.tokens]),
    );
    const plain = { ...question, messages: [{ role: "user", content: `${DOCUMENT}\n\nWho?` }], cache_prompt: false };
    const same = await (await server.post(CHAT, plain)).json();
    assertEquals(same.choices[0].message.content, asked.choices[0].message.content);

    const list = await (await server.app.request("/v1/contexts?prefix=b&limit=1")).json();
    assertEquals([list.data.map((c: Json) => c.name), list.has_more], [["bible"], false]);
    assertEquals((await (await server.app.request("/v1/contexts/talk")).json()).parent, context.id);
    const more =
      await (await server.post("/v1/contexts/bible/append", { messages: [{ role: "assistant", content: "Well." }] }))
        .json();
    assert(more.tokens > context.tokens && more.name === "bible");
    const fork = await (await server.post("/v1/contexts/bible/fork", { name: "half", at_token: 50 })).json();
    assertEquals([fork.tokens, fork.parent], [50, more.id]);
    const found = await (await server.post("/v1/contexts/lookup", { messages })).json();
    assert(found[0].matched_tokens >= context.tokens - 1);
    const patched = await server.app.request("/v1/contexts/half", {
      method: "PATCH",
      body: JSON.stringify({ name: "part", ttl_seconds: 0 }),
      headers: { "content-type": "application/json" },
    });
    assertEquals((await patched.json()).expires_at, null);
    assertEquals((await server.app.request("/v1/contexts/part", { method: "DELETE" })).status, 204);
    assertEquals((await server.app.request("/v1/contexts/part")).status, 404);
    assertEquals((await server.post(CHAT, { ...question, kvasir: { context: "none" } })).status, 404);
    const metrics = await (await server.app.request("/metrics")).text();
    assert(/kvasir:contexts\{model_name="tiny"\} [1-9]/.test(metrics), metrics);
    assert(/kvasir:context_bytes\{model_name="tiny",tier="memory"\} [1-9]/.test(metrics));
    assert(metrics.includes('kvasir:context_restores_total{model_name="tiny",result="miss"} 1'));
    for (const wrong of [{}, { messages, prompt: "x" }, { name: "../x", messages }, { name: "ctx_1", prompt: "x" }]) {
      assertEquals((await server.post("/v1/contexts", wrong)).status, 400, JSON.stringify(wrong));
    }
  });

  it("tells how far it is, and keeps nothing when the client leaves", async () => {
    await using server = await open({ engine: { batchSize: 32 } });
    const { events, isDone } = await readEvents(
      await server.post("/v1/contexts", { name: "a", prompt: DOCUMENT, stream: true }),
    );
    assert(isDone);
    assertEquals([events.at(-1).object, events.at(-1).name], ["context", "a"]);
    const last = events.at(-2).progress;
    assertEquals([last.processed, last.total], [220, 220]);
    const long = await server.post("/v1/contexts", {
      name: "b",
      prompt: DOCUMENT.repeat(2),
      stream: true,
      cache_salt: "b",
    });
    await long.body?.cancel();
    assertEquals((await server.app.request("/v1/contexts/b")).status, 404);
    assertEquals(server.service.admission.total, 0);
  });

  it("is not deleted under a generation, but by force", async () => {
    await using server = await open({ tiny: { contextLength: 4000 } });
    await server.post("/v1/contexts", { name: "a", messages });
    const long = { ...question, max_tokens: 2000, ignore_eos: true, stream: true, kvasir: { context: "a" } };
    const reader = (await server.post(CHAT, long)).body?.getReader();
    await reader?.read();
    assertEquals((await server.app.request("/v1/contexts/a", { method: "DELETE" })).status, 409);
    assertEquals((await server.app.request("/v1/contexts/a?force=true", { method: "DELETE" })).status, 204);
    await reader?.read();
    await reader?.cancel();
  });

  it("keeps its own index, unless it is to be rebuilt", async () => {
    await using server = await open();
    const retrieval = { policy: "retrieval:min_length=0,window=8,sinks=2", index: "flat-reference" };
    const made = await (await server.post("/v1/contexts", { name: "a", messages, kvasir: retrieval })).json();
    assertEquals(made.index.split(":")[0], "flat-reference");
    const asked = await (await server.post(CHAT, { ...question, kvasir: { context: "a" } })).json();
    assertEquals([asked.kvasir.policy, asked.kvasir.index], [made.policy, made.index]);
    const refused = await server.post(CHAT, { ...question, kvasir: { context: "a", index: "graph" } });
    assertEquals([refused.status, (await refused.json()).error.param], [409, "kvasir.index"]);
  });
});

describe("looking", () => {
  it("says where exact attention lay, and how far retrieval was from it", async () => {
    await using server = await open();
    const narrow = { look: 20, policy: "window:sinks=1,window=8" };
    const { kvasir } = await (await server.post(CHAT, { ...question, messages, max_tokens: 9, kvasir: narrow })).json();
    const { looked, sampled } = kvasir;
    assertEquals([looked.layers, looked.heads, looked.texts.length], [2, 4, looked.stretches]);
    assertEquals(looked.texts.join(""), `user: ${DOCUMENT}\n`);
    assertEquals(sampled.steps, 2);
    assert(sampled.error > 0.01, `${sampled.error}`);
    const bytes = Uint8Array.fromBase64(looked.mass);
    assertEquals(bytes.length, looked.layers * looked.heads * looked.stretches);
    for (let head = 0; head < 8; head++) {
      const shares = [...bytes.subarray(head * looked.stretches, (head + 1) * looked.stretches)].map((b) =>
        (b / 255) ** 2
      );
      const sum = shares.reduce((a, b) => a + b);
      assert(sum > 0.5 && sum < 1.1, `${sum}`);
    }
    const exact = await (await server.post(CHAT, { ...question, messages, kvasir: { telemetry: "sampled" } })).json();
    assert(
      exact.kvasir.sampled.error < 1e-4 && exact.kvasir.looked === undefined,
      JSON.stringify(exact.kvasir.sampled),
    );
  });

  it("says how much of exact attention lay on what was attended to, and what decoding was made of", async () => {
    await using server = await open();
    const retrieval = {
      policy: "retrieval:min_length=0,window=8,sinks=2",
      index: "flat-reference",
      telemetry: "sampled",
    };
    const ask = async (kvasir: object) =>
      (await (await server.post(CHAT, { ...question, messages, max_tokens: 9, kvasir: { ...retrieval, ...kvasir } }))
        .json())
        .kvasir;
    const [few, more, all] = [await ask({ budget: 1 }), await ask({ budget: 20 }), await ask({ budget: 1000 })];
    const [a, b, c] = [few, more, all].map((k) => k.estimate.mass);
    assert(0.05 < a && a < b && b < c && c > 0.999 && c <= 1, `${a} ${b} ${c}`);
    assertEquals([few.estimate.recall, few.fallbacks], [null, []]);
    const { index_ms, search_ms, attend_ms, model_ms, sample_ms } = few.phases;
    assert(
      index_ms >= 0 && search_ms > 0 && attend_ms > 0 && model_ms > 0 && sample_ms > 0,
      JSON.stringify(few.phases),
    );
    const text = await (await server.app.request("/metrics")).text();
    assert(/^kvasir:search_seconds_total\{[^}]*index="flat-reference"\} 0?\.?[0-9]*[1-9]/m.test(text), text);
    assert(/^kvasir:index_build_seconds_total\{[^}]*index="flat-reference"\} /m.test(text), text);
    assert(text.includes('kvasir:recall_estimate_count{model_name="tiny",index="flat-reference"} 3'), text);
    const long = await ask({ policy: "retrieval:min_length=5000,window=8,sinks=2" });
    assertEquals([long.estimate, long.fallbacks], [null, [{ layer: null, reason: "short_context", steps: 8 }]]);
  });
});
