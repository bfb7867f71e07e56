/**
 * OpenAI's own npm client against a server: `deno run -A --no-lock bench/clients/openai_npm.mjs URL`.
 *
 * @module
 */
import assert from "node:assert/strict";
import OpenAI, { APIError } from "npm:openai@7.57.0";

const [url = "http://127.0.0.1:5827"] = Deno.args;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Name three colours." }];
const plain = { model, messages, temperature: 0, max_tokens: 24 };

const chat = await client.chat.completions.create(plain);
assert.equal(chat.choices[0].message.role, "assistant");
assert.ok(chat.choices[0].message.content.length > 0 && chat.usage.completion_tokens > 0);

let text = "", usage;
for await (
  const chunk of await client.chat.completions.create({
    ...plain,
    stream: true,
    stream_options: { include_usage: true },
  })
) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, chat.choices[0].message.content);
assert.deepEqual(usage.completion_tokens, chat.usage.completion_tokens);

const runner = client.chat.completions.stream(plain);
assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);

const completion = await client.completions.create({
  model,
  prompt: "One, two, three,",
  max_tokens: 6,
  temperature: 0,
  logprobs: 2,
});
assert.match(completion.choices[0].text, /four/);
assert.equal(completion.choices[0].logprobs.tokens.length, 6);
let legacy = "";
for await (
  const chunk of await client.completions.create({
    model,
    prompt: "One, two, three,",
    max_tokens: 6,
    temperature: 0,
    stream: true,
  })
) {
  legacy += chunk.choices[0].text;
}
assert.equal(legacy, completion.choices[0].text);

const probable = await client.chat.completions.create({ ...plain, logprobs: true, top_logprobs: 5, max_tokens: 3 });
assert.equal(probable.choices[0].logprobs.content.length, 3);
assert.equal(probable.choices[0].logprobs.content[0].top_logprobs.length, 5);

const stop = text.slice(5, 9);
const stopped = await client.chat.completions.create({ ...plain, stop: [stop] });
assert.equal(stopped.choices[0].message.content, text.slice(0, text.indexOf(stop)));

const seeded = { ...plain, temperature: 1, seed: 11, max_tokens: 12 };
const twice = await Promise.all([client.chat.completions.create(seeded), client.chat.completions.create(seeded)]);
assert.equal(twice[0].choices[0].message.content, twice[1].choices[0].message.content);

const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather of a city", parameters } }];
const asked = {
  model,
  messages: [{ role: "user", content: "What is the weather in Oslo?" }],
  tools,
  tool_choice: "required",
  temperature: 0,
  max_tokens: 100,
};
const called = await client.chat.completions.create(asked);
const [call] = called.choices[0].message.tool_calls;
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.equal(call.function.name, "get_weather");
assert.ok(["Rome", "Oslo"].includes(JSON.parse(call.function.arguments).city));
const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
const answered = await client.chat.completions.create({
  ...asked,
  tool_choice: "auto",
  messages: [...asked.messages, called.choices[0].message, {
    role: "tool",
    tool_call_id: call.id,
    content: "Sunny, 21 degrees",
  }],
});
assert.ok(answered.choices[0].message);

const schema = {
  type: "object",
  properties: { colours: { type: "array", items: { type: "string", enum: ["red", "green", "blue"] }, maxItems: 3 } },
  required: ["colours"],
  additionalProperties: false,
};
const structured = await client.chat.completions.parse({
  ...plain,
  max_tokens: 200,
  response_format: { type: "json_schema", json_schema: { name: "colours", schema, strict: true } },
});
assert.ok(Array.isArray(JSON.parse(structured.choices[0].message.content).colours));

for (
  const [body, status] of [[{ model: "other" }, 404], [{ temperature: -1 }, 400], [{ messages: [] }, 400], [
    { n: 3 },
    400,
  ]]
) {
  await assert.rejects(
    client.chat.completions.create({ ...plain, ...body }),
    (error) => error instanceof APIError && error.status === status && error.error.message.length > 0,
  );
}
const leaving = await client.chat.completions.create({ ...plain, max_tokens: 500, stream: true });
for await (const _ of leaving) {
  leaving.controller.abort();
  break;
}
console.log(`openai (npm): chat, completions, streaming, logprobs, stop, seed, tools, json_schema, errors pass`);
