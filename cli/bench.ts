/**
 * `kvasir bench speed`: tokens per second of prefill and decode, as llama-bench reports them; `bench matrix` and `bench report` live
 * in `bench/` and are imported only when they run.
 *
 * @module
 */
import { type Command, Command as Plain, Option } from "@commander-js/extra-typings";
import type { Engine } from "../engine/engine.ts";
import { EXIT, UsageError } from "./exit.ts";
import { engineOptions, integer, integers, modelCommand } from "./options.ts";
import { withEngine } from "./session.ts";

/** One line of the table. */
export interface SpeedRow {
  readonly model: string;
  readonly backend: string;
  readonly kv: string;
  /** `pp512`: prefill of 512 tokens; `tg128 @ d8192`: 128 tokens decoded after 8192. */
  readonly test: string;
  readonly tokensPerSecond: number;
  readonly deviation: number;
  readonly runs: number;
}

/** Those of `bench/`. The report's is found at run time: its libraries are no part of what the command line installs. */
const OTHERS: Readonly<Record<string, { summary: string; load: (done: (code: number) => void) => Promise<Command> }>> =
  {
    matrix: {
      summary: "quality, speed, work and memory of methods over tasks and lengths",
      load: async (done) => (await import("../bench/matrix/command.ts")).matrixCommand(done),
    },
    report: {
      summary: "pictures, tables and a page of the matrix's results",
      load: async (done) => {
        const file = new URL("../bench/report/command.ts", import.meta.url).href;
        return (await import(file) as { reportCommand(done: (code: number) => void): Command }).reportCommand(done);
      },
    },
  };

/** The command, for `main.ts`; of those beside `speed` only the one that `args` name is loaded. */
export async function benchCommand(done: (code: number) => void, args: readonly string[]): Promise<Command> {
  const bench = new Plain("bench").description("Measures this machine.").addCommand(
    speedCommand(done) as unknown as Plain,
  );
  for (const [name, { summary, load }] of Object.entries(OTHERS)) {
    const command = args.includes(name) ? await load(done) : new Plain(name);
    bench.addCommand((command as unknown as Plain).summary(summary));
  }
  return bench as unknown as Command;
}

function speedCommand(done: (code: number) => void): Command {
  const command = modelCommand("speed")
    .description("Prefill and decode rates on random tokens.")
    .option("-p, --n-prompt <list>", "prompt lengths to prefill", integers(0), [512])
    .option("-n, --n-gen <list>", "tokens to decode", integers(0), [128])
    .option("-d, --n-depth <list>", "context lengths before decoding", integers(0), [0])
    .option("-r, --repetitions <n>", "runs of each test, after one for warming up", integer(1, 1000), 5)
    .addOption(
      new Option("-o, --output <format>", "how to print").choices(["md", "csv", "json", "jsonl"]).default("md"),
    )
    .action(async (flags) => {
      const code = await withEngine(engineOptions(flags), async ({ engine, signal }) => {
        const info = await engine.info();
        const name = { model: info.config.name, backend: info.backend, kv: info.kvType };
        const rows: SpeedRow[] = [];
        const add = async (test: string, length: number, measure: () => Promise<number>): Promise<void> => {
          if (length > info.ctxSize) {
            throw new UsageError(
              `Cannot run ${test}: it needs ${length} tokens, the context holds ${info.ctxSize}; raise --ctx-size`,
            );
          }
          const rates: number[] = [];
          for (let run = -1; run < flags.repetitions && !signal.aborted; run++) {
            const rate = await measure();
            if (run >= 0) rates.push(rate);
          }
          if (signal.aborted) return;
          rows.push({ ...name, test, ...spread(rates), runs: rates.length });
          if (flags.output === "jsonl") console.log(JSON.stringify(rows.at(-1)));
        };
        for (const p of flags.nPrompt.filter((p) => p > 0)) {
          await add(`pp${p}`, p + 1, () => prefillRate(engine, p, info.config.vocab, signal));
        }
        for (const d of flags.nDepth) {
          for (const n of flags.nGen.filter((n) => n > 0)) {
            const test = d === 0 ? `tg${n}` : `tg${n} @ d${d}`;
            await add(test, d + n + 2, () => decodeRate(engine, Math.max(1, d), n, info.config.vocab, signal));
          }
        }
        if (signal.aborted) return EXIT.SIGINT;
        if (flags.output !== "jsonl") console.log(formatRows(rows, flags.output));
        return EXIT.OK;
      });
      done(code);
    });
  return command as unknown as Command;
}

/** Prompt tokens per second; the tokens are pseudo-random ids that every vocabulary has. */
async function prefillRate(engine: Engine, length: number, vocab: number, signal: AbortSignal): Promise<number> {
  const timings = await run(engine, length, 1, vocab, signal);
  return 1000 * timings.promptTokens / timings.promptMs;
}

async function decodeRate(
  engine: Engine,
  depth: number,
  count: number,
  vocab: number,
  signal: AbortSignal,
): Promise<number> {
  const timings = await run(engine, depth, count + 1, vocab, signal);
  return 1000 * (timings.predictedTokens - 1) / timings.predictedMs;
}

async function run(
  engine: Engine,
  promptTokens: number,
  maxTokens: number,
  vocab: number,
  signal: AbortSignal,
): Promise<{ promptTokens: number; promptMs: number; predictedTokens: number; predictedMs: number }> {
  const ids = Math.min(256, vocab);
  const prompt = Int32Array.from({ length: promptTokens }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 8) % ids);
  const options = { maxTokens, temperature: 0, ignoreEos: true, signal };
  for await (const event of engine.generate(prompt, options)) if (event.type === "done") return event.timings;
  throw new Error("Cannot measure: the generation ended without timings");
}

function spread(values: readonly number[]): { tokensPerSecond: number; deviation: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
  return { tokensPerSecond: mean, deviation: Math.sqrt(variance) };
}

/** Rows as a Markdown table, CSV or JSON. */
export function formatRows(rows: readonly SpeedRow[], format: "md" | "csv" | "json" | "jsonl"): string {
  if (format === "json" || format === "jsonl") return JSON.stringify(rows, null, 2);
  const cells = rows.map((row) => [
    row.model,
    row.backend,
    row.kv,
    row.test,
    `${row.tokensPerSecond.toFixed(2)} ± ${row.deviation.toFixed(2)}`,
  ]);
  const head = ["model", "backend", "kv", "test", "tok/s"];
  if (format === "csv") return [head, ...cells].map((line) => line.map((cell) => `"${cell}"`).join(",")).join("\n");
  const line = (values: readonly string[]) => `| ${values.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...cells.map(line)].join("\n");
}
