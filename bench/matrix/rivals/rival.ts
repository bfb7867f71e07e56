/**
 * Another program that answers for the same text: what the matrix asks of it. Types, and how programs are run.
 *
 * @module
 */
/** Threads that rivals get: as many as we do. */
export const RIVAL_THREADS = 2;

/** A text of which the last tokens are scored. */
export interface RivalText {
  /** The model's file. */
  readonly model: string;
  /** Where files may be made. */
  readonly folder: string;
  readonly tokens: readonly number[];
  /** The same, as little-endian int32. */
  readonly tokensFile: string;
  /** Predictions of full attention (docs/logits_file.md); the first is of token `prefix`. */
  readonly baseFile: string;
  readonly prefix: number;
  readonly count: number;
  readonly vocab: number;
  /** Decode steps that are timed. */
  readonly steps: number;
}

/** What it made of the text: one number a scored token. */
export interface RivalAnswer {
  /** KL divergence from the base. */
  readonly kl: number[];
  readonly nll: number[];
  /** 1 where the best token is the base's. */
  readonly sameTop: number[];
}

/** One program with one of its settings. */
export interface Rival {
  /** `llama.cpp`, in specs and names. */
  readonly program: string;
  /** Type of its cache, as its own flags name it. */
  readonly kvType: string;
  /** Bytes of its cache beside one of f16. */
  readonly cacheShare: number;
  /** Bytes of its weights beside ours. */
  readonly weightShare: number;
  /** Scores the text. */
  score(text: RivalText): Promise<RivalAnswer>;
  /** Milliseconds a token behind the whole text. */
  msPerToken(text: RivalText): Promise<number>;
}

/** Runs a program to its end and gives the JSON of the last line that it printed. Throws `Error` when it fails. */
export async function runJson(
  command: string,
  args: readonly string[],
  { env = {}, input = "" }: { readonly env?: Record<string, string>; readonly input?: string } = {},
): Promise<unknown> {
  const child = new Deno.Command(command, { args: [...args], env, stdin: "piped", stdout: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { success, stdout } = await child.output();
  if (!success) throw new Error(`Cannot measure a rival: ${command} ${args[0]} failed`);
  return JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1) as string);
}

/** A script of this repository. */
export function script(name: string): string {
  return new URL(`../../${name}`, import.meta.url).pathname;
}
