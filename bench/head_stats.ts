/**
 * What the heads of a file look like: where the softmax mass lies and how many keys hold it.
 *
 *     deno run -A bench/head_stats.ts FILE… [--queries 8] [--each]
 *
 * @module
 */
import { parseArgs } from "node:util";
import { scoreAll } from "./exact.ts";
import { RecordedHeads, type RecordedLayer } from "./recorded.ts";

const SINKS = 4;
const WINDOW = 512;

/** Figures of one query head, means over queries. */
export interface HeadStats {
  /** Mass of the first 4 keys, of the last 512, and of the rest. */
  readonly sinks: number;
  readonly window: number;
  readonly rest: number;
  /** Of the rest, in its top 100 and 1000 keys. */
  readonly top100: number;
  readonly top1000: number;
  /** Keys that hold 90 and 99 % of all mass. */
  readonly keys90: number;
  readonly keys99: number;
}

/** See {@link HeadStats}; over `queries` decode queries, evenly spread. */
export function headStats(
  tokens: number,
  decoded: number,
  layer: RecordedLayer,
  head: number,
  queries: number,
): HeadStats {
  const sum = { sinks: 0, window: 0, rest: 0, top100: 0, top1000: 0, keys90: 0, keys99: 0 };
  for (let j = 0; j < queries; j++) {
    const query = Math.floor((j + 0.5) * decoded / queries);
    const seen = tokens - decoded + query + 1;
    const weights = softmax(scoreAll(layer, tokens, seen, head, layer.decodeQueries, query));
    const mass = (from: number, to: number) => weights.subarray(from, to).reduce((a, x) => a + x, 0);
    const from = Math.max(SINKS, seen - WINDOW);
    const rest = weights.slice(SINKS, from).sort().reverse();
    const restMass = mass(SINKS, from);
    const top = (k: number) => rest.subarray(0, k).reduce((a, x) => a + x, 0) / Math.max(restMass, 1e-30);
    sum.sinks += mass(0, SINKS);
    sum.window += mass(from, seen);
    sum.rest += restMass;
    sum.top100 += top(100);
    sum.top1000 += top(1000);
    const sorted = weights.slice().sort().reverse();
    sum.keys90 += keysFor(sorted, 0.9);
    sum.keys99 += keysFor(sorted, 0.99);
  }
  return Object.fromEntries(Object.entries(sum).map(([key, x]) => [key, x / queries])) as unknown as HeadStats;
}

function softmax(scores: Float64Array): Float64Array {
  const max = scores.reduce((a, x) => Math.max(a, x), -Infinity);
  const weights = scores.map((x) => Math.exp(x - max));
  const sum = weights.reduce((a, x) => a + x, 0);
  return weights.map((x) => x / sum);
}

function keysFor(sorted: Float64Array, share: number): number {
  let mass = 0;
  for (let i = 0; i < sorted.length; i++) if ((mass += sorted[i] as number) >= share) return i + 1;
  return sorted.length;
}

function main(args: string[]): void {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { queries: { type: "string", default: "8" }, each: { type: "boolean", default: false } },
  });
  const names = ["sinks", "window", "rest", "top100", "top1000", "keys90", "keys99"] as const;
  const shown = (x: number) => x >= 10 ? x.toFixed(0) : x.toFixed(2);
  console.log(
    "| heads | first 4 | last 512 | rest | of it, top 100 | top 1000 | keys for 90 % | 99 % |\n|---|---|---|---|---|---|---|---|",
  );
  for (const path of positionals) {
    using file = new RecordedHeads(path);
    const all: HeadStats[] = [];
    for (let i = 0; i < file.entries.length; i++) {
      const layer = file.layer(i);
      for (let head = 0; head < layer.shape.heads; head++) {
        const stats = headStats(file.header.tokens, file.header.decoded, layer, head, Number(values.queries));
        all.push(stats);
        if (values.each) console.log(`| ${layer.layer}.${head} | ${names.map((n) => shown(stats[n])).join(" | ")} |`);
      }
    }
    const cells = names.map((name) => {
      const sorted = all.map((s) => s[name]).sort((a, b) => a - b);
      return [0.1, 0.5, 0.9].map((p) => shown(sorted[Math.floor(p * sorted.length)] as number)).join(" / ");
    });
    console.log(`| ${path.replace(/^.*\//, "")}, p10 / p50 / p90 | ${cells.join(" | ")} |`);
  }
}

if (import.meta.main) main(Deno.args);
