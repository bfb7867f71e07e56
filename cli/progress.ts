/**
 * Progress on a terminal: one line on stderr, redrawn, with rate and time to go; nothing in pipes.
 *
 * @module
 */
import type { Progress } from "../engine/types.ts";

const REDRAW_MS = 80;
const LABELS: Record<Progress["phase"], string> = {
  download: "Downloading",
  build: "Building",
  load: "Loading",
  prefill: "Reading prompt",
};

/** Draws {@link Progress} reports; `clear` removes the line before other output. */
export class ProgressLine {
  #phase: Progress["phase"] | undefined;
  #started = 0;
  #drawn = 0;
  #visible = false;

  /** `enabled` is usually `Deno.stderr.isTerminal()`. */
  constructor(private readonly enabled: boolean, private readonly write: (text: string) => void = writeStderr) {}

  /** Redraws at most every 80 ms, and at the end of a phase. */
  report(progress: Progress): void {
    if (!this.enabled) return;
    const now = performance.now();
    if (progress.phase !== this.#phase) {
      this.#phase = progress.phase;
      this.#started = now;
      this.#drawn = 0;
    }
    const finished = progress.total > 0 && progress.done >= progress.total;
    if (now - this.#drawn < REDRAW_MS && !finished) return;
    this.#drawn = now;
    this.#visible = true;
    this.write(`\r\x1b[2K${formatProgress(progress, (now - this.#started) / 1000)}`);
    if (finished) this.clear();
  }

  /** Removes the line, if there is one. */
  clear(): void {
    if (this.#visible) this.write("\r\x1b[2K");
    this.#visible = false;
  }
}

/** `Downloading smollm2 45 % 44.1/98.4 MB, 12.3 MB/s, 4 s left` */
export function formatProgress(progress: Progress, seconds: number): string {
  const tokens = progress.phase === "prefill";
  const unit = tokens ? "tokens" : "MB";
  const scale = tokens ? 1 : 1e6;
  const digits = tokens ? 0 : 1;
  const amount = (value: number) => (value / scale).toFixed(digits);
  const parts = [LABELS[progress.phase]];
  if (progress.detail !== undefined) parts.push(progress.detail);
  if (progress.total > 0) {
    parts.push(`${Math.floor(100 * progress.done / progress.total)} %`);
    parts.push(`${amount(progress.done)}/${amount(progress.total)} ${unit}`);
  } else if (progress.done > 0) {
    parts.push(`${amount(progress.done)} ${unit}`);
  }
  let line = parts.join(" ");
  if (seconds > 0.3 && progress.done > 0) {
    const rate = progress.done / seconds;
    line += `, ${amount(rate)} ${unit}/s`;
    if (progress.total > progress.done) line += `, ${formatSeconds((progress.total - progress.done) / rate)} left`;
  }
  return line;
}

/** `4 s`, `3 min 20 s` */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function writeStderr(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
