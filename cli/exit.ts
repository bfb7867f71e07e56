/**
 * Exit codes, and how errors turn into them and into one line.
 *
 * @module
 */
import { HubError } from "../model/hub_errors.ts";
import { ContextError, DoesNotFit, ModelFileError, NativeError, Unsupported } from "../core/errors.ts";

/** Exit codes of every command. */
export const EXIT = {
  OK: 0,
  FAILURE: 1,
  USAGE: 2,
  DOES_NOT_FIT: 3,
  MODEL: 4,
  NATIVE: 5,
  QUALITY: 6,
  SIGINT: 130,
  SIGTERM: 143,
} as const;

/** A wrong flag or argument. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** A quality gate was not met. */
export class QualityError extends Error {
  override readonly name = "QualityError";
}

/** The exit code an error stands for. */
export function exitCode(error: unknown): number {
  // Specs and values that are checked below the command line report RangeError.
  if (error instanceof UsageError || error instanceof RangeError) return EXIT.USAGE;
  if (error instanceof ContextError) return error.kind === "full" ? EXIT.DOES_NOT_FIT : EXIT.FAILURE;
  if (error instanceof DoesNotFit) return EXIT.DOES_NOT_FIT;
  if (error instanceof ModelFileError || error instanceof HubError) return EXIT.MODEL;
  if (error instanceof NativeError || error instanceof Unsupported) return EXIT.NATIVE;
  if (error instanceof QualityError) return EXIT.QUALITY;
  return EXIT.FAILURE;
}

/** What the system was asked for when it refused, by the name that Deno gives in its message. */
const DEEDS: Readonly<Record<string, string>> = {
  open: "open",
  readfile: "read",
  readdir: "read",
  stat: "read",
  writefile: "write",
  mkdir: "make folder",
};

/** `No such file or directory (os error 2): open '/x'` */
const SYSTEM_ERROR = /^(.*) \(os error \d+\): (\w+) '(.*)'$/;

/** One line for people: no class name, no stack; permissions, full disks and what the system refuses are explained. */
export function describeError(error: unknown): string {
  const line = firstLine(error instanceof Error ? error.message : String(error));
  if (error instanceof Deno.errors.NotCapable) {
    const missing = /Requires (\w+) access(?: to (.*?))?, run again/.exec(line);
    if (missing === null) return line;
    const [, access, place = ""] = missing;
    // Places like /proc and /dev, which no narrower permission opens.
    if (access === "all") return `Cannot use ${place}: Deno keeps programs out of there, name another place`;
    const where = place === "" ? "" : ` to ${place}`;
    return `Cannot continue: Deno denies ${access} access${where}; use ./kvasir, or add --allow-${access}`;
  }
  if (error instanceof Error && /ENOSPC|os error 28\b/.test(line)) return `Cannot write: the disk is full (${line})`;
  const refused = SYSTEM_ERROR.exec(line);
  if (refused === null) return line;
  const [, why = "", deed = "", path] = refused;
  return `Cannot ${DEEDS[deed] ?? "use"} "${path}": ${why.charAt(0).toLowerCase()}${why.slice(1)}`;
}

/** Bytes of a broken file, quoted in a message, must not steer a terminal. */
function firstLine(text: string): string {
  // deno-lint-ignore no-control-regex -- these are what is looked for
  return (text.split("\n", 1)[0] ?? "").replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd");
}
