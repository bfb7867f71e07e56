/**
 * Kvasir against llama.cpp (node-llama-cpp) on the same files, interleaved in one run: prefill, decode, start-up.
 *
 *     npm install --prefix .tools/rival node-llama-cpp@3.22
 *     deno run -A bench/rivals.ts --rival .tools/rival smollm2-q4_1.gguf [more.gguf …]
 *
 * `--tests prefill,prefill-long,decode,decode-long` picks. The rival runs with each of its settings and its best median counts. Prints a Markdown table: rates, ratio, and for
 * decode our time over the floor, which is bytes of weights and cache over the bandwidth measured in the same run.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { openBackend } from "../backends/mod.ts";
import { Engine } from "../engine/engine.ts";

interface Job {
  readonly model: string;
  readonly kind: "prefill" | "decode";
  readonly tokens: number;
  readonly depth: number;
}

const RIVAL_SETTINGS = [
  { flash: true, batch: 512 },
  { flash: false, batch: 512 },
  { flash: true, batch: 2048 },
];

/** A rival process that answers jobs line by line. */
class Rival implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncIterator<string>;

  constructor(directory: string) {
    const script = new URL("./rival/llama_cpp.mjs", import.meta.url).pathname;
    this.#child = new Deno.Command("node", {
      args: [script, directory],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#lines = splitLines(this.#child.stdout)[Symbol.asyncIterator]();
  }

  async run(job: Record<string, unknown>): Promise<Record<string, unknown>> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(job)}\n`));
    const line = await this.#lines.next();
    if (line.done === true) throw new Error(`Cannot measure the rival: it ended during ${JSON.stringify(job)}`);
    return JSON.parse(line.value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#child.status;
  }
}

async function* splitLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

async function ours(engine: Engine, job: Job): Promise<number> {
  const length = job.kind === "prefill" ? job.tokens : Math.max(1, job.depth);
  const prompt = Int32Array.from({ length }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 8) & 0xff);
  const maxTokens = job.kind === "prefill" ? 1 : job.tokens + 1;
  for await (const event of engine.generate(prompt, { maxTokens, temperature: 0, ignoreEos: true })) {
    if (event.type !== "done") continue;
    const { promptTokens, promptMs, predictedTokens, predictedMs } = event.timings;
    return 1000 * (job.kind === "prefill" ? promptTokens / promptMs : (predictedTokens - 1) / predictedMs);
  }
  throw new Error("Cannot measure: no timings");
}

/** Bytes a decode step must read: every weight once, and the cached rows that each layer attends to. */
async function floorBytes(engine: Engine, model: string, depth: number): Promise<number> {
  const { config } = await engine.info();
  let bytes = (await Deno.stat(model)).size;
  for (const layer of config.layers) {
    bytes += 4 * layer.kvHeads * layer.headDim * Math.min(depth, layer.slidingWindow ?? depth);
  }
  return bytes;
}

async function main(args: string[]): Promise<void> {
  const options = { rival: ".tools/rival", rounds: 3, threads: 2, depth: 8000, backend: "cpu", tests: "" };
  const models: string[] = [];
  while (args.length > 0) {
    const arg = args.shift() as string;
    const name = arg.replace(/^--/, "") as keyof typeof options;
    if (!arg.startsWith("--")) models.push(arg);
    else if (name === "rival" || name === "backend" || name === "tests") options[name] = args.shift() as string;
    else if (name in options) (options[name] as number) = Number(args.shift());
    else throw new Error(`Unknown flag "${arg}": choose --rival, --backend, --tests, --rounds, --threads, --depth`);
  }
  await using rival = new Rival(await Deno.realPath(options.rival));
  console.log("| model | test | llama.cpp tok/s | kvasir tok/s | ratio | time / floor |");
  console.log("|---|---|---|---|---|---|");
  // Minutes a run: both settings are tried on the first model, the better one is kept for the others.
  const bestForLong = new Map<string, number>();
  for (const model of models) {
    await using engine = await Engine.open({ model, backend: options.backend });
    const depth = Math.min(options.depth, (await engine.info()).ctxSize - 200);
    const jobs: Job[] = [
      { model, kind: "prefill", tokens: 512, depth: 0 },
      { model, kind: "prefill", tokens: depth, depth: 0 },
      { model, kind: "decode", tokens: 64, depth: 0 },
      { model, kind: "decode", tokens: 64, depth },
    ];
    const names = ["prefill", "prefill-long", "decode", "decode-long"];
    for (
      const job of jobs.filter((_, i) => options.tests === "" || options.tests.split(",").includes(names[i] ?? ""))
    ) {
      const long = job.depth + job.tokens > 2000;
      const rounds = long ? 1 : options.rounds;
      const tried = !long ? [0, 1, 2] : bestForLong.has(job.kind) ? [bestForLong.get(job.kind) as number] : [0, 1];
      const theirs = RIVAL_SETTINGS.map(() => [] as number[]);
      const mine: number[] = [];
      const bandwidths: number[] = [];
      await ours(engine, job);
      for (let round = 0; round < rounds; round++) {
        for (const i of tried) {
          const settings = { runs: 1, warm: !long, threads: options.threads };
          const { rates } = await rival.run({ ...job, ...RIVAL_SETTINGS[i], ...settings });
          theirs[i]?.push(...rates as number[]);
        }
        for (let i = 0; i < (long ? 2 : 1); i++) mine.push(await ours(engine, job));
        bandwidths.push(bandwidth(options.backend));
      }
      const medians = theirs.map((rates) => rates.length > 0 ? median(rates) : 0);
      const best = Math.max(...medians);
      if (long) bestForLong.set(job.kind, medians.indexOf(best));
      const rate = median(mine);
      const floor = job.kind === "decode"
        ? (1 / rate / (await floorBytes(engine, model, job.depth) / (1e9 * Math.max(...bandwidths)))).toFixed(2)
        : "";
      const test = job.kind === "prefill" ? `prefill ${job.tokens}` : `decode at ${job.depth}`;
      const name = model.split("/").at(-1);
      console.log(
        `| ${name} | ${test} | ${best.toFixed(1)} | ${rate.toFixed(1)} | ${(rate / best).toFixed(2)} | ${floor} |`,
      );
    }
  }
}

function bandwidth(spec: string): number {
  using backend = openBackend(spec);
  if (!("bandwidth" in backend) || typeof backend.bandwidth !== "function") return NaN;
  return backend.bandwidth(512) as number;
}

if (import.meta.main) await main([...Deno.args]);
