/**
 * Function calls: how models are told of functions, how calls are written, and how they are found in what a model says.
 *
 * Formats are those of Hermes (also Qwen's): `<tool_call>{"name": …, "arguments": …}</tool_call>`, and of Llama 3:
 * `{"name": …, "parameters": …}`.
 *
 * @module
 */
import type { Conversation, Message } from "../model/model.ts";
import type { Grammar } from "../engine/grammar.ts";
import type { ChatBody } from "./fields.ts";
import { wrong } from "./request.ts";

/** How a model writes calls. */
export type ToolFormat = "hermes" | "llama3_json";

/** What `--tool-call-parser` takes. */
export const TOOL_PARSERS = ["auto", "hermes", "llama3_json", "none"] as const;

/** One of {@link TOOL_PARSERS}. */
export type ToolParserName = (typeof TOOL_PARSERS)[number];

/** What a model's template does with tools. */
export interface TemplateTools {
  /** The format in which it writes calls. */
  readonly format: ToolFormat;
  /** Whether it tells the model of tools at all; if not, we do. */
  readonly knowsTools: boolean;
}

type Tool = NonNullable<ChatBody["tools"]>[number];

const PROBE = "kvasir_probe";

/** Finds out by rendering a conversation with a call in it. */
export async function probeTemplate(render: (conversation: Conversation) => Promise<string>): Promise<TemplateTools> {
  const call = { type: "function", function: { name: PROBE, arguments: { a: 1 } } };
  const messages: Message[] = [{ role: "user", content: "?" }, { role: "assistant", content: "", tool_calls: [call] }];
  const tools = [{ type: "function", function: { name: PROBE, description: "", parameters: { type: "object" } } }];
  let text = "";
  try {
    text = await render({ messages, tools, addGenerationPrompt: false });
  } catch {
    // A template that refuses such a conversation knows no tools.
  }
  const knowsTools = text.includes(PROBE);
  const isLlama = !text.includes("<tool_call>") && /"parameters":\s*\{\s*"a"/.test(text);
  return { format: isLlama ? "llama3_json" : "hermes", knowsTools };
}

/** The tools of a request that the model may call. Throws 400 for a choice that is none of them. */
export function offeredTools(body: ChatBody): readonly Tool[] {
  const tools = body.tools ?? [];
  const choice = body.tool_choice ?? "auto";
  if (choice === "none") return [];
  if (choice === "required" && tools.length === 0) throw wrong("tool_choice", "there are no tools");
  if (typeof choice === "object" && !tools.some((t) => t.function.name === choice.function.name)) {
    throw wrong("tool_choice", "there is no tool of that name");
  }
  return tools;
}

/** What a choice of `required` or of one tool lets the model write; undefined: anything. */
export function toolGrammar(body: ChatBody, tools: readonly Tool[], format: ToolFormat): Grammar | undefined {
  const choice = body.tool_choice ?? "auto";
  if (choice === "auto" || choice === "none") return undefined;
  const named = typeof choice === "object" ? tools.filter((t) => t.function.name === choice.function.name) : tools;
  const one: Grammar = { anyOf: named.map((t) => callGrammar(t, format)) };
  const isMany = choice === "required" && body.parallel_tool_calls !== false && format === "hermes";
  return isMany ? { many: one, separator: "\n" } : one;
}

function callGrammar({ function: { name, parameters } }: Tool, format: ToolFormat): Grammar {
  const [open, key, close] = format === "hermes"
    ? ["<tool_call>\n", "arguments", "\n</tool_call>"]
    : ["", "parameters", ""];
  return {
    sequence: [
      { text: `${open}{"name": ${JSON.stringify(name)}, "${key}": ` },
      { json: parameters ?? { type: "object" } },
      { text: `}${close}` },
    ],
  };
}

/** The conversation with tools as plain text, for templates that know none. */
export function withToolTexts(conversation: Conversation): Conversation {
  const { tools = [], ...rest } = conversation;
  const messages = rest.messages.map((message): Message => {
    const { role, content, tool_calls } = message;
    if (role === "tool") return { role: "user", content: `<tool_response>\n${content}\n</tool_response>` };
    if (tool_calls === undefined) return message;
    const calls = tool_calls.map((call) => {
      const { name, arguments: args } = (call as { function: { name: string; arguments: unknown } }).function;
      return `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`;
    });
    return { role, content: [content, ...calls].filter((text) => text !== "").join("\n") };
  });
  if (tools.length === 0) return { ...rest, messages };
  const [first, ...others] = messages;
  const told = toolText(tools);
  const all: Message[] = first?.role === "system"
    ? [{ ...first, content: `${first.content}\n\n${told}` }, ...others]
    : [{ role: "system", content: told }, ...messages];
  return { ...rest, messages: all };
}

/** As Qwen's template words it. */
function toolText(tools: readonly unknown[]): string {
  return `# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
${tools.map((tool) => JSON.stringify(tool)).join("\n")}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`;
}

/** A call as OpenAI's clients get it. */
export interface ToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}

