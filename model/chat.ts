/**
 * Conversations to ids, through the chat template that a model was trained with.
 *
 * There is no default template: a model without one was not trained for conversations, or its file lost it, and a guess would
 * only look like an answer.
 *
 * @module
 */
import type { Conversation, Message } from "./model.ts";
import { Unsupported } from "../core/errors.ts";
import { ChatGuard } from "./chat_guard.ts";
import { Template } from "./chat_template.ts";
import type { TextTokenizer } from "./tokenizer.ts";
import type { TextPart } from "./tokenizer_special.ts";

/** How a conversation is rendered. */
export type ChatOptions = Omit<Conversation, "messages">;

/** A model's chat template with its tokenizer. Stateless: every call renders the whole conversation. */
export class Chat {
  readonly #template: Template;
  readonly #guard: ChatGuard;

  /**
   * `source` is the Jinja template (`tokenizer.chat_template`, `chat_template.jinja`). Throws `Unsupported` when it is undefined,
   * `ModelFileError` when it is no template.
   */
  constructor(source: string | undefined, readonly tokenizer: TextTokenizer) {
    if (source === undefined) {
      throw new Unsupported('Cannot chat: the model has no chat template; continue a text with "generate --raw"');
    }
    this.#template = new Template(source);
    this.#guard = new ChatGuard(tokenizer.controlTexts());
  }

  /**
   * Ids of a conversation. Control tokens come from the template alone: whatever messages and tools contain stays text.
   *
   * Throws `RangeError` with the template's own words when it refuses the conversation, `TypeError` for a message that is none.
   */
  encode(messages: readonly Message[], options: ChatOptions = {}): number[] {
    const { tokenizer } = this;
    const ids = tokenizer.encodeParts(this.#parts(messages, options), { bos: false });
    // Templates that begin with BOS write it themselves.
    if (tokenizer.addBos && tokenizer.bos !== undefined && ids[0] !== tokenizer.bos) ids.unshift(tokenizer.bos);
    return ids;
  }

  /** The conversation as the template writes it, to look at; {@link encode} knows which tokens in it are real. */
  render(messages: readonly Message[], options: ChatOptions = {}): string {
    return this.#parts(messages, options).map((part) => part.text).join("");
  }

  #parts(messages: readonly Message[], options: ChatOptions): TextPart[] {
    messages.forEach(check);
    const { tokenizer } = this;
    const { tools, variables = {}, continueFinalMessage = false } = options;
    const { addGenerationPrompt = !continueFinalMessage } = options;
    if (continueFinalMessage && (addGenerationPrompt || messages.at(-1)?.role !== "assistant")) {
      throw new RangeError(
        "Cannot render conversation: only a last message of the assistant can be continued, without a new turn",
      );
    }
    const texts = [this.#template.source, ...strings([messages, tools, variables])];
    const mark = this.#guard.mark(texts);
    // Where the last message ends, in whatever the template makes of it.
    const end = continueFinalMessage ? this.#guard.mark([...texts, mark]) : "";
    const guarded = messages.map(({ role, ...rest }, i) => {
      const inner = this.#guard.protectAll(rest, mark) as Omit<Message, "role">;
      return { role, ...inner, content: i === messages.length - 1 ? inner.content + end : inner.content };
    });
    const text = (id: number | undefined) => id === undefined ? "" : new TextDecoder().decode(tokenizer.bytes(id));
    const rendered = this.#template.render({
      ...this.#guard.protectAll(variables, mark) as Record<string, unknown>,
      messages: guarded,
      ...tools === undefined ? {} : { tools: this.#guard.protectAll(tools, mark) },
      bos_token: text(tokenizer.bos),
      eos_token: text(tokenizer.mainEos),
      add_generation_prompt: addGenerationPrompt,
    });
    if (!continueFinalMessage) return this.#guard.parts(rendered, mark);
    const at = rendered.lastIndexOf(end);
    if (at < 0) throw new RangeError("Cannot render conversation: the template leaves the last message out");
    return this.#guard.parts(rendered.slice(0, at).replaceAll(end, ""), mark);
  }
}

function check(message: Message, i: number): void {
  const { role, content } = message ?? {};
  if (typeof role !== "string" || !/^[A-Za-z_-]{1,32}$/.test(role)) {
    throw new TypeError(`Cannot render conversation: message ${i} has role ${JSON.stringify(role)}`);
  }
  if (typeof content !== "string") throw new TypeError(`Cannot render conversation: message ${i} has no text`);
}

/** Every string inside a JSON value. */
function strings(value: unknown, into: string[] = []): string[] {
  const left = [value];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next === "string") into.push(next);
    else if (typeof next === "object" && next !== null) left.push(...Object.keys(next), ...Object.values(next));
  }
  return into;
}
