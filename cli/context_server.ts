/**
 * `kvasir context … --server URL`: contexts of a running server.
 *
 * @module
 */
import { Command, Option } from "@commander-js/extra-typings";
import { type Json, ServerClient } from "../server/client.ts";
import { keyOption } from "./options.ts";
import { EXIT } from "./exit.ts";
import { readPrompt } from "./files.ts";
import { ProgressLine } from "./progress.ts";

interface ServerFlags {
  readonly server: string;
  readonly apiKey?: string | undefined;
}

/** The command. */
export function serverContextCommand(done: (code: number) => void): Command {
  const command = new Command("context").description("Lists, makes and removes the contexts of a server.");
  const sub = <U extends string>(usage: U, summary: string) =>
    command.command(usage).description(summary)
      .addOption(new Option("--server <url>", "which server").env("KVASIR_SERVER").makeOptionMandatory())
      .addOption(keyOption())
      .option("--json", "print JSON");
  const client = ({ server, apiKey }: ServerFlags) => new ServerClient(server, apiKey);
  const path = (name: string, rest = "") => `/v1/contexts/${encodeURIComponent(name)}${rest}`;

  sub("list", "all of them, the most recently used first").action(async (flags) => {
    const { data } = await client(flags).ask("GET", "/v1/contexts?limit=100");
    if (flags.json) console.log(JSON.stringify(data));
    else for (const context of data) console.log(lineOf(context));
    done(EXIT.OK);
  });
  sub("show <name>", "one of them, by name or id").action(async (name, flags) => {
    console.log(JSON.stringify(await client(flags).ask("GET", path(name)), undefined, 2));
    done(EXIT.OK);
  });
  sub("create <name> <file>", "read a text file; - is standard input").action(async (name, file, flags) => {
    const content = await (file === "-" ? readPrompt("-", undefined) : readPrompt(undefined, file));
    const progress = new ProgressLine(Deno.stderr.isTerminal());
    const body = { name, messages: [{ role: "user", content }] };
    for await (const event of client(flags).events("/v1/contexts", body)) {
      if (event.progress !== undefined) {
        progress.report({ phase: "prefill", done: event.progress.processed, total: event.progress.total });
      } else {
        progress.clear();
        console.log(flags.json ? JSON.stringify(event) : lineOf(event));
      }
    }
    done(EXIT.OK);
  });
  sub("fork <name> <new-name>", "another one that begins as it does").action(async (name, to, flags) => {
    const made = await client(flags).ask("POST", path(name, "/fork"), { name: to });
    console.log(flags.json ? JSON.stringify(made) : lineOf(made));
    done(EXIT.OK);
  });
  sub("rm <name>", "remove it").option("--force", "also while it is in use").action(async (name, flags) => {
    await client(flags).ask("DELETE", path(name, flags.force ? "?force=true" : ""));
    done(EXIT.OK);
  });
  return command as unknown as Command;
}

function lineOf({ id, name, tokens, bytes, index }: Json): string {
  const size = `${(bytes.memory / 2 ** 20).toFixed(1)} MiB`;
  return [name ?? id, `${tokens} tokens`, size, index].filter((field) => field !== "").join("\t");
}
