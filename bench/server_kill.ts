/**
 * kill −9 under load: `deno run -A bench/server_kill.ts [MODEL] [times]`.
 *
 * Each time, a server with a folder of contexts is killed at a random moment while it makes contexts and answers; the next one
 * must start, hold every context that was acknowledged with the tokens it had, answer from it, and leave no other file behind.
 *
 * @module
 */
import { startServer } from "./server_process.ts";

const [model = "smollm2-135m-instruct", times = "50"] = Deno.args;
const folder = await Deno.makeTempDir();
const headers = { "content-type": "application/json" };
let state = 99;
const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;

/** Contexts that were acknowledged, and their tokens. */
const committed = new Map<string, number>();
let made = 0;
let wrong = 0;
let slowest = 0;

async function post(url: string, path: string, body: unknown): Promise<Response> {
  return await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Makes contexts and asks until the server is gone. */
async function load(url: string): Promise<void> {
  try {
    for (;;) {
      const name = `c${made++}`;
      const prompt = `Text ${name}. ${"All work and no play. ".repeat(10 + Math.floor(random() * 60))}`;
      const response = await post(url, "/v1/contexts", { name, prompt });
      const answer = await response.json();
      if (response.status === 201) committed.set(name, answer.tokens);
      await (await post(url, "/v1/completions", { prompt: "And", max_tokens: 3, kvasir: { context: name } })).text();
      // Few stay, so that checking them takes no longer than making them.
      const [oldest] = committed.keys();
      if (committed.size > 5 && oldest !== undefined) {
        committed.delete(oldest);
        await (await fetch(`${url}/v1/contexts/${oldest}`, { method: "DELETE" })).text();
      }
    }
  } catch {
    // It was killed.
  }
}

async function check(url: string): Promise<void> {
  for (const [name, tokens] of committed) {
    const found = await (await fetch(`${url}/v1/contexts/${name}`)).json();
    const asked =
      await (await post(url, "/v1/completions", { prompt: " And", max_tokens: 2, kvasir: { context: name } })).json();
    const isRight = found.tokens === tokens && asked.timings?.cache_n >= tokens - 1;
    if (!isRight) console.log(`WRONG ${name}: ${tokens} tokens, found ${JSON.stringify(found).slice(0, 200)}`);
    if (!isRight) wrong++;
  }
}

try {
  for (let round = 0; round <= Number(times); round++) {
    const server = await startServer(["-m", model, "--context-dir", folder]);
    if (round > 0) slowest = Math.max(slowest, server.startMs);
    await check(server.url);
    const known = new Set(
      (await (await fetch(`${server.url}/v1/contexts?limit=100`)).json()).data.map((c: { name: string }) => c.name),
    );
    for (const { name } of Deno.readDirSync(folder)) {
      if (name.startsWith(".") || known.has(name.replace(/\.kvctx$/, ""))) continue;
      console.log(`WRONG: ${name} was left behind`);
      wrong++;
    }
    const work = Promise.all([load(server.url), load(server.url), load(server.url)]);
    await new Promise((resolve) => setTimeout(resolve, random() * 3000));
    await server.kill();
    await work;
  }
  console.log(
    `${times} kills: slowest start ${
      (slowest / 1000).toFixed(1)
    } s, ${made} contexts begun, ${wrong} lost, wrong or left behind`,
  );
} finally {
  await Deno.remove(folder, { recursive: true });
}
if (wrong > 0) Deno.exitCode = 1;
