/**
 * `kvasir chat`: a conversation on the terminal.
 *
 * @module
 */
import { createInterface, type Interface } from "node:readline/promises";
import process from "node:process";
import { type Command, Option } from "@commander-js/extra-typings";
import type { Sampling, Timings, TokenEvent } from "../engine/types.ts";
import type { EngineContexts } from "../engine/context_types.ts";
import type { Message } from "../model/model.ts";
import { Unsupported } from "../core/errors.ts";
import { readText } from "./files.ts";
import { formatTimings } from "./generate.ts";
import { Conversation, SETTINGS } from "./conversation.ts";
import { describeError, EXIT, exitCode, UsageError } from "./exit.ts";
import { contextDir, engineOptions, keyOption, samplingCommand, samplingOptions } from "./options.ts";
import { ServerClient } from "../server/client.ts";
import { ProgressLine } from "./progress.ts";
import { type Session, Signals, withEngine } from "./session.ts";

const HELP = `/set NAME VALUE   change a setting: ${Object.keys(SETTINGS).join(", ")}
/show             settings and size of the conversation
/clear            forget the conversation
/regen            answer the last question again
/read FILE        send a file's text
/save NAME        save the conversation with its context; a path (a/b, x.json) takes the text alone
/load NAME        continue what was saved, without reading it again
/fork [NAME]      keep the conversation so far (as a context of that name); /load fork returns to it
/exit             leave (also Ctrl+D, or Ctrl+C twice)
"""               begins and ends a text of several lines`;

/** Earlier turns stay in memory, so that only new ones are read: bytes. */
const CONTEXT_RAM = 4 * 2 ** 30;

/** The command, for `main.ts`. */
export function chatCommand(done: (code: number) => void): Command {
  const command = samplingCommand("chat")
    .description("Talks to a model; /? lists what can be typed.")
    .option("--system <text>", "system message")
    .addOption(
      new Option("--server <url>", "talk to a running server instead of a model of one's own").env("KVASIR_SERVER"),
    )
    .addOption(keyOption())
    .action(async (flags) => {
      if (flags.server !== undefined) {
        done(await chatWithServer(flags.server, flags.apiKey, flags.system, samplingOptions(flags)));
        return;
      }
      const code = await withEngine(
        { ...engineOptions(flags), contextRam: CONTEXT_RAM, contextDir: contextDir(flags) },
        async (session) => {
          const info = await session.engine.info();
          if (!info.chatTemplate) {
            throw new Unsupported(
              `Cannot chat: "${info.config.name}" has no chat template; use generate, which continues a text`,
            );
          }
          console.error(`${info.config.name} on ${info.backend}, ${info.ctxSize} tokens. /? for help.`);
          return await converse(session, new Conversation(flags.system), samplingOptions(flags));
        },
      );
      done(code);
    });
  return command as unknown as Command;
}

async function chatWithServer(
  url: string,
  key: string | undefined,
  system: string | undefined,
  sampling: Partial<Sampling>,
): Promise<number> {
  const client = new ServerClient(url, key);
  const [model] = (await client.ask("GET", "/v1/models")).data;
  console.error(`${model.id} on ${url}, ${model.max_model_len} tokens. /? for help.`);
  using signals = new Signals();
  const progress = new ProgressLine(Deno.stderr.isTerminal());
  const session = { engine: client, progress, signal: signals.signal, peakBytes: () => Deno.memoryUsage().rss };
  const code = await converse(session, new Conversation(system), sampling);
  return signals.code ?? code;
}

/** What a conversation needs of a session: its answers may come from elsewhere. */
type Talk = Omit<Session, "engine"> & {
  readonly engine: {
    generate(
      messages: readonly Message[],
      options: Partial<Sampling> & { readonly signal: AbortSignal },
    ): AsyncIterable<TokenEvent>;
    readonly contexts?: EngineContexts;
  };
};

async function converse(session: Talk, conversation: Conversation, sampling: Partial<Sampling>): Promise<number> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr, terminal: process.stdin.isTTY });
  const lines = new Lines(terminal);
  const stopper = new Stopper(terminal, session.signal, () => lines.interrupt());
  let settings = { ...sampling };
  // Whoever types has read what failed; a script hears it by the exit code.
  let failure: number = EXIT.OK;
  try {
    while (!stopper.leaving) {
      const line = await readTurn(lines);
      if (line === undefined) break;
      if (line.trim() === "") continue;
      stopper.reset();
      try {
        if (line.startsWith("/")) {
          const outcome = await runCommand(line, session, conversation, settings);
          if (outcome === "exit") break;
          if (typeof outcome === "object") settings = outcome;
          if (outcome !== "answer") continue;
        } else {
          conversation.ask(line);
        }
        await answer(session, conversation, settings, stopper.signal);
      } catch (error) {
        if (stopper.leaving) break;
        session.progress.clear();
        console.error(`kvasir: ${describeError(error)}`);
        if (!Deno.stdin.isTerminal()) failure = exitCode(error);
        conversation.forgetUnanswered();
      }
    }
  } finally {
    terminal.close();
  }
  return stopper.leaving ? EXIT.SIGINT : failure;
}

/** Ctrl+C stops what runs, or clears what was typed; twice in a row leaves. */
class Stopper {
  leaving = false;
  #controller = new AbortController();

