/**
 * What HTTP adds to a streamed token: `deno run -A bench/server_cost.ts [MODEL] [tokens] [rounds] [backend]`.
 *
 * Eight generations straight from the engine and eight event streams read by `curl` take turns in one process; the first token
 * is not counted. Prints milliseconds a token of both, medians over rounds, and the share that HTTP adds.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { Engine } from "../engine/engine.ts";
import { makeApp } from "../server/app.ts";
import { listen } from "../server/listen.ts";
import { Service } from "../server/service.ts";

const [model = "smollm2-135m-instruct", count = "128", rounds = "5", backend = "cpu:threads=2"] = Deno.args;
const STREAMS = 8;
const maxTokens = Number(count);

await using engine = await Engine.open({ model, backend, parallel: STREAMS });
const service = new Service(engine, await engine.info(), { model: "bench", parallel: STREAMS });
const server = listen(makeApp(service), service, { port: 0 });

const question = (i: number) => `Tell me a long story about the number ${i}.`;

/** Milliseconds from the first token to the last, per token. */
async function direct(i: number): Promise<number> {
  const messages = [{ role: "user", content: question(i) }] as const;
  for await (const event of engine.generate(messages, { temperature: 0, ignoreEos: true, maxTokens })) {
    if (event.type === "done") return event.timings.predictedMs / (event.timings.predictedTokens - 1);
  }
  throw new Error("Cannot measure: a generation did not end");
}

/** The same, as the server tells it at the end of a stream that curl reads. */
async function overHttp(i: number): Promise<number> {
  const body = {
    messages: [{ role: "user", content: question(i) }],
    temperature: 0,
    ignore_eos: true,
    max_tokens: maxTokens,
    stream: true,
  };
  const { stdout } = await new Deno.Command("curl", {
    args: [
      "-sN",
      `${server.url}/v1/chat/completions`,
      "-H",
      "content-type: application/json",
      "-d",
      JSON.stringify(body),
    ],
  }).output();
  const text = new TextDecoder().decode(stdout);
  const events = text.split("\n\n").filter((block) => block.startsWith("data: {"));
  const last = JSON.parse(events.at(-1)?.slice(6) ?? "{}");
  // Every token came, as the client sees it.
  if (events.length < 10 || last.timings?.predicted_n !== maxTokens) {
    throw new Error(`Cannot measure: ${text.slice(-200)}`);
  }
  return last.timings.predicted_per_token_ms;
}

async function all(one: (i: number) => Promise<number>): Promise<number> {
  const each = await Promise.all(Array.from({ length: STREAMS }, (_, i) => one(i)));
  return each.reduce((a, b) => a + b) / STREAMS;
}

await all(overHttp);
const [engineMs, httpMs, ratios]: [number[], number[], number[]] = [[], [], []];
for (let round = 0; round < Number(rounds); round++) {
  const [a, b] = [await all(direct), await all(overHttp)];
  engineMs.push(a);
  httpMs.push(b);
  ratios.push(b / a);
}
console.log(`engine ${median(engineMs).toFixed(2)} ms a token, over HTTP ${median(httpMs).toFixed(2)} ms; 8 streams`);
console.log(`HTTP adds ${((median(ratios) - 1) * 100).toFixed(1)} % (median of ${rounds} pairs)`);
await server.close();
