/**
 * What plans say against what was measured.
 *
 *     deno run -A bench/plan.ts matrix RESULTS.jsonl…
 *     deno run -A bench/plan.ts shadow MODEL [--text FILE] [--lengths 1024,2048,4096,8192] [--method full --method kvasir …]
 *
 * `matrix`: each length of each method is predicted from all other cells (engine/work_costs.ts); measured is exact
 * attention's time, a line through all its measurements, over the ratio of paired steps.
 * `shadow`: `kvasir plan`'s forecast from the file's header, beside the same model over a text, in turns within one run. Prints a
 * line a cell, then the median and worst relative error of time, and the worst of memory.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { parseArgs } from "node:util";
import { Forecaster } from "../engine/forecast.ts";
import { workPointOf } from "../cli/measured.ts";
import { WorkCosts, type WorkPoint } from "../engine/work_costs.ts";
import { openModelFile } from "../model/open.ts";
import { measureCosts } from "./matrix/costs.ts";
import { parseCells } from "./matrix/store.ts";
import { grammarText } from "./tasks/grammar.ts";
import { parseMethod, Probe } from "./probe.ts";

/** One prediction. */
interface Line {
  readonly method: string;
  readonly length: number;
  readonly toldMs: number;
  readonly ms: number;
  readonly toldBytes: number;
  readonly bytes: number;
}

/** Turns that are timed, and rounds whose median counts. */
const PAIRS = 16;
const ROUNDS = 3;

function fromMatrix(files: readonly string[]): Line[] {
  const cells = files.flatMap((file) => parseCells(Deno.readTextFileSync(file), file));
  const places = Map.groupBy(
    cells,
    ({ spec: { modelHash, backend }, machine }) => JSON.stringify([modelHash, backend, machine.cpu]),
  );
  return [...places.values()].flatMap((own) => {
    const points = own.map(workPointOf);
    const all = new WorkCosts(points);
    return own.flatMap(({ spec: { method, length }, speed, memory: { weights, cache, index } }, i): Line[] => {
      const { method: name, isBuilt } = points[i] as WorkPoint;
      const others = points.filter((point) => point.method !== name || point.length !== length);
      const alike = others.filter((point) => point.method === name && point.isBuilt === isBuilt);
      if (new Set(alike.map((point) => point.length)).size < 2) {
        console.error(`left out: ${method} at ${length}: it ${isBuilt ? "built" : "scanned"} at too few other lengths`);
        return [];
      }
      const costs = new WorkCosts(others);
      const told = costs.at(name, length);
      return [{
        method,
        length,
        toldMs: told.msPerToken,
        ms: all.exactMs(length) / speed.ratio[0],
        toldBytes: weights + cache + told.indexBytes,
        bytes: weights + cache + index,
      }];
    });
  });
}

async function fromShadow(
  model: string,
  text: string | undefined,
  lengths: readonly number[],
  methods: readonly string[],
): Promise<Line[]> {
  using probe = await Probe.open({ model });
  const { backend, tokenizer, model: { config } } = probe.loaded;
  const weights = backend.bytes;
  const longest = Math.max(...lengths);
  const prose = text === undefined ? grammarText(10 * longest) : Deno.readTextFileSync(text);
  const tokens = tokenizer.encode(prose);
  if (tokens.length < longest) {
    throw new RangeError(`Cannot measure: the text has ${tokens.length} tokens of ${longest}`);
  }
  using opened = openModelFile(model);
  const lines: Line[] = [];
  for (const length of lengths) {
    await probe.read(tokens.slice(0, length));
    using exact = await probe.under(parseMethod("full"));
    for (const name of methods) {
      const method = parseMethod(name);
      using state = await probe.under(method);
      state.settle();
      const place = { probe, exact, pairs: PAIRS, tokens: tokens.slice(length - 64, length), weights, readMs: 0 };
      const [ms, toldMs]: [number[], number[]] = [[], []];
      let [bytes, toldBytes] = [0, 0];
      for (let round = 0; round < ROUNDS; round++) {
        const { speed, memory } = measureCosts(place, state, { readWithMs: 0, settleMs: 0 });
        const before = backend.bytes;
        using forecaster = new Forecaster(opened, backend, 1e12);
        const [told] = forecaster.answer([{ length, attention: method.options, kvType: "f16" }]);
        if (told === undefined) throw new Error("Cannot compare: no forecast");
        ms.push(speed.ownMs);
        toldMs.push(told.msPerToken);
        bytes = memory.weights + memory.cache + memory.index;
        // Beside the weights and the cache that are here already.
        toldBytes = told.deviceBytes - before;
      }
      lines.push({ method: name, length, toldMs: median(toldMs), ms: median(ms), toldBytes, bytes });
      console.error(`${config.name} ${name} ${length}`);
    }
  }
  return lines;
}

function print(lines: readonly Line[]): void {
  const off = ({ toldMs, ms }: Line) => toldMs / ms - 1;
  const offBytes = ({ toldBytes, bytes }: Line) => toldBytes / bytes - 1;
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`;
  console.log(
    "| tokens | method | told ms | measured ms | off | told MB | measured MB | off |\n|---|---|---|---|---|---|---|---|",
  );
  for (const line of lines.toSorted((a, b) => a.length - b.length)) {
    console.log(
      `| ${line.length} | \`${line.method}\` | ${line.toldMs.toFixed(2)} | ${line.ms.toFixed(2)} | ${
        percent(off(line))
      } | ` +
        `${(line.toldBytes / 1e6).toFixed(1)} | ${(line.bytes / 1e6).toFixed(1)} | ${percent(offBytes(line))} |`,
    );
  }
  const errors = lines.map((line) => Math.abs(off(line)));
  console.log(
    `\n${lines.length} cells: time off by ${percent(median(errors))} in the median, ${
      percent(Math.max(...errors))
    } at worst; ` +
      `memory by ${percent(Math.max(...lines.map((line) => Math.abs(offBytes(line)))))} at worst`,
  );
}

async function main(): Promise<void> {
  const { values, positionals: [kind, ...rest] } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      text: { type: "string" },
      lengths: { type: "string", default: "1024,2048,4096,6144,8192" },
      method: { type: "string", multiple: true, default: ["full", "kvasir", "exact-topk", "streaming-llm:window=512"] },
    },
  });
  const [first] = rest;
  if (first === undefined) throw new RangeError("Cannot compare: give matrix RESULTS.jsonl, or shadow MODEL");
  if (kind === "matrix") return print(fromMatrix(rest));
  if (kind !== "shadow") throw new RangeError(`Cannot compare by "${kind}": choose matrix or shadow`);
  print(await fromShadow(first, values.text, values.lengths.split(",").map(Number), values.method));
}

if (import.meta.main) await main();