  constructor(terminal: Interface, outer: AbortSignal, onStop: () => void) {
    const stop = (): void => {
      if (this.#controller.signal.aborted) this.leaving = true;
      this.#controller.abort(new DOMException("Interrupted", "AbortError"));
      onStop();
    };
    terminal.on("SIGINT", stop);
    outer.addEventListener("abort", () => {
      this.leaving = true;
      stop();
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** An earlier stop is over once something new was typed. */
  reset(): void {
    if (this.#controller.signal.aborted && !this.leaving) this.#controller = new AbortController();
  }
}

/** Typed or piped lines, kept until they are asked for: a pipe delivers them faster than answers are made. */
class Lines {
  readonly #queue: string[] = [];
  #waiting: ((line: string | undefined) => void) | undefined;
  #closed = false;

  constructor(private readonly terminal: Interface) {
    terminal.on("line", (line: string) => {
      if (this.#waiting === undefined) this.#queue.push(line);
      else this.#answer(line);
    });
    terminal.on("close", () => {
      this.#closed = true;
      this.#answer(undefined);
    });
  }

  /** The next line; undefined at the end of input. */
  next(prompt: string): Promise<string | undefined> {
    const line = this.#queue.shift();
    if (line !== undefined || this.#closed) return Promise.resolve(line);
    this.terminal.setPrompt(Deno.stdin.isTerminal() ? prompt : "");
    this.terminal.prompt();
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  /** Ends a wait as if nothing had been typed. */
  interrupt(): void {
    if (this.#waiting === undefined) return;
    console.error("\n(Ctrl+C again, or /exit, leaves)");
    this.#answer("");
  }

  #answer(line: string | undefined): void {
    const resolve = this.#waiting;
    this.#waiting = undefined;
    resolve?.(line);
  }
}

/** One turn: a line, or everything between two `"""`. Undefined at the end of input. */
async function readTurn(lines: Lines): Promise<string | undefined> {
  const first = await lines.next("> ");
  if (first === undefined || !first.startsWith('"""')) return first;
  let text = first.slice(3);
  while (!text.endsWith('"""')) {
    const next = await lines.next(". ");
    if (next === undefined) return undefined;
    text += `\n${next}`;
  }
  return text.slice(0, -3).trim();
}

async function runCommand(
  line: string,
  { engine }: Talk,
  conversation: Conversation,
  settings: Partial<Sampling>,
): Promise<"exit" | "done" | "answer" | Partial<Sampling>> {
  const [name = "", ...rest] = line.trim().split(/\s+/);
  const argument = rest.join(" ");
  switch (name) {
    case "/exit":
    case "/bye":
      return "exit";
    case "/?":
    case "/help":
      console.error(HELP);
      return "done";
    case "/set":
      return conversation.set(settings, rest[0] ?? "", rest.slice(1).join(" "));
    case "/show":
      console.error(conversation.show(settings));
      return "done";
    case "/clear":
      conversation.clear();
      return "done";
    case "/regen":
      conversation.forgetAnswer();
      return "answer";
    case "/read":
      conversation.ask(await readText(argument));
      return "answer";
    case "/save":
      if (!isPath(argument)) return await saveContext(contextsOf(engine), argument, conversation);
      await Deno.writeTextFile(argument, conversation.save());
      console.error(`saved to ${argument}`);
      return "done";
    case "/load":
      if (argument === "fork") conversation.returnToFork();
      else if (!isPath(argument)) {
        const messages = await contextsOf(engine).messages(argument);
        if (messages === undefined) {
          throw new UsageError(`Cannot load "${argument}": it was made from text; use generate`);
        }
        conversation.restore(messages);
      } else conversation.load(await readText(argument), argument);
      console.error(conversation.show(settings));
      return "done";
    case "/fork":
      conversation.fork();
      return argument === "" ? "done" : await saveContext(contextsOf(engine), argument, conversation);
    default:
      console.error(`Unknown command "${name}"; /? lists them`);
      return "done";
  }
}

/** Names of contexts have no slash and are no `.json`. */
function isPath(argument: string): boolean {
  return argument.includes("/") || argument.endsWith(".json");
}

function contextsOf({ contexts }: Talk["engine"]): EngineContexts {
  if (contexts !== undefined) return contexts;
  throw new UsageError(
    "Cannot use contexts: a server's are its own (kvasir context --server); give a path, as ./x.json",
  );
}

/** The turns so far were read already: little is read again. */
async function saveContext(contexts: EngineContexts, name: string, { messages }: Conversation): Promise<"done"> {
  if (messages.length === 0) throw new UsageError("Cannot save: nothing was said yet");
  const { tokens, bytes } = await contexts.create(messages, { name });
  console.error(`saved ${name}: ${tokens} tokens, ${(bytes.disk / 1e6).toFixed(1)} MB`);
  return "done";
}

async function answer(
  session: Talk,
  conversation: Conversation,
  settings: Partial<Sampling>,
  signal: AbortSignal,
): Promise<void> {
  let text = "";
  let timings: Timings | undefined;
  const messages: readonly Message[] = conversation.messages;
  for await (const event of session.engine.generate(messages, { ...settings, signal })) {
    if (event.type === "prefill") {
      session.progress.report({ phase: "prefill", done: event.done, total: event.total });
    } else if (event.type === "token") {
      if (text === "") session.progress.clear();
      text += event.text;
      await Deno.stdout.write(new TextEncoder().encode(event.text));
    } else {
      timings = event.timings;
    }
  }
  session.progress.clear();
  await Deno.stdout.write(new TextEncoder().encode("\n"));
  if (signal.aborted) console.error("(stopped)");
  conversation.answer(text);
  if (timings !== undefined && Deno.stderr.isTerminal()) console.error(formatTimings(timings, session.peakBytes()));
}
