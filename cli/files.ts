/**
 * Files that the user names: what is read from them, and whether one can be written.
 *
 * @module
 */
import { UsageError } from "./exit.ts";

/** The prompt from the argument, a file, or standard input, in that order; refuses more than one, none, and not-text. */
export async function readPrompt(prompt: string | undefined, file: string | undefined): Promise<string> {
  if (file !== undefined) {
    if (prompt !== undefined) throw new UsageError("Cannot read the prompt: give an argument or --file, not both");
    const text = await readText(file);
    if (text === "") throw new UsageError(`Cannot read the prompt: "${file}" is empty`);
    return text;
  }
  if (prompt !== undefined && prompt !== "-") {
    if (prompt === "") throw new UsageError("Cannot generate: the prompt is empty");
    return prompt;
  }
  if (prompt === undefined && Deno.stdin.isTerminal()) {
    throw new UsageError('Cannot generate: no prompt; try ./kvasir generate "Why is the sky blue?"');
  }
  const bytes = new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer());
  const text = decodeText(bytes, "standard input");
  if (text === "") throw new UsageError("Cannot generate: standard input is empty");
  return text;
}

/** Throws `UsageError` for a path that no file can be written at, before anything is worked out for it. */
export function checkOutput(path: string): void {
  const folder = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  const isFolder = (at: string) => {
    try {
      return Deno.statSync(at).isDirectory;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
      // Not ours to look at, as /dev is: who writes there finds out.
      if (error instanceof Deno.errors.NotCapable) return undefined;
      throw error;
    }
  };
  if (path === "" || isFolder(path) === true) {
    throw new UsageError(`Cannot write "${path}": it is a folder, name a file`);
  }
  if (isFolder(folder) === false) throw new UsageError(`Cannot write "${path}": there is no folder "${folder}"`);
}

/** Reads a file the user named; one clear line when it is missing or a folder. */
export async function readFile(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new UsageError(`Cannot read "${path}": no such file`);
    if (error instanceof Deno.errors.IsADirectory) throw new UsageError(`Cannot read "${path}": it is a folder`);
    throw error;
  }
}

/** The same as text, by {@link decodeText}. */
export async function readText(path: string): Promise<string> {
  return decodeText(await readFile(path), `"${path}"`);
}

/** Strict UTF-8: a binary file given as a prompt is a mistake worth a message. */
export function decodeText(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    throw new UsageError(`Cannot read ${what}: not UTF-8 text`);
  }
}