/** What a piece of text gave. */
export interface Parsed {
  /** What is said. */
  readonly text: string;
  /** Calls that are complete. */
  readonly calls: readonly ToolCall[];
}

const OPEN = "<tool_call>";
const CLOSE = "</tool_call>";

/** Finds calls in a stream of text; what is none comes through as it is. */
export class ToolCallReader {
  readonly #format: ToolFormat;
  #held = "";
  #isPlain = false;

  constructor(format: ToolFormat) {
    this.#format = format;
  }

  /** Takes the next piece. */
  push(piece: string): Parsed {
    this.#held += piece;
    return this.#format === "hermes" ? this.#hermes() : this.#llama();
  }

  /** The text is over. */
  flush(): Parsed {
    const held = this.#held;
    this.#held = "";
    if (held === "") return { text: "", calls: [] };
    if (this.#format === "llama3_json" && !this.#isPlain) {
      const calls = held.trim().split(/;\s*(?=\{)|\n(?=\{)/).map((text) => readCall(text));
      if (calls.every((call) => call !== undefined)) return { text: "", calls: calls as ToolCall[] };
    }
    // Some models forget to close.
    const at = held.indexOf(OPEN);
    const call = this.#format === "hermes" && at >= 0 ? readCall(held.slice(at + OPEN.length)) : undefined;
    return call === undefined ? { text: held, calls: [] } : { text: held.slice(0, at).trimEnd(), calls: [call] };
  }

  #hermes(): Parsed {
    const calls: ToolCall[] = [];
    let text = "";
    for (;;) {
      const open = this.#held.indexOf(OPEN);
      if (open < 0) {
        const keep = overlap(this.#held, OPEN);
        const said = this.#held.slice(0, this.#held.length - keep);
        // White space before a call belongs to it.
        const trimmed = said.trimEnd();
        text += trimmed;
        this.#held = this.#held.slice(trimmed.length);
        return { text, calls };
      }
      text += this.#held.slice(0, open).trimEnd();
      this.#held = this.#held.slice(open);
      const close = this.#held.indexOf(CLOSE);
      if (close < 0) return { text, calls };
      const call = readCall(this.#held.slice(OPEN.length, close));
      if (call === undefined) text += this.#held.slice(0, close + CLOSE.length);
      else calls.push(call);
      this.#held = this.#held.slice(close + CLOSE.length);
    }
  }

  #llama(): Parsed {
    const start = this.#held.trimStart();
    if (!this.#isPlain && (start === "" || start.startsWith("{"))) return { text: "", calls: [] };
    this.#isPlain = true;
    const text = this.#held;
    this.#held = "";
    return { text, calls: [] };
  }
}

function readCall(text: string): ToolCall | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { name, arguments: args, parameters } = value as Readonly<Record<string, unknown>>;
  if (typeof name !== "string") return undefined;
  const given = args ?? parameters ?? {};
  const id = `call_${crypto.randomUUID().replaceAll("-", "").slice(0, 24)}`;
  const written = typeof given === "string" ? given : JSON.stringify(given);
  return { id, type: "function", function: { name, arguments: written } };
}

/** Length of the longest ending of `text` that begins `mark`. */
function overlap(text: string, mark: string): number {
  for (let n = Math.min(text.length, mark.length - 1); n > 0; n--) if (text.endsWith(mark.slice(0, n))) return n;
  return 0;
}
