/**
 * The pictures of one method at a time, and of what indexes cost: needle grid, heads, memory, building.
 *
 * @module
 */
import type { ChartMaker } from "./charts.ts";
import { lengthsOf } from "./charts.ts";
import { buildFinding, formatLength, gridFinding, headsFinding, memoryFinding } from "./findings.ts";
import { byMethodAndLength, type Point } from "./points.ts";
import { inkOf, type Theme } from "./theme.ts";

const sequential = (theme: Theme) => theme === "light" ? ["#f4f8ff", "#1456b8"] : ["#16202f", "#7cc0ff"];

/** Needles found, by length and depth, a map a method. */
export const gridChart: ChartMaker = (all, theme) => {
  const points = all.filter((point) => point.task === "needle-grid");
  if (points.length === 0) return undefined;
  const rows = points.flatMap((point) => {
    if (point.quality.kind !== "questions") return [];
    return point.quality.each.map(([, , margin], i) => ({
      method: point.method,
      length: formatLength(point.length),
      // Depths are visited in order, eleven of them.
      depth: `${10 * (i % 11)} %`,
      margin,
    }));
  });
  const lengths = lengthsOf(points).map(formatLength);
  const most = Math.max(1, ...rows.map(({ margin }) => Math.abs(margin)));
  const methods = [...new Set(rows.map(({ method }) => method))];
  return {
    name: "needle_grid",
    title: gridFinding(points),
    subtitle: "Margin of the right number over the best of 31 wrong ones (nats): blue is found, red is lost.",
    spec: {
      data: { values: rows },
      facet: { field: "method", type: "nominal", title: null, sort: methods },
      columns: 3,
      spec: {
        width: Math.max(120, 34 * lengths.length),
        height: 220,
        mark: { type: "rect" },
        encoding: {
          x: { field: "length", type: "ordinal", sort: lengths, title: "tokens", axis: { labelAngle: 0 } },
          y: {
            field: "depth",
            type: "ordinal",
            sort: Array.from({ length: 11 }, (_, i) => `${10 * i} %`),
            title: "depth",
          },
          color: {
            aggregate: "mean",
            field: "margin",
            type: "quantitative",
            title: "margin",
            scale: {
              domain: [-most, 0, most],
              range: theme === "light" ? ["#b3261e", "#f6f6f6", "#0b57d0"] : ["#f2746b", "#22272e", "#58a6ff"],
            },
          },
        },
      },
    },
  };
};

/** Maps of output errors at the longest length: a column a layer, a row a head. */
export const headsChart: ChartMaker = (all, theme) => {
  const measured = all.filter((point) => point.heads !== null && point.share < 1);
  if (measured.length === 0) return undefined;
  const length = Math.max(...measured.map((point) => point.length));
  const here = measured.filter((point) => point.length === length);
  const task = here.some((point) => point.task === "text") ? "text" : (here[0] as Point).task;
  const points = here.filter((point) => point.task === task).slice(0, 12);
  const rows = points.flatMap(({ method, heads }) =>
    (heads?.heads ?? []).flatMap((row, layer) =>
      row.map((error, head) => ({ method, layer, head, error: Math.max(1e-3, Math.min(1, error)) }))
    )
  );
  const layers = new Set(rows.map(({ layer }) => layer)).size;
  const heads = new Set(rows.map(({ head }) => head)).size;
  return {
    name: "heads",
    title: headsFinding(points),
    subtitle: `Relative error of each head's output against exact attention over the same inputs, ${task} at ${
      formatLength(length)
    }.`,
    spec: {
      data: { values: rows },
      facet: { field: "method", type: "nominal", title: null, sort: points.map(({ method }) => method) },
      columns: 3,
      spec: {
        width: Math.min(260, 9 * layers),
        height: Math.max(50, Math.min(160, 9 * heads)),
        mark: "rect",
        encoding: {
          x: {
            field: "layer",
            type: "ordinal",
            axis: {
              labelAngle: 0,
              labelOverlap: true,
              tickCount: 6,
              values: Array.from({ length: Math.ceil(layers / 5) }, (_, i) => 5 * i),
            },
            title: "layer",
          },
          y: { field: "head", type: "ordinal", title: "head", axis: { labelOverlap: true } },
          color: {
            field: "error",
            type: "quantitative",
            title: "relative error",
            scale: { type: "log", domain: [1e-3, 1], range: sequential(theme), interpolate: "lab" },
            legend: { format: "~p", values: [0.001, 0.01, 0.1, 1] },
          },
        },
      },
    },
  };
};

