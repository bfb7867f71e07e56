import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Unsupported } from "../core/errors.ts";
import { toApiError } from "../server/errors.ts";
import { type Json, openServer, readEvents } from "./server_fixture.ts";

const CHAT = "/v1/chat/completions";
const TEXT = "/v1/completions";
const ask = { messages: [{ role: "user", content: "Hello" }], temperature: 0, max_tokens: 12 };

async function errorOf(response: Response, status: number): Promise<Json> {
  assertEquals(response.status, status);
  const { error } = await response.json();
  assertEquals(Object.keys(error).slice(0, 4), ["message", "type", "param", "code"]);
  assertEquals(error.code, status);
  assert(!/\/(work|home|usr|tmp)\/|\bat .*:\d+:\d+/.test(error.message), error.message);
  return error;
}

describe("POST /v1/chat/completions", () => {
  it("answers in OpenAI's shape, whole and as a stream with the same text", async () => {
    await using server = await openServer();
    const whole = await (await server.post(CHAT, ask)).json();
    assert(whole.id.startsWith("chatcmpl-"));
    assertEquals([whole.object, whole.model, whole.choices.length], ["chat.completion", "tiny", 1]);
    const [{ message, finish_reason }] = whole.choices;
    assertEquals([message.role, finish_reason], ["assistant", "length"]);
    assertEquals(whole.usage, {
      prompt_tokens: 12,
      completion_tokens: 12,
      total_tokens: 24,
      prompt_tokens_details: { cached_tokens: 0 },
    });
    assertEquals(Object.keys(whole.timings).length, 9);
    assertEquals(whole.kvasir.keys.fraction, 1);

    const response = await server.post(CHAT, { ...ask, stream: true, stream_options: { include_usage: true } });
    assertStringIncludes(response.headers.get("content-type") ?? "", "text/event-stream");
    const { events, isDone } = await readEvents(response);
    assert(isDone);
    assertEquals(events[0].choices[0].delta, { role: "assistant", content: "" });
    assertEquals(events.map((e) => e.choices[0]?.delta?.content ?? "").join(""), message.content);
    assertEquals(events.at(-2).choices[0].finish_reason, "length");
    assertEquals([events.at(-1).choices, events.at(-1).usage.completion_tokens], [[], 12]);
    assert(events.slice(0, -1).every((e) => e.usage === null && e.object === "chat.completion.chunk"));
    assert(events.at(-1).timings.predicted_n === 12 && events.at(-1).kvasir.mode === "auto");
  });

  it("gives equal tokens for an equal seed, log-probabilities of each, and stops where it should", async () => {
    await using server = await openServer();
    const seeded = { ...ask, temperature: 1, seed: 7, logprobs: true, top_logprobs: 3 };
    const [a, b] = await Promise.all([1, 2].map(async () => (await server.post(CHAT, seeded)).json()));
    assertEquals(a.choices, b.choices);
    const { content } = a.choices[0].logprobs;
    assertEquals(content.length, 12);
    for (const entry of content) {
      assertEquals(Object.keys(entry), ["token", "logprob", "bytes", "top_logprobs"]);
      assertEquals(entry.top_logprobs.length, 3);
      assert(entry.top_logprobs[0].logprob >= entry.logprob);
    }
    const { content: text } = (await (await server.post(CHAT, ask)).json()).choices[0].message;
    const stop = text.slice(4, 6);
    const stopped = (await (await server.post(CHAT, { ...ask, stop })).json()).choices[0];
    assertEquals(stopped.message.content, text.slice(0, text.indexOf(stop)));
    assertEquals([stopped.finish_reason, stopped.stop_reason], ["stop", stop]);
  });

  it("lets a request choose what it pays for, within what the operator allows", async () => {
    await using server = await openServer({ allowIndex: ["flat"], maxBudget: 10 });
    const narrow = { ...ask, kvasir: { policy: "window:sinks=1,window=4" } };
    const { kvasir } = await (await server.post(CHAT, narrow)).json();
    const { queue_ms, tokenize_ms, restore_ms } = kvasir.phases;
    assert(
      tokenize_ms >= 0 && restore_ms >= 0 && queue_ms + 0.01 >= tokenize_ms + restore_ms,
      JSON.stringify(kvasir.phases),
    );
    assert(kvasir.policy.startsWith("window:"));
    assert(kvasir.keys.attended <= 5 && kvasir.keys.fraction < 0.6, JSON.stringify(kvasir.keys));
    const exact = await (await server.post(CHAT, { ...ask, kvasir: { mode: "exact" } })).json();
    assertEquals([exact.kvasir.policy, exact.kvasir.fallbacks], ["full", []]);
    const { search_ms, attend_ms, model_ms, sample_ms } = exact.kvasir.phases;
    assert(search_ms === 0 && attend_ms > 0 && model_ms > 0 && sample_ms > 0, JSON.stringify(exact.kvasir.phases));
    assertEquals((await (await server.post(CHAT, { ...ask, kvasir: { telemetry: "off" } })).json()).kvasir, undefined);
    const refused = async (kvasir: object, status: number, type: string) =>
      assertEquals((await errorOf(await server.post(CHAT, { ...ask, kvasir }), status)).type, type);
    await refused({ index: "graph" }, 403, "permission_error");
    await refused({ budget: 11 }, 403, "permission_error");
    await refused({ budget: 5, error: 0.1 }, 400, "invalid_request_error");
    await refused({ policy: "nonsense" }, 400, "invalid_request_error");
    await refused({ mode: "exact", window: 5 }, 400, "invalid_request_error");
    await refused({ unknown: 1 }, 400, "invalid_request_error");
  });

  it("names the field that is wrong, and never truncates", async () => {
    await using server = await openServer();
    const wrong = async (fields: object, param: string, type = "invalid_request_error") => {
      const error = await errorOf(
        await server.post(CHAT, { ...ask, ...fields }),
        type === "not_supported_error" ? 501 : 400,
      );
      assertEquals([error.type, error.param], [type, param], error.message);
    };
    await wrong({ messages: [] }, "messages");
    await wrong({ messages: [{ role: "robot", content: "x" }] }, "messages.0.role");
    await wrong({ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages.0.content");
    await wrong({ temperature: "hot" }, "temperature");
    await wrong({ temperature: -1 }, "temperature");
    await wrong({ max_tokens: 0 }, "max_tokens");
    await wrong({ n: 2 }, "n");
    await wrong({ top_logprobs: 21, logprobs: true }, "top_logprobs");
    await wrong({ stop: Array.from({ length: 17 }, String) }, "stop");
    await wrong({ grammar: "root ::= x" }, "grammar");
    await wrong({ grammar: 'root ::= "x"', response_format: { type: "json_object" } }, "grammar");
    await wrong({ typical_p: 1.5 }, "typical_p");
    const long = { ...ask, messages: [{ role: "user", content: "x".repeat(1000) }] };
    for (const stream of [false, true]) {
      const error = await errorOf(await server.post(CHAT, { ...long, stream }), 400);
      assertEquals([error.type, error.n_prompt_tokens, error.n_ctx], ["exceed_context_size_error", 1007, 600]);
    }
    assertEquals((await errorOf(await server.post(CHAT, { ...ask, model: "../etc/passwd" }), 404)).param, "model");
  });

  it("takes unknown fields with one line in the log, or not at all", async () => {
    await using server = await openServer();
    for (let i = 0; i < 2; i++) assertEquals((await server.post(CHAT, { ...ask, user: "u", mystery: 1 })).status, 200);
    assertEquals(server.lines, ['ignoring unknown field "mystery"']);
    await using strict = await openServer({ strictFields: true });
    assertEquals((await errorOf(await strict.post(CHAT, { ...ask, mystery: 1 }), 400)).param, "mystery");
  });

  it("shows progress of the prompt and pings while it lasts", async () => {
    await using server = await openServer();
    const body = { ...ask, stream: true, return_progress: true, sse_ping_interval: 0.1 };
    const { events } = await readEvents(await server.post(CHAT, body));
    const steps = events.filter((e) => e.prompt_progress !== undefined).map((e) => e.prompt_progress);
    assertEquals([steps.at(-1).processed, steps.at(-1).total], [12, 12]);
    assertEquals(steps[0].phase, "prefill");
  });
});

describe("POST /v1/completions", () => {
  it("continues texts and ids, streams, echoes, and has the legacy log-probabilities", async () => {
    await using server = await openServer();
    const body = { prompt: "Hello", temperature: 0, max_tokens: 8, logprobs: 2 };
    const whole = await (await server.post(TEXT, body)).json();
    assert(whole.id.startsWith("cmpl-"));
    const [{ text, logprobs }] = whole.choices;
    assertEquals(logprobs.tokens.join(""), text);
    assertEquals(logprobs.text_offset, [0, 1, 2, 3, 4, 5, 6, 7]);
    const ids = [...new TextEncoder().encode("Hello")];
    assertEquals((await (await server.post(TEXT, { ...body, prompt: ids })).json()).choices[0].text, text);
    const echoed = { prompt: "Hello", temperature: 0, max_tokens: 8, echo: true };
    assertEquals((await (await server.post(TEXT, echoed)).json()).choices[0].text, `Hello${text}`);
    const { events } = await readEvents(await server.post(TEXT, { ...echoed, stream: true }));
    assertEquals(events.map((e) => e.choices[0].text).join(""), `Hello${text}`);
    await errorOf(await server.post(TEXT, { ...body, prompt: [999_999] }), 400);
    await errorOf(await server.post(TEXT, { ...body, prompt: [] }), 400);
    await errorOf(await server.post(TEXT, { ...body, prompt: ["a", ""] }), 400);
  });

  it("echoes a prompt's log-probabilities: of each token behind the others, as if it had been drawn", async () => {
    await using server = await openServer();
    const body = { prompt: "Hello", temperature: 0, max_tokens: 6, logprobs: 2 };
    const { choices: [drawn] } = await (await server.post(TEXT, body)).json();
    const whole = { ...body, prompt: `Hello${drawn.text}`, max_tokens: 1, echo: true };
    const { choices: [choice] } = await (await server.post(TEXT, whole)).json();
    const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
    assertEquals(tokens.join(""), choice.text);
    assertEquals([tokens.length, token_logprobs.length, top_logprobs.length], [12, 12, 12]);
    assertEquals(text_offset, [...tokens.keys()]);
    assertEquals([token_logprobs[0], top_logprobs[0]], [null, null]);
    for (let i = 0; i < 6; i++) {
      assertAlmostEquals(token_logprobs[5 + i], drawn.logprobs.token_logprobs[i], 1e-4);
      assertEquals(Object.keys(top_logprobs[5 + i]), Object.keys(drawn.logprobs.top_logprobs[i]));
      // Greedy: what came is the likeliest, which evaluation harnesses look for.
      assertAlmostEquals(Math.max(...Object.values(top_logprobs[5 + i]) as number[]), token_logprobs[5 + i], 1e-6);
    }
    const { events } = await readEvents(await server.post(TEXT, { ...whole, stream: true }));
    assertEquals(events[0].choices[0].logprobs.tokens, tokens.slice(0, 11));
    assertEquals(events.map((e) => e.choices[0].text).join(""), choice.text);
    const one = await (await server.post(TEXT, { ...whole, prompt: "H" })).json();
    assertEquals(one.choices[0].logprobs.token_logprobs[0], null);
  });

  it("answers several prompts, each as it would alone, in their order", async () => {
    await using server = await openServer({ parallel: 2 });
    const body = { temperature: 0, max_tokens: 8, logprobs: 1, echo: true };
    const prompts = ["Hello", "Long before", "a", "Hello again", "x y z"];
    const all = await (await server.post(TEXT, { ...body, prompt: prompts })).json();
    const usage = { prompt_tokens: 0, completion_tokens: 0 };
    for (const [i, prompt] of prompts.entries()) {
      const alone = await (await server.post(TEXT, { ...body, prompt })).json();
      assertEquals([all.choices[i].index, all.choices[i].text], [i, alone.choices[0].text]);
      assertEquals(all.choices[i].logprobs.tokens, alone.choices[0].logprobs.tokens);
      usage.prompt_tokens += alone.usage.prompt_tokens;
      usage.completion_tokens += alone.usage.completion_tokens;
    }
    assertEquals([all.usage.prompt_tokens, all.usage.completion_tokens], Object.values(usage));
    const ids = prompts.map((text) => [...new TextEncoder().encode(text)]);
    const byIds = await (await server.post(TEXT, { ...body, prompt: ids })).json();
    assertEquals(byIds.choices.map((c: Json) => c.text), all.choices.map((c: Json) => c.text));
    await errorOf(await server.post(TEXT, { ...body, prompt: prompts, stream: true }), 400);
    await errorOf(await server.post(TEXT, { ...body, prompt: new Array(129).fill("a") }), 400);
    await errorOf(await server.post(TEXT, { ...body, prompt: ["a", "b", "c".repeat(100_000)] }), 400);
    assertEquals(server.service.admission.total, 0);
  });
});

describe("errors", () => {
  it("of the client's making are told, those of ours are logged", () => {
    const reported: unknown[] = [];
    const told = (error: unknown) => toApiError(error, (e) => reported.push(e));
    assertEquals(told(new RangeError("Cannot generate: temperature is -1")).status, 400);
    assertEquals(told(new RangeError("Cannot render conversation: the template says no")).status, 400);
    assertEquals(reported, []);
    for (const inner of [new RangeError("Cannot attend: length 36, segments of 8"), new TypeError("x"), "y"]) {
      const known = told(inner);
      assertEquals([known.status, known.message.includes("attend"), reported.pop()], [500, false, inner]);
    }
    assertEquals(told(new Error("Cannot open /etc/passwd")).status, 500);
    assertEquals(told(new Unsupported("Cannot use /home/me/model.gguf: no")).message, "Cannot use a file: no");
  });
});

describe("other routes", () => {
  it("tell of health, models, tokens and templates", async () => {
    await using server = await openServer({ aliases: ["gpt"] });
    for (const path of ["/health", "/v1/health", "/ping"]) {
      assertEquals(await (await server.app.request(path)).json(), { status: "ok" });
    }
    const { data } = await (await server.app.request("/v1/models")).json();
    assertEquals(data.map((m: Json) => m.id), ["tiny", "gpt"]);
    assertEquals([data[0].max_model_len, data[0].meta.n_vocab], [600, 127]);
    assert(data[0].meta.n_params > 1000);
    assertEquals((await server.app.request("/v1/models/gpt")).status, 200);
    await errorOf(await server.app.request("/v1/models/other"), 404);
    await errorOf(await server.app.request("/v1/nothing"), 404);
    const { tokens } = await (await server.post("/tokenize", { content: "Hi" })).json();
    assertEquals(tokens, [72, 105]);
    assertEquals(await (await server.post("/detokenize", { tokens })).json(), { content: "Hi" });
    await errorOf(await server.post("/detokenize", { tokens: [127] }), 400);
    const messages = [{ role: "user", content: "Hi" }];
    assertEquals((await (await server.post("/apply-template", { messages })).json()).prompt, "user: Hi\n");
    assertEquals((await (await server.post(`${CHAT}/input_tokens`, { messages })).json()).input_tokens, 9);
    const document = await (await server.app.request("/openapi.json")).json();
    assert(CHAT in document.paths && "ChatRequest" in document.components.schemas);
  });

  it("keep a record of each generation, without a word of it", async () => {
    const records: Json[] = [];
    await using server = await openServer({ record: (record) => records.push(record) });
    const headers = { "x-request-id": "mine-1" };
    await (await server.post(CHAT, ask, { headers })).json();
    const [first] = records;
    assertEquals([first.request_id, first.finish_reason, first.error], ["mine-1", "length", undefined]);
    assertEquals([first.prompt_tokens, first.cached_tokens, first.predicted_tokens], [12, 0, 12]);
    assert(Date.parse(first.time) > 0 && first.keys.fraction === 1 && first.policy !== "");
    assert(!JSON.stringify(records).includes("Hello"));
    const several = await server.post(TEXT, { prompt: ["Hello", "a"], max_tokens: 2, temperature: 0 });
    assertEquals([several.status, records.length], [200, 3]);
    await errorOf(await server.post(TEXT, { prompt: "a".repeat(100_000), max_tokens: 2 }), 400);
    assertEquals([records.length, records[3].error], [4, "exceed_context_size_error"]);
    const leaver = new AbortController();
    const left = await server.post(CHAT, { ...ask, max_tokens: 100, stream: true }, { signal: leaver.signal });
    await left.body?.cancel();
    while (server.service.admission.total > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals([records.length, records[4].error ?? records[4].finish_reason], [5, "abort"]);
  });

  it("count what happened, under vLLM's names", async () => {
    await using server = await openServer();
    await (await server.post(CHAT, ask)).json();
    await (await server.post(CHAT, { ...ask, messages: [{ role: "user", content: "x".repeat(1000) }] })).json();
    assertEquals(server.service.status(2), "6.0 tokens/s, 0 running, 0 waiting, KV cache 0.0 %");
    assertEquals(server.service.status(2), undefined);
    // The window of a retrieval holds all of so short a prompt.
    await (await server.post(CHAT, { ...ask, kvasir: { mode: "retrieval" } })).json();
    const text = await (await server.app.request("/metrics")).text();
    assert(/^kvasir:exact_fallbacks_total\{model_name="tiny",index="[^"]+"\} [1-9]/m.test(text), text);
    for (
      const line of [
        'kvasir:prompt_tokens_total{model_name="tiny"} 24',
        'kvasir:generation_tokens_total{model_name="tiny"} 24',
        'kvasir:request_success_total{model_name="tiny",finished_reason="length"} 2',
        'kvasir:request_errors_total{model_name="tiny",type="exceed_context_size_error"} 1',
        'kvasir:num_requests_running{model_name="tiny"} 0',
        'kvasir:time_to_first_token_seconds_count{model_name="tiny"} 2',
      ]
    ) assertStringIncludes(text, line);
  });
});
