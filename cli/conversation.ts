/**
 * The state of a chat: messages, settings that `/set` changes, saving and loading. No terminal, no engine.
 *
 * @module
 */
import type { Sampling } from "../engine/types.ts";
import type { Message } from "../model/model.ts";
import { UsageError } from "./exit.ts";

/** What `/set` accepts: the sampling field and the range of its value. */
export const SETTINGS: Readonly<Record<string, { readonly field: keyof Sampling; min: number; max: number }>> = {
  temperature: { field: "temperature", min: 0, max: 100 },
  "top-k": { field: "topK", min: 0, max: 2 ** 31 },
  "top-p": { field: "topP", min: 0, max: 1 },
  "typical-p": { field: "typicalP", min: 0, max: 1 },
  "min-p": { field: "minP", min: 0, max: 1 },
  "repetition-penalty": { field: "repetitionPenalty", min: 0.01, max: 100 },
  "presence-penalty": { field: "presencePenalty", min: -100, max: 100 },
  "frequency-penalty": { field: "frequencyPenalty", min: -100, max: 100 },
  "max-tokens": { field: "maxTokens", min: 0, max: 2 ** 31 },
  seed: { field: "seed", min: 0, max: Number.MAX_SAFE_INTEGER },
};

const MAX_SAVED_MESSAGES = 100_000;

/** A conversation; turns alternate between user and assistant after an optional system message. */
export class Conversation {
  #messages: Message[] = [];
  #forked: readonly Message[] | undefined;

  constructor(private readonly system?: string | undefined) {
    this.clear();
  }

  get messages(): readonly Message[] {
    return this.#messages;
  }

  ask(text: string): void {
    this.#messages.push({ role: "user", content: text });
  }

  answer(text: string): void {
    this.#messages.push({ role: "assistant", content: text });
  }

  clear(): void {
    this.#messages = this.system === undefined ? [] : [{ role: "system", content: this.system }];
  }

  /** Drops a question that failed, so that the next one does not follow it. */
  forgetUnanswered(): void {
    if (this.#messages.at(-1)?.role === "user") this.#messages.pop();
  }

  /** Drops the last answer so that its question is asked again. */
  forgetAnswer(): void {
    if (this.#messages.at(-1)?.role === "assistant") this.#messages.pop();
    if (this.#messages.at(-1)?.role !== "user") throw new UsageError("Cannot regenerate: nothing was asked yet");
  }

  fork(): void {
    this.#forked = [...this.#messages];
  }

  returnToFork(): void {
    if (this.#forked === undefined) throw new UsageError("Cannot load: nothing was forked yet");
    this.#messages = [...this.#forked];
  }

  /** Settings with one changed. */
  set(settings: Partial<Sampling>, name: string, value: string): Partial<Sampling> {
    const setting = SETTINGS[name];
    if (setting === undefined) {
      throw new UsageError(`Cannot set "${name}": choose one of ${Object.keys(SETTINGS).join(", ")}`);
    }
    const number = Number(value);
    if (value === "" || !Number.isFinite(number) || number < setting.min || number > setting.max) {
      throw new UsageError(`Cannot set ${name}: "${value}" is not a number from ${setting.min} to ${setting.max}`);
    }
    return { ...settings, [setting.field]: number };
  }

  show(settings: Partial<Sampling>): string {
    const turns = this.#messages.filter((message) => message.role === "user").length;
    const characters = this.#messages.reduce((sum, message) => sum + message.content.length, 0);
    const set = Object.entries(SETTINGS)
      .map(([name, { field }]) => `${name} ${settings[field] ?? "(default)"}`);
    return `${turns} questions, ${characters} characters\n${set.join("\n")}`;
  }

  save(): string {
    return `${JSON.stringify({ format: "kvasir-conversation", version: 1, messages: this.#messages }, null, 2)}\n`;
  }

  /** Replaces the conversation. */
  restore(messages: readonly Message[]): void {
    this.#messages = [...messages];
  }

  /** Replaces the conversation by a saved one; nothing changes when the file is bad. */
  load(text: string, path: string): void {
    let data: unknown;
    try {
      data = JSON.parse(text);
    } catch {
      throw new UsageError(`Cannot load "${path}": not JSON`);
    }
    const saved = data as { format?: unknown; messages?: unknown };
    if (saved?.format !== "kvasir-conversation" || !Array.isArray(saved.messages)) {
      throw new UsageError(`Cannot load "${path}": not a saved conversation`);
    }
    if (saved.messages.length > MAX_SAVED_MESSAGES) throw new UsageError(`Cannot load "${path}": too many messages`);
    this.#messages = saved.messages.map((message: unknown, i): Message => {
      const { role, content } = (message ?? {}) as Record<string, unknown>;
      if ((role !== "system" && role !== "user" && role !== "assistant") || typeof content !== "string") {
        throw new UsageError(`Cannot load "${path}": message ${i} needs a role and content`);
      }
      return { role, content };
    });
  }
}
