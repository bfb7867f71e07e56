import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { allowedOrigin, isLoopback } from "../server/security.ts";
import { ServerClient } from "../server/client.ts";
import { listen } from "../server/listen.ts";
import { openServer } from "./server_fixture.ts";

const CHAT = "/v1/chat/completions";
const ask = { messages: [{ role: "user", content: "Hello" }], temperature: 0, max_tokens: 4 };

describe("keys", () => {
  it("guard everything but health and the page", async () => {
    await using server = await openServer({ keys: ["first", "second"] });
    const status = async (path: string, headers: HeadersInit = {}) =>
      (await server.app.request(path, { headers })).status;
    for (const path of ["/v1/models", "/metrics", "/openapi.json", "/nothing"]) assertEquals(await status(path), 401);
    for (const path of ["/health", "/ping"]) assertEquals(await status(path), 200);
    assertEquals(await status("/v1/models", { authorization: "Bearer second" }), 200);
    assertEquals(await status("/v1/models", { "x-api-key": "first" }), 200);
    for (const wrong of ["Bearer", "Bearer firs", "Bearer first2", "Basic first", "first"]) {
      assertEquals(await status("/v1/models", { authorization: wrong }), 401, wrong);
    }
    const refused = await server.post(CHAT, ask);
    assertEquals([refused.status, (await refused.json()).error.type], [401, "authentication_error"]);
  });

  it("have a number of requests each", async () => {
    await using server = await openServer({ keys: ["a", "b"], maxPerKey: 1 });
    const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
    const answers = await Promise.all([as("a"), as("a"), as("b")].map((init) => server.post(CHAT, ask, init)));
    assertEquals(answers.map((a) => a.status), [200, 429, 200]);
    assertEquals((await server.post(CHAT, ask, as("a"))).status, 200);
  });
});

describe("limits", () => {
  it("refuse a full queue, long bodies, other types and foreign hosts", async () => {
    await using server = await openServer({ parallel: 1, maxQueue: 1, maxBodyBytes: 1000, localOnly: true });
    const answers = await Promise.all([1, 2, 3].map(() => server.post(CHAT, ask)));
    assertEquals(answers.map((a) => a.status), [200, 200, 503]);
    assertEquals(answers[2]?.headers.get("retry-after"), "1");
    const long = { messages: [{ role: "user", content: "x".repeat(1000) }] };
    assertEquals((await server.post(CHAT, long)).status, 413);
    const stream = new Blob([JSON.stringify(long)]).stream();
    const headers = { "content-type": "application/json" };
    assertEquals((await server.app.request(CHAT, { method: "POST", body: stream, headers })).status, 413);
    assertEquals((await server.post(CHAT, ask, { headers: { "content-type": "text/plain" } })).status, 415);
    assertEquals((await server.post(CHAT, ask, { headers: { host: "evil.example" } })).status, 403);
    assertEquals((await server.post(CHAT, ask, { headers: { host: "localhost:5827" } })).status, 200);
    const broken = await server.app.request(CHAT, { method: "POST", body: "{", headers });
    assertEquals([broken.status, (await broken.json()).error.type], [400, "invalid_request_error"]);
  });

  it("end a request whose client leaves, and one that takes too long, and free what they held", async () => {
    await using server = await openServer({ tiny: { contextLength: 4000 }, parallel: 1 });
    const { bytes } = await server.engine.info();
    const long = { ...ask, max_tokens: 3000, ignore_eos: true, stream: true };
    const reader = (await server.post(CHAT, long)).body?.getReader();
    await reader?.read();
    await reader?.cancel();
    assertEquals(server.service.admission.total, 0);
    assertEquals((await server.engine.info()).bytes, bytes);
    const leaving = new AbortController();
    const whole = server.post(CHAT, { ...long, stream: false }, { signal: leaving.signal });
    setTimeout(() => leaving.abort(), 30);
    assertEquals((await whole).status, 503);

    await using hasty = await openServer({ tiny: { contextLength: 4000 }, timeoutMs: 50 });
    const late = await hasty.post(CHAT, { ...long, stream: false });
    assertEquals([late.status, (await late.json()).error.type], [504, "timeout_error"]);
    const streamed = await (await hasty.post(CHAT, long)).text();
    assert(streamed.trimEnd().endsWith('"code":504}}'), streamed.slice(-200));
    assertEquals(hasty.service.admission.total, 0);
  });

  it("let nobody in once the server drains", async () => {
    await using server = await openServer();
    const listening = listen(server.app, server.service, { port: 0 });
    assertEquals((await (await fetch(`${listening.url}/health`)).json()).status, "ok");
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ ...ask, max_tokens: 200, ignore_eos: true });
    const under = fetch(`${listening.url}${CHAT}`, { method: "POST", body, headers });
    while (server.service.admission.total === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const closed = listening.close();
    assertEquals((await server.app.request("/health")).status, 503);
    assertEquals((await server.post(CHAT, ask)).status, 503);
    assertEquals((await (await under).json()).usage.completion_tokens, 200);
    await closed;
  });

  it("listen beyond this machine only with a key", async () => {
    await using server = await openServer();
    assertThrows(() => listen(server.app, server.service, { host: "0.0.0.0", port: 0 }), RangeError, "--api-key");
    for (const host of ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"]) assert(isLoopback(host), host);
    for (const host of ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.nip.io"]) {
      assert(!isLoopback(host), host);
    }
  });
});

describe("an address that cannot be had", () => {
  it("is named with what keeps the server from it", async () => {
    await using server = await openServer();
    const first = listen(server.app, server.service, { port: 0 });
    const port = Number(new URL(first.url).port);
    assertThrows(() => listen(server.app, server.service, { port }), Error, `Cannot listen on 127.0.0.1, port ${port}`);
    const elsewhere = { host: "192.0.2.1", port: 0, insecure: true };
    assertThrows(() => listen(server.app, server.service, elsewhere), Error, "no such address");
    await first.close();
    await assertRejects(() => new ServerClient(first.url).ask("GET", "/health"), Error, "Cannot reach");
    assertThrows(() => new ServerClient("127.0.0.1"), RangeError, "no address");
  });
});

describe("origins", () => {
  it("are this machine's, those listed, or all", async () => {
    assertEquals(allowedOrigin([], "http://localhost:3000"), "http://localhost:3000");
    assertEquals(allowedOrigin([], "https://localhost.evil.example"), undefined);
    assertEquals(allowedOrigin(["https://a.example"], "https://a.example"), "https://a.example");
    assertEquals(allowedOrigin(["https://a.example"], "http://localhost"), undefined);
    assertEquals(allowedOrigin(["*"], "https://b.example"), "*");
    await using server = await openServer();
    const asked = (origin: string) => server.app.request("/health", { headers: { origin } });
    assertEquals((await asked("http://localhost:1")).headers.get("access-control-allow-origin"), "http://localhost:1");
    assertEquals((await asked("https://evil.example")).headers.get("access-control-allow-origin"), null);
    assertEquals((await asked("http://localhost:1")).headers.get("access-control-allow-credentials"), null);
  });

  it("request ids are echoed when they are harmless", async () => {
    await using server = await openServer();
    const idOf = async (id: string) =>
      (await server.app.request("/health", { headers: { "x-request-id": id } })).headers.get("x-request-id");
    assertEquals(await idOf("abc-1"), "abc-1");
    assert((await idOf("a b"))?.startsWith("req_"));
    assert((await idOf("x".repeat(200)))?.startsWith("req_"));
  });
});
