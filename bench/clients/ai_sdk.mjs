/**
 * Vercel's AI SDK with its OpenAI-compatible provider: `deno run -A --no-lock bench/clients/ai_sdk.mjs URL`.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createOpenAICompatible } from "npm:@ai-sdk/openai-compatible@3.0.92";
import { generateText, jsonSchema, Output, streamText, tool } from "npm:ai@7.0.173";

const [url = "http://127.0.0.1:5827"] = Deno.args;
const { data } = await (await fetch(`${url}/v1/models`)).json();
const provider = createOpenAICompatible({
  name: "kvasir",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider(data[0].id);
const plain = { model, prompt: "Name three colours.", temperature: 0, maxOutputTokens: 24, maxRetries: 0 };

const whole = await generateText(plain);
assert.ok(whole.text.length > 0 && whole.usage.outputTokens > 0);
let text = "";
const stream = streamText(plain);
for await (const piece of stream.textStream) text += piece;
assert.equal(text, whole.text);
assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
const stop = text.slice(5, 9);
assert.equal((await generateText({ ...plain, stopSequences: [stop] })).text, text.slice(0, text.indexOf(stop)));
const seeded = { ...plain, temperature: 1, seed: 3 };
assert.equal((await generateText(seeded)).text, (await generateText(seeded)).text);

const inputSchema = jsonSchema({
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
  required: ["city"],
});
const weather = tool({ description: "Weather of a city", inputSchema, execute: () => "sunny" });
const called = await generateText({
  ...plain,
  prompt: "Weather in Oslo?",
  tools: { weather },
  toolChoice: "required",
  maxOutputTokens: 100,
});
assert.equal(called.toolCalls[0].toolName, "weather");
assert.ok(["Rome", "Oslo"].includes(called.toolCalls[0].input.city));

const schema = jsonSchema({
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "blue"] } },
  required: ["colour"],
  additionalProperties: false,
});
const structured = await generateText({ ...plain, output: Output.object({ schema }), maxOutputTokens: 100 });
assert.ok(["red", "blue"].includes(structured.output.colour));
await assert.rejects(generateText({ ...plain, model: provider("other") }), /this server has/);
console.log("Vercel AI SDK: chat, streaming, stop, seed, tools, json_schema, errors pass");
