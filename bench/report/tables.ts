/**
 * Tables of a report: rows as values, and as Markdown or HTML.
 *
 * @module
 */
import type { Interval } from "../quality_table.ts";
import { formatLength, formatNumber } from "./findings.ts";
import { median } from "../../core/median.ts";
import { paretoFront, type Point } from "./points.ts";

/** A table. */
export interface Table {
  readonly title: string;
  readonly note: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Quality, work, speed and memory of methods over texts, length by length. */
export function fidelityTable(points: readonly Point[]): Table | undefined {
  const rows = points.filter((point) => point.quality.kind === "text")
    .toSorted((a, b) => a.length - b.length || a.keys - b.keys);
  if (rows.length === 0) return undefined;
  return {
    title: "Text: divergence from full attention",
    note:
      "KL in nats with 95 % intervals; speed is exact time over own time, the median and quartiles of interleaved pairs; " +
      "floor is own time over what its bytes take at the bandwidth measured beside.",
    head: [
      "tokens",
      "method",
      "keys",
      "share",
      "KL",
      "same best",
      "Δ NLL",
      "ms a token",
      "× exact",
      "time / floor",
      "index MB",
      "build s",
    ],
    rows: rows.map((point) => {
      if (point.quality.kind !== "text") return [];
      const { kl, sameTop, deltaNll } = point.quality;
      return [
        formatLength(point.length),
        `\`${point.method}\``,
        point.keys.toFixed(0),
        percent(point.share),
        point.method === "full" ? "0" : interval(kl),
        percent(sameTop),
        signed(deltaNll),
        point.ms.toFixed(2),
        `${point.ratio[0].toFixed(2)} (${point.ratio[1].toFixed(2)} to ${point.ratio[2].toFixed(2)})`,
        point.overFloor?.toFixed(2) ?? "–",
        point.indexMB.toFixed(1),
        point.threadSeconds.toFixed(2),
      ];
    }),
  };
}

/** Whom nobody answers better for as few keys. */
function frontOf(group: readonly Point[]): string {
  const margin = ({ quality }: Point) => quality.kind === "questions" ? quality.marginMinusFull[0] : -Infinity;
  const front = paretoFront(group, ({ keys }) => keys, (point) => -margin(point));
  return ` On the front of margins and keys: ${front.map(({ method }) => `\`${method}\``).join(", ")}.`;
}

/** Answers by task; differences are paired. */
export function taskTables(points: readonly Point[]): Table[] {
  const asked = points.filter((point) => point.quality.kind === "questions");
  const byTask = Map.groupBy(asked, ({ task, length, mode }) => JSON.stringify([task, length, mode]));
  return [...byTask.values()].map((group) => {
    const [{ task, length, mode, quality }] = group as [Point];
    const isInformative = quality.kind === "questions" && quality.informative;
    const chance = quality.kind === "questions" ? quality.chance : 0;
    const hasScore = group.some((point) => point.quality.kind === "questions" && point.quality.score !== undefined);
    return {
      title: `${task}, ${formatLength(length)} tokens, ${mode}${isInformative ? "" : ": not informative"}`,
      note: `Right by rank, chance ${
        percent(chance)
      }; margins in nats; differences to full attention paired, 95 % intervals.${isInformative ? frontOf(group) : ""}`,
      head: [
        "method",
        "keys",
        "right",
        "of what no window sees",
        "right − full",
        "margin − full",
        ...(hasScore ? ["score", "score − full", "empty"] : []),
      ],
      rows: group.toSorted((a, b) => b.share - a.share).map((point) => {
        if (point.quality.kind !== "questions") return [];
        const { right, rightFar, rightMinusFull, marginMinusFull, score, scoreMinusFull, empty } = point.quality;
        return [
          `\`${point.method}\``,
          point.keys.toFixed(0),
          percent(right[0]),
          rightFar === null ? "–" : percent(rightFar),
          signed(rightMinusFull.map((x) => 100 * x) as unknown as Interval),
          signed(marginMinusFull),
          ...(!hasScore ? [] : [
            score === undefined ? "–" : score[0].toFixed(1),
            scoreMinusFull === undefined ? "–" : signed(scoreMinusFull),
            `${empty ?? "–"}`,
          ]),
        ];
      }),
    };
  });
}

/** What the README shows: one line a method at one length. */
export function summaryTable(points: readonly Point[]): Table | undefined {
  const text = points.filter((point) => point.quality.kind === "text");
  if (text.length === 0) return undefined;
  const length = Math.max(...text.map((point) => point.length));
  const here = text.filter((point) => point.length === length).toSorted((a, b) => a.keys - b.keys);
  const lost = (method: string) => {
    const own = points.filter((point) => point.method === method && point.quality.kind === "questions");
    const values = own.flatMap(({ quality }) =>
      quality.kind === "questions" && quality.informative ? [100 * quality.rightMinusFull[0]] : []
    );
    return values.length === 0 ? "–" : `${formatSigned(mean(values))} (${values.length} tasks)`;
  };
  return {
    title: `At ${formatLength(length)}`,
    note: "",
    head: ["method", "keys read", "KL to full", "tasks: right − full, points", "ms a token", "× exact", "index MB"],
    rows: here.map((point) => [
      `\`${point.method}\``,
      `${point.keys.toFixed(0)}, ${percent(point.share)}`,
      point.quality.kind === "text" && point.method !== "full" ? formatNumber(point.quality.kl[0]) : "0",
      lost(point.method),
      point.ms.toFixed(1),
      point.ratio[0].toFixed(2),
      point.indexMB.toFixed(1),
    ]),
  };
}

/** How far speeds of one method and length lie apart between cells: what a figure here can be trusted to. */
export function spreadTable(points: readonly Point[]): Table {
  const groups = Map.groupBy(points.filter((p) => p.method !== "full"), (p) => JSON.stringify([p.length, p.method]));
  const rows = [...groups.values()].filter((group) => group.length > 1).map((group) => {
    const ratios = group.map((point) => point.ratio[0]);
    const [middle, low, high] = [median(ratios), Math.min(...ratios), Math.max(...ratios)];
    const [{ length, method }] = group as [Point];
    return [
      formatLength(length),
      `\`${method}\``,
      `${group.length}`,
      middle.toFixed(2),
      percent((high - low) / middle),
    ];
  });
  return {
    title: "Speed of the same method in several cells",
    note: "Each cell has medians of pairs of its own, over other keys of equal length.",
    head: ["tokens", "method", "cells", "× exact", "widest apart"],
    rows,
  };
}

/** As Markdown. */
export function tableToMarkdown({ title, note, head, rows }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [`**${title}.** ${note}`.trim(), "", line(head), line(head.map(() => "---")), ...rows.map(line), ""].join(
    "\n",
  );
}

function interval([mean, low, high]: Interval): string {
  return `${formatNumber(mean)} (${formatNumber(Math.max(0, low))} to ${formatNumber(high)})`;
}

function signed([mean, low, high]: Interval): string {
  return `${formatSigned(mean)} (${formatSigned(low)} to ${formatSigned(high)})`;
}

function formatSigned(x: number): string {
  return x === 0 ? "0" : x > 0 ? `+${formatNumber(x)}` : `−${formatNumber(-x)}`;
}

function percent(x: number): string {
  return `${formatNumber(100 * x)} %`;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
