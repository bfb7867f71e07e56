/**
 * `kvasir context`: contexts on this machine's disk.
 *
 * @module
 */
import { type Command, Command as Plain } from "@commander-js/extra-typings";
import { ContextError } from "../core/errors.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { type BadContext, ContextDir, type SavedContext } from "../engine/context_dir.ts";
import type { ContextInfo } from "../engine/context_types.ts";
import { EXIT, UsageError } from "./exit.ts";
import { readPrompt } from "./files.ts";
import { contextDir, decimal, engineOptions, integer, modelCommand } from "./options.ts";
import { type Session, withEngine } from "./session.ts";

const DIR = "--context-dir <folder>";
const DIR_HELP = "folder of saved contexts (default: contexts beside the models)";

/** The command, for `main.ts`. */
export function contextCommand(done: (code: number) => void): Command {
  const context = new Plain("context").description(
    "Lists, shows, saves, forks, verifies, deletes and prunes contexts.",
  );
  context.command("list").description("saved contexts, the most recently used first")
    .option(DIR, DIR_HELP, environmentDir()).option("--json", "print one JSON array")
    .action((flags) => {
      const all = dirOf(flags).list();
      console.log(flags.json === true ? JSON.stringify(all.map(describe)) : formatContexts(all, Date.now()));
      done(EXIT.OK);
    });
  context.command("show").description("what a context was made with").argument("<name>")
    .option(DIR, DIR_HELP, environmentDir()).option("--json", "print one JSON object")
    .action((name, flags) => {
      const entry = expect(dirOf(flags), name);
      if ("error" in entry) throw entry.error;
      const about = describe(entry);
      if (flags.json === true) console.log(JSON.stringify(about));
      else for (const [key, value] of Object.entries(about)) console.log(printable(`${key.padEnd(16)} ${value}`));
      done(EXIT.OK);
    });
  context.addCommand(saveCommand(done) as unknown as Command);
  context.addCommand(forkCommand(done) as unknown as Command);
  context.command("verify").description("check every byte of contexts (default: of all)").argument("[names...]")
    .option(DIR, DIR_HELP, environmentDir())
    .action(async (names, flags) => done(await verify(dirOf(flags), names)));
  context.command("delete").alias("rm").description("delete contexts").argument("<names...>")
    .option(DIR, DIR_HELP, environmentDir())
    .action((names, flags) => {
      const dir = dirOf(flags);
      for (const name of names) dir.delete(name);
      done(EXIT.OK);
    });
  context.command("prune").description("delete contexts by age and size, and what killed processes left")
    .option(DIR, DIR_HELP, environmentDir())
    .option("--max-size <GiB>", "delete the least recently used until so much is left", decimal(0, 1e9))
    .option("--max-age <days>", "delete what was not used for so long", decimal(0, 1e6))
    .option("--dry-run", "only say what would go")
    .action((flags) => {
      const gone = dirOf(flags).prune({
        ...(flags.maxSize === undefined ? {} : { maxBytes: flags.maxSize * 2 ** 30 }),
        ...(flags.maxAge === undefined ? {} : { maxAgeSeconds: flags.maxAge * 86_400 }),
        dryRun: flags.dryRun === true,
      }, Date.now());
      for (const { name, bytes, why } of gone) console.log(`${name}  ${megabytes(bytes)}  ${why}`);
      const freed = gone.reduce((sum, { bytes }) => sum + bytes, 0);
      console.error(`kvasir: ${flags.dryRun === true ? "would free" : "freed"} ${megabytes(freed)}`);
      done(EXIT.OK);
    });
  return context as unknown as Command;
}

// deno-lint-ignore explicit-function-return-type -- commander infers the options' type
function saveCommand(done: (code: number) => void) {
  return modelCommand("save").description("read a text once, for any number of questions (generate --context NAME)")
    .argument("<name>").argument("[prompt]", "the text; - reads standard input")
    .option("-f, --file <path>", "read the text from a file")
    .option("--raw", "no chat template: what follows continues the text as it is")
    .option("--from <name>", "continue this context")
    .option("--ttl <seconds>", "delete it when it was not used for so long", integer(1))
    .action(async (name, prompt, flags) => {
      const text = await readPrompt(prompt, flags.file);
      const options = { ...engineOptions(flags), contextDir: contextDir(flags) };
      done(
        await withEngine(options, async (session) => {
          const { chatTemplate } = await session.engine.info();
          const templated = chatTemplate && flags.raw !== true;
          const made = await session.engine.contexts.create(templated ? [{ role: "user", content: text }] : text, {
            name,
            ...(flags.from === undefined ? {} : { context: flags.from }),
            ...(flags.ttl === undefined ? {} : { ttlSeconds: flags.ttl }),
            signal: session.signal,
            onProgress: (report) => session.progress.report(report),
          });
          return report(session, made);
        }),
      );
    });
}

