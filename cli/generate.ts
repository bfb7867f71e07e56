/**
 * `kvasir generate`: one completion, streamed.
 *
 * @module
 */
import type { Command } from "@commander-js/extra-typings";
import type { AttendedStats, Timings, TokenEvent } from "../engine/types.ts";
import type { Message } from "../model/model.ts";
import { UsageError } from "./exit.ts";
import { checkOutput, readPrompt } from "./files.ts";
import { contextDir, engineOptions, integer, samplingCommand, samplingOptions } from "./options.ts";
import { type Session, withEngine } from "./session.ts";

/** The command, for `main.ts`. */
export function generateCommand(done: (code: number) => void): Command {
  const command = samplingCommand("generate")
    .description("Answers a prompt. Without one, reads it from standard input.")
    .argument("[prompt]", "the prompt; - reads standard input")
    .option("-f, --file <path>", "read the prompt from a file")
    .option("--context <name>", "continue a saved context (kvasir context list)")
    .option("--save-context <name>", "save prompt and answer under a name")
    .option("--system <text>", "system message")
    .option("--raw", "no chat template: continue the text as it is")
    .option("--logprobs <k>", "with --json: log-probabilities, and those of the k best tokens", integer(0, 20))
    .option("--json", "print one JSON object at the end instead of text")
    .option("-o, --output <path>", "write the text to a file")
    .option("--quiet", "no closing line")
    .action(async (prompt, flags) => {
      if (flags.output !== undefined) checkOutput(flags.output);
      const text = await readPrompt(prompt, flags.file);
      const usesContexts = flags.context !== undefined || flags.saveContext !== undefined ||
        flags.contextDir !== undefined;
      const options = { ...engineOptions(flags), ...(usesContexts ? { contextDir: contextDir(flags) } : {}) };
      const code = await withEngine(options, async (session) => {
        const info = await session.engine.info();
        const messages: Message[] = [
          ...(flags.system === undefined ? [] : [{ role: "system" as const, content: flags.system }]),
          { role: "user", content: text },
        ];
        // What was made from text goes on as text.
        const isText = flags.context !== undefined && await isOfText(session, flags.context);
        const templated = info.chatTemplate && flags.raw !== true && !isText;
        if (flags.system !== undefined && !templated) {
          throw new UsageError("Cannot use --system: the model has no chat template, or --raw was given");
        }
        const events = session.engine.generate(templated ? messages : text, {
          ...samplingOptions(flags),
          ...(flags.logprobs === undefined ? {} : { logprobs: flags.logprobs }),
          ...(flags.context === undefined ? {} : { context: flags.context }),
          ...(flags.saveContext === undefined ? {} : { saveContext: flags.saveContext }),
          signal: session.signal,
        });
        return await printEvents(events, session, flags);
      });
      done(code);
    });
  return command as unknown as Command;
}

async function isOfText({ engine }: Session, name: string): Promise<boolean> {
  return await engine.contexts.messages(name) === undefined;
}

interface OutputFlags {
  readonly json?: true | undefined;
  readonly output?: string | undefined;
  readonly quiet?: true | undefined;
}

async function printEvents(
  events: AsyncIterable<TokenEvent>,
  session: Session,
  flags: OutputFlags,
): Promise<number> {
  const stream = flags.json !== true && flags.output === undefined;
  const encoder = new TextEncoder();
  let text = "";
  const tokens: TokenEvent[] = [];
  let last: Extract<TokenEvent, { type: "done" }> | undefined;
  try {
    for await (const event of events) {
      if (event.type === "prefill") {
        session.progress.report({ phase: "prefill", done: event.done, total: event.total });
      } else if (event.type === "token") {
        if (text === "" && event.text !== "") session.progress.clear();
        text += event.text;
        if (stream) writeAll(encoder.encode(event.text));
        if (flags.json === true) tokens.push(event);
      } else {
        last = event;
      }
    }
  } finally {
    session.progress.clear();
    // What is said next, even of a failure, stands on a line of its own.
    if (stream && (text !== "" || last !== undefined)) writeAll(encoder.encode("\n"));
  }
  if (flags.output !== undefined) await Deno.writeTextFile(flags.output, `${text}\n`);
  if (last === undefined) return 0;
  const peak = session.peakBytes();
  if (flags.json === true) {
    const report = {
      text,
      finish_reason: last.reason,
      stop_reason: last.stop ?? null,
      seed: last.seed,
      timings: last.timings,
      ...(last.attended === undefined ? {} : { attended: last.attended }),
      peak_bytes: peak,
      tokens: tokens.map((event) =>
        event.type !== "token" ? {} : {
          id: event.token,
          text: event.text,
          ...(event.logprob === undefined ? {} : { logprob: event.logprob.logprob }),
          ...(event.top === undefined ? {} : { top_logprobs: event.top }),
        }
      ),
    };
    writeAll(encoder.encode(`${JSON.stringify(report)}\n`));
  } else if (flags.quiet !== true) {
    console.error(formatTimings(last.timings, peak, last.attended));
  }
  return 0;
}

/** `prompt 36 tokens, 812.3 tok/s · answer 64 tokens, 95.1 tok/s · first token 62 ms · peak 291 MB` */
export function formatTimings(timings: Timings, peakBytes: number, attended?: AttendedStats): string {
  const rate = (tokens: number, ms: number) => ms > 0 ? (1000 * tokens / ms).toFixed(1) : "–";
  // The first token comes out of the prompt's last chunk, so decoding made one fewer.
  const decoded = Math.max(0, timings.predictedTokens - 1);
  const read = timings.promptTokens - timings.cachedTokens;
  const cached = timings.cachedTokens === 0 ? "" : ` (${timings.cachedTokens} restored)`;
  return [
    `prompt ${timings.promptTokens} tokens${cached}, ${rate(read, timings.promptMs)} tok/s`,
    `answer ${timings.predictedTokens} tokens, ${rate(decoded, timings.predictedMs)} tok/s`,
    `first token ${timings.firstTokenMs.toFixed(0)} ms`,
    `peak ${(peakBytes / 1e6).toFixed(0)} MB`,
    ...(attended === undefined || attended.queries === attended.dense ? [] : [formatAttended(attended)]),
  ].join(" · ");
}

/** `attended 612 of 8192 keys, 96 of them retrieved` */
function formatAttended({ queries, tokens, spanned, retrieved }: AttendedStats): string {
  const mean = (sum: number) => (sum / queries).toFixed(0);
  return `attended ${mean(spanned + retrieved)} of ${mean(tokens)} keys, ${mean(retrieved)} of them retrieved`;
}

function writeAll(bytes: Uint8Array): void {
  let at = 0;
  while (at < bytes.length) at += Deno.stdout.writeSync(bytes.subarray(at));
}
