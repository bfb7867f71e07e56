/**
 * Index types and rival libraries (hnswlib, faiss) on the same recorded heads, beside the matrix: what `bench/index.ts` wrote.
 *
 * @module
 */
import { grouped, type HeadLine, indexTable, mean, sourceName } from "../index_table.ts";
import type { Chart } from "./charts.ts";
import { formatNumber } from "./findings.ts";
import { median } from "../../core/median.ts";
import type { Table } from "./tables.ts";
import { inkOf, type Theme } from "./theme.ts";

/** A search setting on one file of heads. */
interface Point {
  readonly source: string;
  readonly spec: string;
  readonly family: string;
  readonly recall: number;
  readonly us: number;
  readonly isRival: boolean;
}

const RIVALS = /^(hnswlib|faiss)/;
/** What rivals must reach to be compared. */
const RECALL = 0.95;

function pointsOf(lines: readonly HeadLine[]): Point[] {
  return grouped(lines.filter((line) => line.goal.startsWith("top") && line.warmUs !== undefined)).map((group) => {
    const [first] = group as [HeadLine];
    return {
      source: sourceName(first),
      spec: first.spec,
      family: first.spec.split(/[:,]/)[0] as string,
      recall: mean(group.map((line) => line.recall)),
      us: median(group.map((line) => line.warmUs as number)),
      isRival: RIVALS.test(first.spec),
    };
  });
}

function finding(points: readonly Point[]): string {
  const sources = [...new Set(points.map((point) => point.source))];
  const parts = sources.flatMap((source) => {
    const here = points.filter((point) => point.source === source && point.recall >= RECALL);
    const fastest = (some: readonly Point[]) => some.toSorted((a, b) => a.us - b.us)[0];
    const [own, rival] = [fastest(here.filter((p) => !p.isRival)), fastest(here.filter((p) => p.isRival))];
    if (own === undefined || rival === undefined) return [];
    return [`${formatNumber(rival.us / own.us)} times that of ${own.spec} on ${source} (${rival.family})`];
  });
  return parts.length === 0
    ? "Recall of the best 100 keys against time, index by index"
    : `For recall ${RECALL} the best rival library takes ${parts.join(", ")}`;
}

/** Recall against time. */
export function indexChart(lines: readonly HeadLine[], theme: Theme): Chart | undefined {
  const points = pointsOf(lines);
  if (points.length === 0) return undefined;
  const columns = Math.min(3, new Set(points.map((point) => point.source)).size);
  const families = [...new Set(points.map((point) => point.family))].sort();
  const ours = families.filter((family) => !RIVALS.test(family));
  const { main } = inkOf(theme);
  const warm = theme === "light" ? ["#c2410c", "#a21caf", "#be123c"] : ["#fb923c", "#e879f9", "#fb7185"];
  const cool = [main, ...(theme === "light" ? ["#0f766e", "#4d7c0f", "#475569"] : ["#2dd4bf", "#a3e635", "#94a3b8"])];
  const others = families.filter((family) => RIVALS.test(family));
  const range = families.map((family) =>
    RIVALS.test(family) ? warm[others.indexOf(family) % warm.length] : cool[ours.indexOf(family) % cool.length]
  );
  const x = { field: "us", type: "quantitative", scale: { type: "log" }, title: "µs a search, median head (log)" };
  const y = { field: "recall", type: "quantitative", scale: { zero: false }, title: "recall of the best keys" };
  const color = { field: "family", type: "nominal", scale: { domain: families, range }, title: null };
  return {
    name: "index_level",
    title: finding(points),
    subtitle:
      "Up and left is better. One search of a group's heads on recorded keys, warm; rivals count one query head after the other.",
    spec: {
      data: { values: points },
      facet: { field: "source", type: "nominal", title: null },
      columns,
      spec: {
        width: Math.floor(780 / columns),
        height: 280,
        layer: [
          { mark: { type: "line", strokeWidth: 1, opacity: 0.6 }, encoding: { x, y, color } },
          { mark: { type: "point", filled: true, size: 60 }, encoding: { x, y, color } },
        ],
      },
    },
  };
}

/** The table of `bench/index.ts table`. */
export function indexLevelTable(lines: readonly HeadLine[]): Table {
  const rows = indexTable(lines).split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
  const [head = [], , ...body] = rows;
  return {
    title: "Index types and rivals",
    note: "One row per file, spec and goal; docs/index_bench.md says how.",
    head,
    rows: body,
  };
}
