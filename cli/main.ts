/**
 * The command line: `./kvasir --help`.
 *
 * commander stands in for Cliffy, which is on JSR only; this folder is the one place to swap it back in.
 *
 * @module
 */
import { Command, CommanderError } from "@commander-js/extra-typings";
import denoJson from "../deno.json" with { type: "json" };
import { expandConfig } from "./config.ts";
import { describeError, EXIT, exitCode } from "./exit.ts";
import { normalizeArguments } from "./options.ts";

type Loader = (done: (code: number) => void, args: readonly string[]) => Promise<Command>;

/** Commands by name; each file is imported only when it runs, so that start-up pays for one. */
const COMMANDS: Readonly<Record<string, { readonly summary: string; readonly load: Loader }>> = {
  generate: {
    summary: "answer one prompt",
    load: async (done) => (await import("./generate.ts")).generateCommand(done),
  },
  chat: { summary: "talk to a model", load: async (done) => (await import("./chat.ts")).chatCommand(done) },
  serve: {
    summary: "answer OpenAI's clients over HTTP",
    load: async (done) => (await import("./serve.ts")).serveCommand(done),
  },
  perplexity: {
    summary: "score a text, or compare logits with a saved run",
    load: async (done) => (await import("./perplexity.ts")).perplexityCommand(done),
  },
  plan: {
    summary: "say what a model takes at a length, before loading it",
    load: async (done) => (await import("./plan.ts")).planCommand(done),
  },
  compare: {
    summary: "answer one prompt by several ways to attend, side by side",
    load: async (done) => (await import("./compare.ts")).compareCommand(done),
  },
  context: {
    summary: "list, show, save, fork, verify, delete and prune contexts; a server's with --server",
    load: async (done) => (await import("./context.ts")).contextCommand(done),
  },
  models: {
    summary: "list, pull, show and remove models",
    load: async (done) => (await import("./models.ts")).modelsCommand(done),
  },
  doctor: {
    summary: "check this machine and installation",
    load: async (done) => (await import("./doctor.ts")).doctorCommand(done),
  },
  bench: {
    summary: "measure speed, or a matrix of methods",
    load: async (done, args) => await (await import("./bench.ts")).benchCommand(done, args),
  },
};

/** Those that ask a server, where one is named. */
const SERVER_COMMANDS: typeof COMMANDS = {
  context: {
    summary: "list, make and remove contexts of a server",
    load: async (done) => (await import("./context_server.ts")).serverContextCommand(done),
  },
};

/** Runs one command line; resolves to the exit code. */
export async function main(given: readonly string[]): Promise<number> {
  let args: readonly string[];
  try {
    args = expandConfig(given, (name) => Deno.env.get(name));
  } catch (error) {
    console.error(`kvasir: ${describeError(error)}`);
    return exitCode(error);
  }
  let code: number = EXIT.OK;
  const done = (result: number): void => {
    code = result;
  };
  const program = new Command("kvasir")
    .description("Runs long-context language models by treating the KV cache as a search index.")
    .version(denoJson.version, "-V, --version")
    .exitOverride()
    .showHelpAfterError("Run with --help for the list of flags.")
    .configureHelp({ helpWidth: 110 })
    // Commander's own answer reads more of the environment than the entry script grants.
    .configureOutput({
      getOutHasColors: () => !Deno.noColor && Deno.stdout.isTerminal(),
      getErrHasColors: () => !Deno.noColor && Deno.stderr.isTerminal(),
      outputError: (text, write) =>
        write(text.replace(/^error: (.)/, (_, first: string) => `kvasir: ${first.toUpperCase()}`)),
    })
    .addHelpText("after", "\nThe project's own tests: ./kvasir test");
  if (args[0] === "help" && args.length > 1) args = [...args.slice(1), "--help"];
  const wanted = args.find((arg) => !arg.startsWith("-"));
  const asksServer = args.some((arg) => /^--server(=|$)/.test(arg)) || Deno.env.get("KVASIR_SERVER") !== undefined;
  const commands = asksServer ? { ...COMMANDS, ...SERVER_COMMANDS } : COMMANDS;
  for (const [name, { summary, load }] of Object.entries(commands)) {
    if (name === wanted) program.addCommand((await load(done, args)).summary(summary).exitOverride());
    else program.addCommand(new Command(name).summary(summary));
  }
  for (const command of program.commands) inheritSettings(command as unknown as Command, program as unknown as Command);
  if (args.length === 0) {
    program.outputHelp();
    return EXIT.USAGE;
  }
  try {
    await program.parseAsync(normalizeArguments(args), { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.USAGE;
    // Whoever read our output has enough of it: nothing to complain about.
    if (error instanceof Deno.errors.BrokenPipe) return EXIT.OK;
    console.error(`kvasir: ${describeError(error)}`);
    if (Deno.env.get("KVASIR_DEBUG") === "1" && error instanceof Error) console.error(error.stack);
    return exitCode(error);
  }
}

function inheritSettings(command: Command, from: Command): void {
  command.copyInheritedSettings(from);
  // For the help: a file of settings is read before flags are parsed.
  if (command.commands.length === 0) command.option("--config <file>", "flags from a JSON file");
  for (const child of command.commands) inheritSettings(child as unknown as Command, command);
}

if (import.meta.main) Deno.exit(await main(Deno.args));
