/**
 * `kvasir perplexity`: negative log-likelihood of a text, and divergence from a saved run.
 *
 * @module
 */
import { type Command, Option } from "@commander-js/extra-typings";
import type { AttendedStats } from "../engine/types.ts";
import { ModelFileError } from "../core/errors.ts";
import { QualityError, UsageError } from "./exit.ts";
import { checkOutput, readText } from "./files.ts";
import { decimal, engineOptions, integer, modelCommand } from "./options.ts";
import { withEngine } from "./session.ts";

/** Tokens `[start, end)` of the text run as one window, of which those from `from` on are scored. */
export interface Window {
  readonly start: number;
  readonly end: number;
  readonly from: number;
}

/** The command, for `main.ts`. */
export function perplexityCommand(done: (code: number) => void): Command {
  const command = modelCommand("perplexity")
    .description("Scores a text in windows of --window tokens, moved by --stride: each window scores its last tokens.")
    .argument("<file>", "UTF-8 text")
    .option("--window <tokens>", "tokens a window holds", integer(2), 512)
    .option("--stride <tokens>", "tokens scored per window (default: half of it)", integer(1))
    .option("--chunks <n>", "most windows", integer(1))
    .addOption(
      new Option("--mode <mode>", "run scored tokens one by one or in chunks").choices(["decode", "prefill"])
        .default("prefill"),
    )
    .option("--save-logits <path>", "write the logits of scored tokens")
    .option("--kl-base <path>", "compare with saved logits: KL divergence and same best token")
    .option("--max-kl <nats>", "fail (exit code 6) when the mean KL divergence is above", decimal(0, 1e6))
    .option("--json", "print one JSON object")
    .action(async (file, flags) => {
      const text = await readText(file);
      if (flags.saveLogits !== undefined) checkOutput(flags.saveLogits);
      if (flags.maxKl !== undefined && flags.klBase === undefined) {
        throw new UsageError("Cannot check --max-kl: it needs --kl-base");
      }
      const code = await withEngine(engineOptions(flags), async ({ engine, progress, signal }) => {
        const tokens = await engine.tokenize(text);
        const stride = flags.stride ?? Math.max(1, flags.window >> 1);
        const windows = planWindows(tokens.length, flags.window, stride).slice(0, flags.chunks);
        if (windows.length === 0) {
          throw new UsageError(`Cannot score: the text has ${tokens.length} tokens, 2 at least`);
        }
        if (flags.saveLogits !== undefined) await Deno.writeFile(flags.saveLogits, new Uint8Array());
        const nll: number[] = [];
        const kl: number[] = [];
        let same = 0;
        const attended: AttendedStats[] = [];
        for (const [i, window] of windows.entries()) {
          const result = await engine.evaluate(tokens.slice(window.start, window.end), {
            from: window.from - window.start,
            mode: flags.mode,
            signal,
            ...(flags.saveLogits === undefined ? {} : { saveLogits: flags.saveLogits }),
            ...(flags.klBase === undefined ? {} : { klBase: flags.klBase, klRow: nll.length }),
          });
          for (const logprob of result.logprobs) nll.push(-logprob);
          for (const value of result.kl ?? []) kl.push(value);
          for (const value of result.sameTop ?? []) same += value;
          if (result.attended !== undefined) attended.push(result.attended);
          progress.report({ phase: "prefill", done: window.end, total: windows.at(-1)?.end ?? 0, detail: `${i + 1}` });
        }
        progress.clear();
        const report = { ...summarize(nll, kl, same), ...attendedReport(attended) };
        console.log(flags.json === true ? JSON.stringify(report) : formatReport(report));
        if (flags.maxKl !== undefined && !(report.kl !== undefined && report.kl.mean <= flags.maxKl)) {
          throw new QualityError(`Mean KL divergence ${report.kl?.mean} is above ${flags.maxKl}`);
        }
        return 0;
      });
      done(code);
    });
  return command as unknown as Command;
}

/** Windows over `n` tokens; the first token of the text is never scored, every other at most once. */
export function planWindows(n: number, size: number, stride: number): Window[] {
  if (stride >= size) throw new UsageError(`Cannot score: --stride ${stride} must be below --window ${size}`);
  const windows: Window[] = [];
  let scored = Math.min(n, size - stride);
  while (scored < n && n > 1) {
    const end = Math.min(n, scored + stride);
    windows.push({ start: Math.max(0, end - size), end, from: Math.max(1, scored) });
    scored = end;
  }
  // A text shorter than the context of a first window is scored whole.
  if (windows.length === 0 && n > 1) windows.push({ start: 0, end: n, from: 1 });
  return windows;
}

