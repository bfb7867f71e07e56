/**
 * Settings from a file: `--config FILE` stands for the flags in it.
 *
 *     { "model": "my.gguf", "ctx-size": 8192, "offline": true, "stop": ["###"], "serve": { "port": 8080 } }
 *
 * Names are those of flags, without the dashes; an object under a command's name holds flags of that command alone. A flag on the
 * command line beats the environment, and that the file. Run as a program it prints the arguments that stand for those it is
 * given, each with a NUL behind: the entry script reads them before it decides what the command may touch.
 *
 * @module
 */
import { UsageError } from "./exit.ts";

/** Most of a settings file that is read. */
const MOST_BYTES = 1 << 20;

/** Commands whose second word is a command, too. */
const WITH_SUBCOMMANDS: ReadonlySet<string> = new Set(["context", "models", "bench"]);

/** Flags that the environment may set, as `KVASIR_` and the name: it beats the file. */
export const ENVIRONMENT_FLAGS: ReadonlySet<string> = new Set([
  "alias",
  "api-key",
  "api-key-file",
  "backend",
  "batch-size",
  "cache-type-k",
  "cache-type-v",
  "context-dir",
  "context-disk",
  "context-ram",
  "cors-origins",
  "ctx-size",
  "host",
  "index",
  "max-body-mb",
  "max-per-key",
  "max-queue",
  "model",
  "offline",
  "parallel",
  "policy",
  "port",
  "preset",
  "rope-scaling",
  "sampling-defaults",
  "seed",
  "server",
  "shutdown-timeout",
  "ssl-cert-file",
  "ssl-key-file",
  "timeout",
  "tool-call-parser",
]);

type Value = string | number | boolean | readonly (string | number)[];

/** Replaces `--config FILE` by what the file says. Throws `UsageError` for a file that cannot be used. */
export function expandConfig(args: readonly string[], environment: (name: string) => string | undefined): string[] {
  const end = args.indexOf("--");
  const at = args.findIndex((arg, i) => (end < 0 || i < end) && (arg === "--config" || arg.startsWith("--config=")));
  if (at < 0) return [...args];
  const isApart = args[at] === "--config";
  const path = isApart ? args[at + 1] : args[at]?.slice("--config=".length);
  if (path === undefined || path === "") throw new UsageError("Cannot use --config: it names no file");
  const rest = [...args.slice(0, at), ...args.slice(at + (isApart ? 2 : 1))];
  if (rest.some((arg) => arg.startsWith("--config"))) throw new UsageError("Cannot use --config twice");
  // What comes later beats what came before.
  const words = rest.findIndex((arg) => arg.startsWith("-"));
  const leading = words < 0 ? rest.length : words;
  const place = Math.min(leading, WITH_SUBCOMMANDS.has(rest[0] ?? "") ? 2 : 1);
  const flags = flagsOf(path, readObject(path), rest[0] ?? "", environment);
  return [...rest.slice(0, place), ...flags, ...rest.slice(place)];
}

function readObject(path: string): Readonly<Record<string, unknown>> {
  let text: string;
  try {
    if (Deno.statSync(path).size > MOST_BYTES) {
      throw new UsageError(`Cannot use "${path}": it is no settings file, over 1 MiB`);
    }
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new UsageError(`Cannot read settings from "${path}": ${why}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (error) {
    throw new UsageError(`Cannot use settings of "${path}": ${(error as Error).message}`);
  }
  throw new UsageError(`Cannot use settings of "${path}": it must hold one JSON object`);
}

function flagsOf(
  path: string,
  settings: Readonly<Record<string, unknown>>,
  command: string,
  environment: (name: string) => string | undefined,
): string[] {
  const wanted = new Map<string, Value>();
  const own: [string, unknown][] = [];
  for (const [name, value] of Object.entries(settings)) {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      if (name === command) own.push(...Object.entries(value));
    } else wanted.set(name, checked(path, name, value));
  }
  for (const [name, value] of own) wanted.set(name, checked(path, `${command}.${name}`, value));
  const flags: string[] = [];
  for (const [name, value] of wanted) {
    const variable = `KVASIR_${name.toUpperCase().replaceAll("-", "_")}`;
    if (ENVIRONMENT_FLAGS.has(name) && environment(variable) !== undefined) continue;
    if (typeof value === "object") flags.push(...value.map((one) => `--${name}=${one}`));
    else if (value === true) flags.push(`--${name}`);
    else if (value !== false) flags.push(`--${name}=${value}`);
  }
  return flags;
}

function checked(path: string, name: string, value: unknown): Value {
  const isPlain = (x: unknown) => typeof x === "string" || (typeof x === "number" && Number.isFinite(x));
  const last = name.slice(name.lastIndexOf(".") + 1);
  if (!/^[a-z][a-z0-9-]*$/.test(last) || last === "config") {
    throw new UsageError(`Cannot use settings of "${path}": "${name}" is no flag's name`);
  }
  if (isPlain(value) || typeof value === "boolean" || (Array.isArray(value) && value.every(isPlain))) {
    return value as Value;
  }
  throw new UsageError(
    `Cannot use settings of "${path}": "${name}" must be a text, a number, true, false, or a list of those`,
  );
}

if (import.meta.main) {
  try {
    const out = expandConfig(Deno.args, (name) => Deno.env.get(name)).map((arg) => `${arg}\0`).join("");
    Deno.stdout.writeSync(new TextEncoder().encode(out));
  } catch (error) {
    console.error(`kvasir: ${(error as Error).message}`);
    Deno.exit(2);
  }
}
