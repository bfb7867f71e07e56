import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { type Json, openServer, readEvents } from "./server_fixture.ts";
import { askForSchemas } from "./server_schemas.ts";
import { probeTemplate, ToolCallReader, toolGrammar, withToolTexts } from "../server/tools.ts";

const CHAT = "/v1/chat/completions";
/** The tiny model rambles: what ends strings and lists is made likelier. */
const SHORT = { logit_bias: { "34": 5, "125": 4, "93": 4 } };
const messages = [{ role: "user", content: "Weather?" }];
const tools = [{
  type: "function" as const,
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { enum: ["Rome", "Oslo"] } }, required: ["city"] },
  },
}];

describe("response_format", () => {
  it("gives JSON of the schema, whatever schema and prompt are", async () => {
    await using server = await openServer();
    const { finished, all } = await askForSchemas(server, 40, SHORT);
    assert(finished > 0.8 * all, `${finished} of ${all} finished`);
  });

  it("gives an object, and says which keyword of a schema it does not understand", async () => {
    await using server = await openServer();
    const object = {
      messages,
      temperature: 1,
      seed: 3,
      max_tokens: 300,
      response_format: { type: "json_object" },
      ...SHORT,
    };
    const [{ message, finish_reason }] = (await (await server.post(CHAT, object)).json()).choices;
    assertEquals(finish_reason, "stop");
    assertEquals(typeof JSON.parse(message.content), "object");
    const schema = { properties: { a: { pattern: "x" } } };
    const refused = await server.post(CHAT, {
      messages,
      response_format: { type: "json_schema", json_schema: { name: "x", schema } },
    });
    const { error } = await refused.json();
    assertEquals([refused.status, error.param], [400, "response_format.json_schema.schema"]);
    assert(error.message.includes("#/properties/a/pattern"), error.message);
  });
});

describe("grammar", () => {
  const ask = { messages, temperature: 1, seed: 5, max_tokens: 40 };

  it("gives text of a GBNF, in chats and completions", async () => {
    await using server = await openServer();
    const grammar = 'root ::= "[" word ("," word){1,3} "]"\nword ::= [a-z]{2,5}';
    const form = /^\[[a-z]{2,5}(,[a-z]{2,5}){1,3}\]$/;
    const chat = (await (await server.post(CHAT, { ...ask, grammar })).json()).choices[0];
    assert(form.test(chat.message.content) && chat.finish_reason === "stop", JSON.stringify(chat));
    const all = { ...ask, prompt: "A list:", grammar, typical_p: 0.9 };
    const completed = (await (await server.post("/v1/completions", all)).json()).choices[0];
    assert(form.test(completed.text) && completed.finish_reason === "stop", JSON.stringify(completed));
  });

  it("that goes wrong on its way ends its own request, and no other's", async () => {
    await using server = await openServer();
    // The tiny model has no token for the first byte of é alone.
    const stuck = server.post(CHAT, { ...ask, grammar: "root ::= [a-z]{3} [é]" });
    const fine = server.post(CHAT, { ...ask, max_tokens: 30 });
    const error = (await (await stuck).json()).error;
    assertEquals([error.type, error.code], ["invalid_request_error", 400]);
    assert(error.message.includes("no token of the model goes on"), error.message);
    const { usage } = await (await fine).json();
    assert(usage.completion_tokens > 0);
    const tools = [{ type: "function", function: { name: "f" } }];
    const both = await server.post(CHAT, { ...ask, tools, tool_choice: "required", grammar: 'root ::= "x"' });
    assertEquals([both.status, (await both.json()).error.param], [400, "grammar"]);
  });
});

