/**
 * Load and faults: `deno run -A bench/server_load.ts [MODEL] [requests] [connections]`.
 *
 * Starts a server and sends it valid requests, streams that are left, broken JSON, bodies that are too large, wrong types and
 * readers that dawdle, all mixed, drawn from a fixed seed. Prints what came back and the memory before and after; exits with
 * 1 when a valid request was not answered, an invalid one was, or the server reported an error of its own.
 *
 * @module
 */
import { startServer } from "./server_process.ts";

const [model = "smollm2-135m-instruct", count = "2000", connections = "32"] = Deno.args;
const LIMIT_MB = 0.1;

let state = 12345;
function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}

await using server = await startServer([
  "-m",
  model,
  "--max-body-mb",
  String(LIMIT_MB),
  "-c",
  "1024",
  "--context-ram",
  "0.05",
]);
const url = `${server.url}/v1/chat/completions`;
const headers = { "content-type": "application/json" };
const valid = () => ({
  messages: [{ role: "user", content: `Word ${Math.floor(random() * 1000)}?` }],
  max_tokens: 1 + Math.floor(random() * 4),
  stream: random() < 0.5,
});

const tally = new Map<string, number>();
const note = (what: string) => tally.set(what, (tally.get(what) ?? 0) + 1);

async function post(body: string, signal?: AbortSignal): Promise<Response> {
  return await fetch(url, { method: "POST", body, headers, ...(signal === undefined ? {} : { signal }) });
}

async function expect(name: string, status: number, body: string): Promise<void> {
  const response = await post(body);
  const { error } = await response.json();
  note(response.status === status && typeof error?.message === "string" ? name : `WRONG ${name}: ${response.status}`);
}

async function answered(name: string, body: ReturnType<typeof valid>, delayMs = 0): Promise<void> {
  const response = await post(JSON.stringify(body));
  let text = "";
  for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += piece;
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
  }
  const isWhole = body.stream ? text.trimEnd().endsWith("[DONE]") : "usage" in JSON.parse(text);
  note(response.status === 200 && isWhole ? name : `WRONG ${name}: ${response.status} ${text.slice(0, 100)}`);
}

async function left(): Promise<void> {
  const leave = new AbortController();
  const timer = setTimeout(() => leave.abort(), random() * 300);
  try {
    const response = await post(JSON.stringify({ ...valid(), max_tokens: 500, stream: random() < 0.7 }), leave.signal);
    for await (const _ of response.body ?? []) if (random() < 0.1) break;
  } catch (error) {
    if (!leave.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
  note("left");
}

async function one(): Promise<void> {
  const kind = random();
  if (kind < 0.5) await answered("answered", valid());
  else if (kind < 0.7) await left();
  else if (kind < 0.8) await expect("broken JSON", 400, '{"messages": [');
  else if (kind < 0.88) await expect("wrong type", 400, JSON.stringify({ ...valid(), max_tokens: "many" }));
  else if (kind < 0.94) {
    await expect(
      "too large",
      413,
      JSON.stringify({ messages: [{ role: "user", content: "x".repeat(LIMIT_MB * 3e6) }] }),
    );
  } else await answered("slow reader", { ...valid(), stream: true }, 20);
}

async function round(requests: number): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: Number(connections) }, async () => {
    while (next++ < requests) await one().catch((error) => note(`WRONG: ${error.message}`));
  }));
}

/** Megabytes once nothing runs: the least of some looks, as V8 collects garbage some seconds after the last work. */
async function settled(): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 60; i++) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    least = Math.min(least, server.memory());
  }
  return least / 2 ** 20;
}

// The runtime's own heap and caches grow during the first requests of any kind.
await round(Math.ceil(Number(count) / 4));
const before = await settled();
tally.clear();
const start = performance.now();
await round(Number(count));
const seconds = (performance.now() - start) / 1000;
const after = await settled();
const metrics = await (await fetch(`${server.url}/metrics`)).text();
const running = /num_requests_running\{[^}]*\} (\d+)/.exec(metrics)?.[1];
const waiting = /num_requests_waiting\{[^}]*\} (\d+)/.exec(metrics)?.[1];
for (const [what, times] of [...tally].sort()) console.log(`${String(times).padStart(6)}  ${what}`);
console.log(`${seconds.toFixed(1)} s; running ${running}, waiting ${waiting}`);
console.log(
  `memory ${before.toFixed(0)} MiB before, ${after.toFixed(0)} MiB after: ${((after / before - 1) * 100).toFixed(1)} %`,
);
const unhandled = server.output.join("").split("\n").filter((line) =>
  line !== "" && !/serving|Built|fetching|ignoring|tokens\/s/.test(line)
);
console.log(`${unhandled.length} lines of errors from the server`);
for (const line of unhandled.slice(0, 5)) console.log(`  ${line}`);
if (unhandled.length > 0 || [...tally.keys()].some((what) => what.startsWith("WRONG")) || running !== "0") {
  Deno.exitCode = 1;
}
