/**
 * LangChain's OpenAI provider: `deno run -A --no-lock bench/clients/langchain.mjs URL`.
 *
 * @module
 */
import assert from "node:assert/strict";
import { ChatOpenAI, OpenAI } from "npm:@langchain/openai@1.6.0";

const [url = "http://127.0.0.1:5827"] = Deno.args;
const { data } = await (await fetch(`${url}/v1/models`)).json();
const settings = {
  model: data[0].id,
  apiKey: "none",
  temperature: 0,
  maxTokens: 24,
  maxRetries: 0,
  configuration: { baseURL: `${url}/v1` },
};
const model = new ChatOpenAI(settings);

const whole = await model.invoke("Name three colours.");
assert.ok(whole.content.length > 0 && whole.usage_metadata.output_tokens > 0);
let text = "";
for await (const chunk of await model.stream("Name three colours.")) text += chunk.content;
assert.equal(text, whole.content);
const stop = text.slice(5, 9);
assert.equal((await model.invoke("Name three colours.", { stop: [stop] })).content, text.slice(0, text.indexOf(stop)));
const probable = await new ChatOpenAI({ ...settings, logprobs: true, topLogprobs: 2, maxTokens: 3 }).invoke("Hi");
assert.equal(probable.response_metadata.logprobs.content.length, 3);

const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
  required: ["city"],
};
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters } }];
const bound = new ChatOpenAI({ ...settings, maxTokens: 100 }).bindTools(tools, { tool_choice: "required" });
const called = await bound.invoke("Weather in Oslo?");
assert.equal(called.tool_calls[0].name, "get_weather");
assert.ok(["Rome", "Oslo"].includes(called.tool_calls[0].args.city));
const schema = {
  title: "colour",
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "blue"] } },
  required: ["colour"],
  additionalProperties: false,
};
const structured = new ChatOpenAI({ ...settings, maxTokens: 100 }).withStructuredOutput(schema, {
  name: "colour",
  method: "jsonSchema",
});
assert.ok(["red", "blue"].includes((await structured.invoke("A colour?")).colour));
const legacy = new OpenAI(settings);
assert.match(await legacy.invoke("One, two, three,"), /four/);
await assert.rejects(new ChatOpenAI({ ...settings, model: "other" }).invoke("Hi"), /this server has/);
console.log("LangChain: chat, completions, streaming, logprobs, stop, tools, json_schema, errors pass");
