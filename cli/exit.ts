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

/** One line for people: no class name, no stack; permissions and full disks are explained. */
export function describeError(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) {
    const missing = /Requires (\w+) access(?: to (.*?))?, run again/.exec(error.message);
    return missing === null
      ? firstLine(error.message)
      : `Cannot continue: Deno denies ${missing[1]} access${
        missing[2] === undefined ? "" : ` to ${missing[2]}`
      }; use ./kvasir, or add --allow-${missing[1]}`;
  }
  if (error instanceof Error && /ENOSPC|os error 28\b/.test(error.message)) {
    return `Cannot write: the disk is full (${firstLine(error.message)})`;
  }
  return firstLine(error instanceof Error ? error.message : String(error));
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}