/** Figures of one run. */
export interface Report {
  readonly tokens: number;
  /** Mean negative log-likelihood in nats, and its standard error. */
  readonly nll: number;
  readonly nllError: number;
  readonly perplexity: number;
  readonly perplexityError: number;
  readonly kl?: {
    readonly mean: number;
    readonly error: number;
    readonly p50: number;
    readonly p99: number;
    readonly max: number;
    readonly sameTop: number;
  };
  /** What decode queries looked at, means over queries and layers with a sparse policy. */
  readonly attended?: {
    /** Keys that an index found, per KV head, and their share of all keys. */
    readonly rows: number;
    readonly share: number;
    /** Keys of sinks and window. */
    readonly spanned: number;
    /** Share of all keys that the index scored. */
    readonly scored: number;
    /** Share of queries that attended to everything. */
    readonly dense: number;
    /** Relative L2 error of outputs as the index estimates it. */
    readonly estimatedError: number;
  };
}

/** Mean, error and quantiles from per-token values. */
export function summarize(nll: readonly number[], kl: readonly number[], sameTop: number): Report {
  const [mean, error] = meanAndError(nll);
  const perplexity = Math.exp(mean);
  const report = { tokens: nll.length, nll: mean, nllError: error, perplexity, perplexityError: perplexity * error };
  if (kl.length === 0) return report;
  if (kl.length !== nll.length) throw new ModelFileError("Cannot compare: the saved logits hold too few rows");
  const sorted = kl.toSorted((a, b) => a - b);
  const quantile = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
  const [klMean, klError] = meanAndError(kl);
  return {
    ...report,
    kl: {
      mean: klMean,
      error: klError,
      p50: quantile(0.5),
      p99: quantile(0.99),
      max: quantile(1),
      sameTop: sameTop / kl.length,
    },
  };
}

/** Sums of several runs as shares and means; nothing where every layer attended to everything. */
function attendedReport(runs: readonly AttendedStats[]): Pick<Report, "attended"> {
  const sum = (key: keyof AttendedStats) => runs.reduce((total, run) => total + run[key], 0);
  const queries = sum("queries");
  if (queries === 0) return {};
  const tokens = sum("tokens");
  return {
    attended: {
      rows: sum("retrieved") / queries,
      share: sum("retrieved") / tokens,
      spanned: sum("spanned") / queries,
      scored: sum("scored") / tokens,
      dense: sum("dense") / queries,
      estimatedError: sum("estimatedError") / Math.max(1, queries - sum("dense")),
    },
  };
}

function meanAndError(values: readonly number[]): [mean: number, error: number] {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  if (values.length < 2) return [mean, 0];
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return [mean, Math.sqrt(variance / values.length)];
}

function formatReport(report: Report): string {
  const lines = [
    `tokens scored  ${report.tokens}`,
    `NLL            ${report.nll.toFixed(5)} ± ${report.nllError.toFixed(5)}`,
    `perplexity     ${report.perplexity.toFixed(4)} ± ${report.perplexityError.toFixed(4)}`,
  ];
  if (report.kl !== undefined) {
    const { mean, error, p50, p99, max, sameTop } = report.kl;
    lines.push(
      `KL to base     ${mean.toExponential(3)} ± ${error.toExponential(1)}`,
      `KL p50, p99    ${p50.toExponential(3)}, ${p99.toExponential(3)} (max ${max.toExponential(3)})`,
      `same best      ${(100 * sameTop).toFixed(2)} %`,
    );
  }
  if (report.attended !== undefined) {
    const { rows, share, spanned, scored, dense, estimatedError } = report.attended;
    lines.push(
      `rows retrieved ${rows.toFixed(1)} a KV head, ${(100 * share).toFixed(2)} % of all keys, beside ${
        spanned.toFixed(0)
      } near`,
      `keys scored    ${(100 * scored).toFixed(1)} %; ${(100 * dense).toFixed(0)} % of queries dense`,
      `error          ${estimatedError.toFixed(4)} estimated`,
    );
  }
  return lines.join("\n");
}
