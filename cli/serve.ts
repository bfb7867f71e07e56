/**
 * `kvasir serve`: answers OpenAI's clients over HTTP.
 *
 * @module
 */
import { Option } from "@commander-js/extra-typings";
import denoJson from "../deno.json" with { type: "json" };
import { makeApp } from "../server/app.ts";
import { listen } from "../server/listen.ts";
import { loadPlugins } from "../engine/plugins.ts";
import { OPENAI_SAMPLING } from "../server/request.ts";
import { TOOL_PARSERS } from "../server/tools.ts";
import { isLoopback } from "../server/security.ts";
import { Service } from "../server/service.ts";
import { EXIT, UsageError } from "./exit.ts";
import { readText } from "./files.ts";
import { JsonLines } from "./json_lines.ts";
import { decimal, engineOptions, integer, modelCommand } from "./options.ts";
import { withEngine } from "./session.ts";

/** Between two lines that say what the server does. */
const STATUS_SECONDS = 10;

const list = (text: string): string[] => text.split(",").map((item) => item.trim()).filter((item) => item !== "");

/** The command. */
// deno-lint-ignore explicit-function-return-type explicit-module-boundary-types -- commander infers the options' type
export function serveCommand(done: (code: number) => void) {
  return modelCommand("serve")
    .description("Answers OpenAI's clients over HTTP, and shows a page at /.")
    .addOption(new Option("--host <name>", "address to listen on").env("KVASIR_HOST").default("127.0.0.1"))
    .addOption(
      new Option("--port <n>", "port; 0 takes a free one").env("KVASIR_PORT").argParser(integer(0, 65535)).default(
        5827,
      ),
    )
    .addOption(
      new Option("--api-key <keys>", "keys that clients must send, comma-separated").env("KVASIR_API_KEY").argParser(
        list,
      ),
    )
    .addOption(new Option("--api-key-file <file>", "the same, one a line").env("KVASIR_API_KEY_FILE"))
    .option("--insecure", "listen beyond this machine without a key")
    .addOption(new Option("--alias <names>", "what clients call the model").env("KVASIR_ALIAS").argParser(list))
    .addOption(
      new Option("--parallel <n>", "requests that run at once (-np)").env("KVASIR_PARALLEL").argParser(integer(1, 1024))
        .default(4),
    )
    .addOption(
      new Option("--max-queue <n>", "requests that may wait, then 503").env("KVASIR_MAX_QUEUE").argParser(
        integer(0, 1e6),
      ).default(512),
    )
    .addOption(
      new Option("--max-per-key <n>", "requests of one key under way, then 429").env("KVASIR_MAX_PER_KEY").argParser(
        integer(1, 1e6),
      ),
    )
    .addOption(
      new Option("--max-body-mb <n>", "largest body").env("KVASIR_MAX_BODY_MB").argParser(decimal(0.001, 4096)).default(
        64,
      ),
    )
    .addOption(
      new Option("--timeout <s>", "most seconds of a request").env("KVASIR_TIMEOUT").argParser(decimal(0.1, 1e6))
        .default(3600),
    )
    .addOption(
      new Option("--shutdown-timeout <s>", "seconds that requests under way get at the end").env(
        "KVASIR_SHUTDOWN_TIMEOUT",
      )
        .argParser(decimal(0, 1e6)).default(30),
    )
    .addOption(
      new Option("--context-ram <GiB>", "memory for contexts and prefixes that are kept").env("KVASIR_CONTEXT_RAM")
        .argParser(decimal(0, 1e6)).default(8),
    )
    .addOption(
      new Option("--cors-origins <list>", "origins whose pages may ask, or * (default: this machine's)").env(
        "KVASIR_CORS_ORIGINS",
      ).argParser(list),
    )
    .addOption(new Option("--ssl-key-file <file>", "PEM key, for HTTPS").env("KVASIR_SSL_KEY_FILE"))
    .addOption(new Option("--ssl-cert-file <file>", "PEM certificate").env("KVASIR_SSL_CERT_FILE"))
    .addOption(
      new Option("--sampling-defaults <whose>", "sampling of requests that say nothing").env("KVASIR_SAMPLING_DEFAULTS")
        .choices(["model", "openai"] as const).default("model" as const),
    )
    .addOption(
      new Option("--tool-call-parser <name>", "how the model writes calls of tools").env("KVASIR_TOOL_CALL_PARSER")
        .choices(TOOL_PARSERS).default("auto" as const),
    )
    .option("--log-jsonl <file>", "append what each generation did, one JSON object a line; never what was said")
    .option("--strict-fields", "unknown fields of requests are errors")
    .addOption(new Option("--allow-index <names>", "indexes that requests may name (default: all)").argParser(list))
    .option("--max-budget <keys>", "most keys that a request may ask for", integer(1, 4096))
    .action(async (flags) => {
      const keys = [...flags.apiKey ?? [], ...flags.apiKeyFile === undefined ? [] : await readKeys(flags.apiKeyFile)];
      const report = (line: string) => console.error(`kvasir: ${line}`);
      using records = flags.logJsonl === undefined ? undefined : new JsonLines(flags.logJsonl, report);
      const tls = await readTls(flags.sslKeyFile, flags.sslCertFile);
      if (!isLoopback(flags.host) && keys.length === 0 && flags.insecure !== true) {
        throw new UsageError(
          `Cannot listen on ${flags.host}: others could use it, give an --api-key or say --insecure`,
        );
      }
      const options = {
        ...engineOptions(flags),
        parallel: flags.parallel,
        contextRam: Math.floor(flags.contextRam * 2 ** 30),
      };
      // The engine has its own in its worker; requests are checked here.
      const { policies } = await loadPlugins(options.plugins ?? []);
      done(
        await withEngine(options, async ({ engine, signal, progress }) => {
          const info = await engine.info();
          const [model = nameOf(flags.model), ...aliases] = flags.alias ?? [];
          const service = new Service(engine, info, {
            model,
            aliases,
            keys,
            localOnly: isLoopback(flags.host) && keys.length === 0,
            ...(flags.corsOrigins === undefined ? {} : { corsOrigins: flags.corsOrigins }),
            parallel: flags.parallel,
            maxQueue: flags.maxQueue,
            ...(flags.maxPerKey === undefined ? {} : { maxPerKey: flags.maxPerKey }),
            maxBodyBytes: Math.floor(flags.maxBodyMb * 2 ** 20),
            timeoutMs: flags.timeout * 1000,
            sampling: flags.samplingDefaults === "openai" ? OPENAI_SAMPLING : {},
            toolParser: flags.toolCallParser,
            strictFields: flags.strictFields === true,
            attention: options,
            policies,
            ...(flags.allowIndex === undefined ? {} : { allowIndex: flags.allowIndex }),
            ...(flags.maxBudget === undefined ? {} : { maxBudget: flags.maxBudget }),
            version: denoJson.version,
            log: report,
            ...(records === undefined ? {} : { record: (record) => records.write(record) }),
          });
          progress.clear();
          const { host, port } = flags;
          const listening = listen(makeApp(service), service, {
            host,
            port,
            ...(tls === undefined ? {} : { tls }),
            insecure: flags.insecure === true,
            shutdownMs: flags.shutdownTimeout * 1000,
          });
          console.error(`kvasir: serving ${model} at ${listening.url}`);
          const ticker = setInterval(() => {
            const line = service.status(STATUS_SECONDS);
            if (line !== undefined) console.error(`kvasir: ${line}`);
          }, STATUS_SECONDS * 1000);
          await new Promise<void>((resolve) => {
            if (signal.aborted) resolve();
            else signal.addEventListener("abort", () => resolve(), { once: true });
          });
          console.error("kvasir: finishing what is under way; once more leaves at once");
          clearInterval(ticker);
          await listening.close();
          return EXIT.OK;
        }),
      );
    });
}

/** What clients call a model that was given as path, name or address. */
function nameOf(model: string): string {
  const last = model.replace(/\/+$/, "").split("/").at(-1) ?? model;
  return last.replace(/\.gguf$/, "");
}

async function readKeys(path: string): Promise<string[]> {
  const keys = (await readText(path)).split("\n").map((line) => line.trim()).filter((line) => line !== "");
  if (keys.length === 0) throw new UsageError("Cannot read keys: the file of --api-key-file has none");
  return keys;
}

async function readTls(
  keyFile: string | undefined,
  certFile: string | undefined,
): Promise<{ readonly key: string; readonly cert: string } | undefined> {
  if (keyFile === undefined && certFile === undefined) return undefined;
  if (keyFile === undefined || certFile === undefined) {
    throw new UsageError("Cannot use HTTPS: give both --ssl-key-file and --ssl-cert-file");
  }
  const read = async (path: string, what: string) => {
    const text = await readText(path);
    if (!text.includes(`${what}-----`)) throw new UsageError(`Cannot use HTTPS: "${path}" holds no PEM ${what}`);
    return text;
  };
  return { key: await read(keyFile, "PRIVATE KEY"), cert: await read(certFile, "CERTIFICATE") };
}