// deno-lint-ignore explicit-function-return-type -- commander infers the options' type
function forkCommand(done: (code: number) => void) {
  return modelCommand("fork").description("a context that begins as another").argument("<name>").argument("<new-name>")
    .option("--at-token <n>", "with its first tokens only", integer(1))
    .action(async (name, to, flags) => {
      const options = {
        ...engineOptions(flags),
        ...ownAttention(contextDir(flags), name),
        contextDir: contextDir(flags),
      };
      done(
        await withEngine(options, async (session) => {
          const at = flags.atToken === undefined ? {} : { atToken: flags.atToken };
          return report(session, await session.engine.contexts.fork(name, { name: to, ...at }));
        }),
      );
    });
}

/** Type of the cache as the context has it: a fork asks for no flags. */
function ownAttention(dir: string, name: string): { kvType?: "f16" | "f32" | "i8" } {
  const entry = new ContextDir(dir).read(name);
  const kvType = entry !== undefined && "about" in entry ? entry.about.fingerprint.kvType : undefined;
  return kvType === "f16" || kvType === "f32" || kvType === "i8" ? { kvType } : {};
}

function report({ progress }: Session, { name, tokens, bytes }: ContextInfo): number {
  progress.clear();
  console.error(`kvasir: saved ${name}: ${tokens} tokens, ${megabytes(bytes.disk)}`);
  return EXIT.OK;
}

async function verify(dir: ContextDir, names: readonly string[]): Promise<number> {
  const all = names.length === 0 ? dir.list() : names.map((name) => expect(dir, name));
  await prepareBackend("cpu", {}, () => {});
  using backend = openBackend("cpu");
  if (backend.files === undefined) throw new UsageError("Cannot verify contexts: the backend keeps no files");
  let bad = 0;
  for (const entry of all) {
    try {
      if ("error" in entry) throw entry.error;
      using file = backend.files.open(entry.path);
      file.verify();
      console.log(`${entry.name}: good, ${megabytes(entry.bytes)}`);
    } catch (error) {
      bad++;
      console.log(`${entry.name}: damaged: ${(error as Error).message}`);
    }
  }
  return bad === 0 ? EXIT.OK : EXIT.QUALITY;
}

function environmentDir(): string | undefined {
  return Deno.env.get("KVASIR_CONTEXT_DIR");
}

function dirOf(flags: { readonly contextDir?: string | undefined }): ContextDir {
  return new ContextDir(contextDir(flags));
}

function expect(dir: ContextDir, name: string): SavedContext | BadContext {
  const entry = dir.read(name);
  if (entry !== undefined) return entry;
  const names = dir.list().map((e) => e.name);
  const there = names.length === 0 ? "there is none" : `there are ${names.slice(0, 10).join(", ")}`;
  throw new ContextError("missing", `Cannot find context "${name}": ${there}`);
}

/** Facts of one context, in the order in which they are printed. */
function describe(entry: SavedContext | BadContext): Record<string, string | number> {
  if ("error" in entry) return { name: entry.name, path: entry.path, bytes: entry.bytes, error: entry.error.message };
  const { about, usedMs, bytes, name, path } = entry;
  const date = (ms: number) => new Date(ms).toISOString();
  return {
    name,
    id: about.id,
    path,
    tokens: about.tokens,
    bytes,
    created: date(about.createdMs),
    "last used": date(usedMs),
    ...(about.ttlSeconds === 0 ? {} : { expires: date(usedMs + 1000 * about.ttlSeconds) }),
    ...(about.parent === undefined ? {} : { parent: about.parent }),
    messages: about.messages?.length ?? 0,
    ...about.fingerprint,
    ...Object.fromEntries(Object.entries(about.metadata).map(([key, value]) => [`metadata ${key}`, value])),
  };
}

/** One line a context. */
export function formatContexts(all: readonly (SavedContext | BadContext)[], nowMs: number): string {
  if (all.length === 0) return "no contexts; save one with: kvasir context save NAME -f FILE";
  const width = Math.max(...all.map((entry) => entry.name.length));
  return all.map((entry) => {
    const start = `${entry.name.padEnd(width)}  ${megabytes(entry.bytes).padStart(10)}`;
    if ("error" in entry) return `${start}  damaged: ${entry.error.message}`;
    const hours = Math.max(0, nowMs - entry.usedMs) / 3.6e6;
    const age = hours < 48 ? `${hours.toFixed(1)} h ago` : `${(hours / 24).toFixed(0)} days ago`;
    const { tokens, fingerprint } = entry.about;
    return `${start}  ${String(tokens).padStart(8)} tokens  ${age.padStart(12)}  ${fingerprint.kvType}  ${
      fingerprint.policy.split(":")[0]
    }`;
  }).join("\n");
}

/** What files say of themselves moves no cursor. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- refusing them is the point
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd");
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
