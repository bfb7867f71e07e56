/**
 * What every command that runs a model does: opens the engine with progress, turns Ctrl+C into a cancel, closes.
 *
 * @module
 */
import { Engine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/types.ts";
import { EXIT } from "./exit.ts";
import { ProgressLine } from "./progress.ts";

/** An open engine and what the command needs around it. */
export interface Session {
  readonly engine: Engine;
  readonly progress: ProgressLine;
  /** Aborted by the first Ctrl+C or SIGTERM. */
  readonly signal: AbortSignal;
  /** Largest resident memory seen, in bytes: sampled, since the process cannot ask for its peak. */
  peakBytes(): number;
}

/** The first signal aborts and is remembered, the second leaves at once. */
export class Signals implements Disposable {
  /** Exit code the first signal stands for. */
  code: number | undefined;
  readonly #controller = new AbortController();
  readonly #onInt = () => this.#raise(EXIT.SIGINT);
  readonly #onTerm = () => this.#raise(EXIT.SIGTERM);

  constructor() {
    Deno.addSignalListener("SIGINT", this.#onInt);
    if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", this.#onTerm);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#onInt);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", this.#onTerm);
  }

  #raise(code: number): void {
    if (this.code !== undefined) Deno.exit(code);
    this.code = code;
    this.#controller.abort(new DOMException("Interrupted", "AbortError"));
  }
}

/** Opens an engine, runs `body`, closes; resolves to the exit code: 130 or 143 after a signal. */
export async function withEngine(options: EngineOptions, body: (session: Session) => Promise<number>): Promise<number> {
  using signals = new Signals();
  const progress = new ProgressLine(Deno.stderr.isTerminal());
  let peak = 0;
  const sample = (): void => {
    peak = Math.max(peak, Deno.memoryUsage().rss);
  };
  const sampler = setInterval(sample, 50);
  try {
    await using engine = await Engine.open({
      ...options,
      signal: signals.signal,
      onProgress: (report) => progress.report(report),
      onNotice: (text) => {
        progress.clear();
        console.error(`kvasir: ${text}`);
      },
    });
    const code = await body({
      engine,
      progress,
      signal: signals.signal,
      peakBytes: () => {
        sample();
        return peak;
      },
    });
    return signals.code ?? code;
  } catch (error) {
    if (signals.code !== undefined) return signals.code;
    throw error;
  } finally {
    clearInterval(sampler);
    progress.clear();
  }
}
