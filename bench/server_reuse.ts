/**
 * What a context saves: `deno run -A bench/server_reuse.ts [MODEL] [tokens]`.
 *
 * Times to the first token of a question about a document of 7,000 tokens: cold, as a second question on the stored context, and as the
 * first question after a restart of the server.
 *
 * @module
 */
import { startServer } from "./server_process.ts";

const [model = "smollm2-135m-instruct", count = "7000"] = Deno.args;
const folder = await Deno.makeTempDir();
const words = ["river", "stone", "lamp", "harbour", "winter", "letter", "garden", "copper"];
let state = 7;
const word = () => words[(state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 29];
const document = Array.from({ length: Number(count) * 0.93 }, word).join(" ");
const headers = { "content-type": "application/json" };

/** Milliseconds until the first text, and how many tokens were not read again. */
async function ask(
  url: string,
  question: string,
  fields: object,
): Promise<{ ms: number; cached: number; all: number }> {
  const body = JSON.stringify({ temperature: 0, max_tokens: 4, ignore_eos: true, stream: true, ...fields });
  const start = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", body, headers });
  let ms = 0;
  let text = "";
  for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += piece;
    if (ms === 0 && /"content":"[^"]/.test(text)) ms = performance.now() - start;
  }
  if (!response.ok || ms === 0) throw new Error(`Cannot measure ${question}: ${text.slice(0, 300)}`);
  const { timings } = JSON.parse(text.split("\n\n").findLast((block) => block.includes('"timings"'))?.slice(6) ?? "{}");
  return { ms, cached: timings.cache_n, all: timings.cache_n + timings.prompt_n };
}

const user = (content: string) => ({ role: "user", content });
const args = ["-m", model, "--context-dir", folder];
try {
  let cold: number;
  {
    await using server = await startServer(args);
    // Both libraries and the template are warm.
    await ask(server.url, "warm-up", { messages: [user("Hello")] });
    const whole = {
      messages: [{ role: "system", content: document }, user("Which word comes first?")],
      cache_prompt: false,
    };
    const first = await ask(server.url, "cold", whole);
    cold = first.ms;
    console.log(`cold: ${cold.toFixed(0)} ms for ${first.all} tokens`);
    const made = await fetch(`${server.url}/v1/contexts`, {
      method: "POST",
      headers,
      body: JSON.stringify({ name: "book", messages: [{ role: "system", content: document }] }),
    });
    if (!made.ok) throw new Error(await made.text());
    await made.body?.cancel();
    for (const question of ["Which word comes second?", "Which word comes third?"]) {
      const again = await ask(server.url, question, { messages: [user(question)], kvasir: { context: "book" } });
      const share = (100 * again.ms / cold).toFixed(1);
      console.log(
        `question on the context: ${again.ms.toFixed(0)} ms, ${again.cached} tokens reused: ${share} % of cold`,
      );
    }
  }
  await using server = await startServer(args);
  await ask(server.url, "warm-up", { messages: [user("Hello")] });
  const restored = await ask(server.url, "restored", {
    messages: [user("Which word is last?")],
    kvasir: { context: "book" },
  });
  const share = (100 * restored.ms / cold).toFixed(1);
  console.log(`after a restart: ${restored.ms.toFixed(0)} ms, ${restored.cached} tokens reused: ${share} % of cold`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
