/**
 * `kvasir compare`: one prompt, answered by several ways to attend, side by side.
 *
 * @module
 */
import type { Command } from "@commander-js/extra-typings";
import type { AttendedStats, EngineLike, Timings, TokenEvent } from "../engine/types.ts";
import type { Method } from "../attention/method.ts";
import type { Message } from "../model/model.ts";
import { parseMethod } from "../attention/method.ts";
import { modelsDir } from "../model/store.ts";
import { UsageError } from "./exit.ts";
import { readPrompt } from "./files.ts";
import { engineOptions, integer, modelCommand } from "./options.ts";
import { withEngine } from "./session.ts";

/** Bytes of what answers leave behind. */
const PROMPT_RAM = 4 * 2 ** 30;

/** What one method did. */
export interface Compared {
  readonly method: string;
  readonly text: string;
  readonly tokens: number;
  readonly msPerToken: number;
  readonly firstTokenMs: number;
  /** Keys attended, of how many, means over decode queries and layers that may leave something out. */
  readonly attended: number;
  readonly keys: number;
  /** Of those attended, what an index found. */
  readonly retrieved: number;
  /** Bytes of codes and structure. */
  readonly indexMemory: number;
  /** Divergence from full attention, forced through full attention's answer, in nats; and how often the best token is its. */
  readonly kl: number;
  readonly sameTop: number;
}

/** The command, for `main.ts`. */
export function compareCommand(done: (code: number) => void): Command {
  const command = modelCommand("compare")
    .description("Answers one prompt by several methods, PRESET[:key=value,…][@INDEX], and compares each with `full`.")
    .argument("[prompt]", "the prompt; - reads standard input")
    .option("-f, --file <path>", "read the prompt from a file")
    .option("--raw", "no chat template: continue the text as it is")
    .option("--methods <list...>", "methods beside full", ["kvasir", "streaming-llm"])
    .option("-n, --predict <tokens>", "tokens of each answer", integer(2), 64)
    .option("--json", "print one JSON object a method")
    .action(async (prompt, flags) => {
      const text = await readPrompt(prompt, flags.file);
      const methods = ["full", ...flags.methods.filter((m) => m !== "full")].map((m) => parseMethod(m));
      if (flags.preset !== undefined || flags.policy !== undefined) {
        throw new UsageError("Cannot compare one preset: name the methods by --methods");
      }
      // The prompt is read once a method: its answer leaves it behind for the scoring.
      const options = { ...engineOptions(flags), contextRam: PROMPT_RAM };
      const code = await withEngine(options, async ({ engine, progress, signal }) => {
        const { chatTemplate } = await engine.info();
        const message: Message[] = [{ role: "user", content: text }];
        const ids = await engine.encode(chatTemplate && flags.raw !== true ? message : text);
        // In the one folder that the entry script lets commands write to.
        const folder = `${modelsDir()}/..`;
        await Deno.mkdir(folder, { recursive: true });
        const base = await Deno.makeTempFile({ dir: folder, prefix: "compare-" });
        try {
          const report = (name: string) => progress.report({ phase: "prefill", done: 0, total: 0, detail: name });
          for await (const row of compareMethods(engine, ids, methods, flags.predict, base, signal, report)) {
            progress.clear();
            console.log(flags.json === true ? JSON.stringify(row) : format(row));
          }
        } finally {
          await Deno.remove(base);
        }
        return 0;
      });
      done(code);
    });
  return command as unknown as Command;
}

/**
 * Answers by each method in turn, the first of which is `full`: its answer is what the others are forced through. `base` is a file
 * for its logits. `starts` is told what comes next.
 */
export async function* compareMethods(
  engine: EngineLike,
  ids: Int32Array,
  methods: readonly Method[],
  maxTokens: number,
  base: string,
  signal: AbortSignal,
  starts: (method: string) => void = () => {},
): AsyncGenerator<Compared, void, undefined> {
  let force = ids;
  for (const [i, method] of methods.entries()) {
    starts(method.name);
    const run = await answerBy(engine, ids, method, maxTokens, signal);
    if (i === 0) force = Int32Array.from([...ids, ...run.tokens]);
    const { kl, sameTop } = await engine.evaluate(force, {
      from: ids.length,
      mode: "decode",
      attention: method.options,
      cachePrompt: true,
      signal,
      ...(i === 0 ? { saveLogits: base } : { klBase: base }),
    });
    yield compared(method, run, kl, sameTop);
  }
}

interface Run {
  readonly text: string;
  readonly tokens: number[];
  readonly timings: Timings;
  readonly attended: AttendedStats | undefined;
}

/** Greedy, so that what differs comes of attention alone. */
async function answerBy(
  engine: EngineLike,
  ids: Int32Array,
  { options }: Method,
  maxTokens: number,
  signal: AbortSignal,
): Promise<Run> {
  let text = "";
  const tokens: number[] = [];
  let last: Extract<TokenEvent, { type: "done" }> | undefined;
  const sampling = { temperature: 0, maxTokens, minTokens: 2, signal, attention: options };
  for await (const event of engine.generate(ids, sampling)) {
    if (event.type === "token") {
      text += event.text;
      tokens.push(event.token);
    } else if (event.type === "done") last = event;
  }
  signal.throwIfAborted();
  if (last === undefined) throw new Error("Cannot compare: a generation ended without its last event");
  return { text, tokens, timings: last.timings, attended: last.attended };
}

function compared({ name }: Method, run: Run, kl?: Float32Array, sameTop?: Uint8Array): Compared {
  const { timings, attended } = run;
  const mean = (values: ArrayLike<number> | undefined, none: number) =>
    values === undefined || values.length === 0 ? none : Array.from(values).reduce((a, b) => a + b, 0) / values.length;
  const everything = timings.promptTokens + timings.predictedTokens / 2;
  const seen = attended === undefined || attended.queries === 0
    ? { queries: 1, tokens: everything, spanned: everything, retrieved: 0, indexMemory: 0 }
    : attended;
  return {
    method: name,
    text: run.text,
    tokens: run.tokens.length,
    msPerToken: timings.predictedMs / Math.max(1, timings.predictedTokens - 1),
    firstTokenMs: timings.firstTokenMs,
    attended: (seen.spanned + seen.retrieved) / seen.queries,
    keys: seen.tokens / seen.queries,
    retrieved: seen.retrieved / seen.queries,
    indexMemory: seen.indexMemory,
    kl: mean(kl, 0),
    sameTop: mean(sameTop, 1),
  };
}

function format(row: Compared): string {
  const share = (100 * row.attended / row.keys).toFixed(1);
  return [
    `── ${row.method}`,
    row.text.trim(),
    `   ${row.msPerToken.toFixed(1)} ms a token · attended ${row.attended.toFixed(0)} of ${row.keys.toFixed(0)} keys ` +
    `(${share} %), ${row.retrieved.toFixed(0)} retrieved · index ${(row.indexMemory / 1e6).toFixed(1)} MB · ` +
    `KL to full ${row.kl.toExponential(2)}, same best ${(100 * row.sameTop).toFixed(0)} %`,
    "",
  ].join("\n");
}