describe("tools", () => {
  it("are called when they must be, whole and streamed", async () => {
    await using server = await openServer({ tiny: { contextLength: 2000 } });
    const ask = {
      messages,
      tools,
      tool_choice: "required",
      parallel_tool_calls: false,
      temperature: 0,
      max_tokens: 100,
    };
    const [choice] = (await (await server.post(CHAT, ask)).json()).choices;
    assertEquals([choice.finish_reason, choice.message.content], ["tool_calls", null]);
    const [call] = choice.message.tool_calls;
    assertEquals([call.type, call.function.name], ["function", "get_weather"]);
    assert(["Rome", "Oslo"].includes(JSON.parse(call.function.arguments).city));
    const { events } = await readEvents(await server.post(CHAT, { ...ask, stream: true }));
    const deltas = events.flatMap((e: Json) => e.choices[0]?.delta.tool_calls ?? []);
    assertEquals(deltas.map((d: Json) => [d.index, d.function]), [[0, call.function]]);
    assertEquals(events.at(-1).choices[0].finish_reason, "tool_calls");
    const named = { ...ask, tool_choice: { type: "function", function: { name: "get_weather" } } };
    assertEquals((await (await server.post(CHAT, named)).json()).choices[0].message.tool_calls.length, 1);
    const none = (await (await server.post(CHAT, { ...ask, tool_choice: "none" })).json()).choices[0];
    assertEquals([none.message.tool_calls, none.finish_reason === "tool_calls"], [undefined, false]);
    for (
      const wrong of [{ tool_choice: { type: "function", function: { name: "x" } } }, {
        tools: [],
        tool_choice: "required",
      }]
    ) {
      assertEquals((await server.post(CHAT, { ...ask, ...wrong })).status, 400);
    }
    const history = [
      ...messages,
      { role: "assistant", content: null, tool_calls: [{ ...call, id: "c1" }] },
      { role: "tool", tool_call_id: "c1", content: "Sunny" },
    ];
    assertEquals((await server.post(CHAT, { ...ask, messages: history, tool_choice: "auto" })).status, 200);
  });

  it("are read in both formats, however the text is cut; what is no call stays text", () => {
    const read = (format: "hermes" | "llama3_json", text: string, size: number) => {
      const reader = new ToolCallReader(format);
      const parts = [];
      for (let i = 0; i < text.length; i += size) parts.push(reader.push(text.slice(i, i + size)));
      parts.push(reader.flush());
      const calls = parts.flatMap((p) => p.calls).map((c) => [c.function.name, c.function.arguments]);
      return { text: parts.map((p) => p.text).join(""), calls };
    };
    const hermes =
      'Let me see. \n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>{"name":"g"}</tool_call>';
    for (const size of [1, 2, 7, 1000]) {
      assertEquals(read("hermes", hermes, size), { text: "Let me see.", calls: [["f", '{"a":1}'], ["g", "{}"]] });
      const llama = '{"name": "f", "parameters": {"a": "}"}}';
      assertEquals(read("llama3_json", llama, size), { text: "", calls: [["f", '{"a":"}"}']] });
      for (const plain of ["a < b <tool", "<tool_call>nonsense</tool_call>", "{not json}", "  spaces  "]) {
        for (const format of ["hermes", "llama3_json"] as const) {
          assertEquals(read(format, plain, size), { text: plain, calls: [] });
        }
      }
    }
    assertEquals(read("hermes", '<tool_call>{"name":"f"}', 3), { text: "", calls: [["f", "{}"]] });
  });

  it("follow the model's template, or are told of in words", async () => {
    const qwen = await probeTemplate(() => Promise.resolve('kvasir_probe <tool_call>{"name"'));
    assertEquals(qwen, { format: "hermes", knowsTools: true });
    const llama = await probeTemplate(() => Promise.resolve('kvasir_probe {"name": "x", "parameters": {"a": 1}}'));
    assertEquals(llama, { format: "llama3_json", knowsTools: true });
    assertEquals(await probeTemplate(() => Promise.reject(new RangeError("no"))), {
      format: "hermes",
      knowsTools: false,
    });
    const told = withToolTexts({
      messages: [{ role: "system", content: "Be kind." }, { role: "tool", content: "42" }],
      tools,
    });
    assert(told.tools === undefined && told.messages[0]?.content.startsWith("Be kind.\n\n# Tools"));
    assertEquals(told.messages[1], { role: "user", content: "<tool_response>\n42\n</tool_response>" });
    assertEquals(toolGrammar({ messages, tools, tool_choice: "auto" } as Json, tools, "hermes"), undefined);
  });
});