/** Blue for the default, so that it is found; quiet for all others. */
function highlight(theme: Theme): object {
  const { main, full } = inkOf(theme);
  return { condition: { test: "datum.family === 'kvasir'", value: main }, value: full };
}

/** Methods with an index at the longest length. */
function indexed(all: readonly Point[]): Point[] {
  const points = byMethodAndLength(all).filter((point) => point.indexMB > 0);
  const length = Math.max(...points.map((point) => point.length));
  return points.filter((point) => point.length === length);
}

/** Bytes of indexes beside the cache's. */
export const memoryChart: ChartMaker = (all, theme) => {
  const points = indexed(all);
  if (points.length === 0) return undefined;
  const cache = (points[0] as Point).cacheMB;
  const sort = points.toSorted((a, b) => b.indexMB - a.indexMB).map((point) => point.method);
  return {
    name: "memory",
    title: memoryFinding(points),
    subtitle: "Memory of the index's own. Dashed: the cache of keys and values itself.",
    spec: {
      width: 560,
      height: { step: 24 },
      data: { values: points },
      layer: [
        {
          mark: { type: "bar", cornerRadiusEnd: 2 },
          encoding: {
            x: { field: "indexMB", type: "quantitative", title: "MB" },
            y: { field: "method", type: "nominal", sort, title: null, axis: { labelLimit: 320 } },
            color: highlight(theme),
          },
        },
        {
          mark: { type: "text", align: "left", dx: 5 },
          encoding: {
            x: { field: "indexMB", type: "quantitative" },
            y: { field: "method", type: "nominal", sort },
            text: { field: "indexMB", format: ".1f" },
          },
        },
        { mark: { type: "rule", strokeDash: [4, 3] }, encoding: { x: { datum: cache } } },
      ],
    },
  };
};

/** Time that indexes take to build, and per token that joins. */
export const buildChart: ChartMaker = (all, theme) => {
  const points = indexed(all);
  if (points.length === 0 || points.every((point) => point.threadSeconds === 0)) return undefined;
  const y = {
    field: "method",
    type: "nominal",
    sort: points.toSorted((a, b) => b.threadSeconds - a.threadSeconds).map((p) => p.method),
    title: null,
    axis: { labelLimit: 320 },
  };
  const panel = (field: string, title: string, isFirst: boolean) => ({
    width: 260,
    height: { step: 24 },
    title: { text: title, fontSize: 12, fontWeight: "normal", offset: 6 },
    encoding: { y: isFirst ? y : { ...y, axis: { labels: false, ticks: false, title: null } } },
    layer: [
      {
        mark: { type: "bar", cornerRadiusEnd: 2 },
        encoding: { x: { field, type: "quantitative", title: null }, color: highlight(theme) },
      },
      {
        mark: { type: "text", align: "left", dx: 5 },
        encoding: { x: { field, type: "quantitative" }, text: { field, format: ".2~r" } },
      },
    ],
  });
  return {
    name: "build",
    title: buildFinding(points),
    subtitle: `At ${formatLength((points[0] as Point).length)}, all layers of the model.`,
    spec: {
      data: { values: points },
      hconcat: [
        panel("threadSeconds", "structure built for a prompt: seconds of all threads", true),
        panel("insertMs", "keys that join while decoding: ms a token", false),
      ],
    },
  };
};
