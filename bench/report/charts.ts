/**
 * The pictures that compare methods, as Vega-Lite: quality against keys and against time, time against length.
 *
 * @module
 */
import {
  formatLength,
  frontAt,
  keysFinding,
  paretoFinding,
  tasksFinding,
  textPoints,
  timeFinding,
} from "./findings.ts";
import { median } from "../../core/median.ts";
import { byMethodAndLength, crossover, klOf, type Point } from "./points.ts";
import { familyScales, inkOf, type Theme } from "./theme.ts";

/** One picture. */
export interface Chart {
  readonly name: string;
  /** What it shows, computed. */
  readonly title: string;
  /** How to read it. */
  readonly subtitle: string;
  /** Without title and configuration. */
  readonly spec: object;
}

/** Makes a picture of points; undefined where they hold nothing to draw. */
export type ChartMaker = (points: readonly Point[], theme: Theme) => Chart | undefined;

/** Ticks of powers of two and of ten. */
const LENGTH_AXIS = {
  format: "d",
  labelExpr: "datum.value >= 1024 ? format(datum.value / 1024, '.2~r') + 'K' : datum.value",
};

/** Values of lengths that were measured: the only honest ticks. */
export function lengthsOf(points: readonly Point[]): number[] {
  return [...new Set(points.map((point) => point.length))].sort((a, b) => a - b);
}

/** Colour and shape channels: the same for a family in all pictures of a group, `all`; the legend has those that are drawn. */
export function familyChannels(
  all: readonly Point[],
  drawn: readonly { readonly family: string }[],
  theme: Theme,
): { color: object; shape: object } {
  const { color, shape } = familyScales([...all.map((point) => point.family), "full"], theme);
  const values = color.domain.filter((family) => drawn.some((point) => point.family === family));
  const legend = { title: null, orient: "bottom", columns: 6, labelLimit: 220, values };
  return {
    color: { field: "family", type: "nominal", scale: color, legend },
    shape: { field: "family", type: "nominal", scale: shape, legend },
  };
}

/** 1, 2 and 5 times powers of ten around values. */
function logTicks(values: readonly number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
  }
  return ticks.filter((tick) => tick >= low / 2 && tick <= high * 2);
}

function textRows(points: readonly Point[]) {
  return points.map((point) => {
    const [kl, low, high] = klOf(point) as readonly [number, number, number];
    return {
      ...point,
      quality: null,
      heads: null,
      kl,
      low: Math.max(low, kl / 4),
      high,
      at: formatLength(point.length),
    };
  });
}

/** Facets by length, in ascending order. */
function byLength(points: readonly Point[], layer: readonly object[], data: object): object {
  const lengths = lengthsOf(points);
  const columns = Math.min(3, lengths.length);
  return {
    data,
    facet: { field: "at", type: "nominal", title: null, sort: lengths.map(formatLength) },
    columns,
    spec: { width: Math.floor(780 / columns), height: 280, layer },
    resolve: { scale: { x: "shared", y: "shared" } },
  };
}

function klChannel(rows: readonly { readonly kl: number }[]): object {
  const values = logTicks(rows.map((row) => row.kl)).filter((tick) => /^1e|^0?\.?0*1$|^1/.test(String(tick)));
  return {
    field: "kl",
    type: "quantitative",
    scale: { type: "log" },
    title: "KL divergence from full attention (nats)",
    axis: { format: "~g", values },
  };
}

/** Divergence against keys read. */
export const keysChart: ChartMaker = (all, theme) => {
  const points = textPoints(all);
  if (points.length === 0) return undefined;
  const { color, shape } = familyChannels(all, points, theme);
  const klAxis = klChannel(textRows(points));
  const x = {
    field: "keys",
    type: "quantitative",
    scale: { type: "log", nice: false, padding: 12 },
    title: "keys attended per query (log)",
    axis: { format: "~s", values: logTicks(points.map((point) => point.keys)) },
  };
  return {
    name: "quality_keys",
    title: keysFinding(points),
    subtitle: "Down and left is better. Bars: 95 % intervals. Lines join settings of one method.",
    spec: byLength(points, [
      { mark: { type: "line", strokeWidth: 1, opacity: 0.6 }, encoding: { x, y: klAxis, color } },
      {
        mark: { type: "rule", strokeWidth: 1.2 },
        encoding: { x, y: { field: "low", type: "quantitative" }, y2: { field: "high" }, color },
      },
      { mark: { type: "point", filled: true, size: 70, opacity: 1 }, encoding: { x, y: klAxis, color, shape } },
    ], { values: textRows(points) }),
  };
};

/** Divergence against time, the front drawn. */
export const paretoChart: ChartMaker = (all, theme) => {
  const points = textPoints(all);
  if (points.length === 0) return undefined;
  const { color, shape } = familyChannels(all, points, theme);
  const x = {
    field: "ms",
    type: "quantitative",
    title: "ms a token",
    scale: { zero: false, nice: false, padding: 16 },
    axis: { tickCount: 5 },
  };
  const rows = textRows(points);
  const klAxis = klChannel(rows);
  const front = lengthsOf(points).flatMap((length) => frontAt(points, length));
  const isOnFront = new Set(front.map(({ method, length }) => `${method} ${length}`));
  // Layers filter one table: one with data of its own would stand in every facet.
  const values = rows.map((row, i) => ({
    ...row,
    front: isOnFront.has(`${row.method} ${row.length}`),
    first: rows.findIndex((other) => other.length === row.length) === i,
  }));
  const onFront = [{ filter: "datum.front" }];
  const { faint } = inkOf(theme);
  return {
    name: "pareto",
    title: paretoFinding(points),
    subtitle: "Down and left is better; methods on the front are named. Dashed: exact attention.",
    spec: byLength(points, [
      {
        transform: [{ filter: "datum.first" }],
        mark: { type: "rule", strokeDash: [4, 3] },
        encoding: { x: { field: "exactMs", type: "quantitative" } },
      },
      {
        transform: onFront,
        mark: { type: "line", interpolate: "step-after", color: faint, strokeWidth: 1 },
        encoding: { x, y: klAxis },
      },
      {
        mark: { type: "point", filled: true, size: 70 },
        encoding: {
          x,
          y: klAxis,
          color,
          shape,
          opacity: { field: "front", type: "nominal", scale: { domain: [true, false], range: [1, 0.4] }, legend: null },
        },
      },
      {
        transform: onFront,
        mark: { type: "text", align: "left", dx: 7, dy: -7, fontSize: 10 },
        encoding: { x, y: klAxis, text: { field: "method" }, color },
      },
    ], { values }),
  };
};

/** Time a token against length, with the length from which on each method is faster than exact attention. */
export const timeChart: ChartMaker = (all, theme) => {
  const points = plainest(byMethodAndLength(all).filter((point) => point.method !== "full"));
  const lengths = lengthsOf(points);
  if (points.length === 0 || lengths.length < 2) return undefined;
  const { color, shape } = familyChannels(all, [...points, { family: "full" }], theme);
  const exact = lengths.map((length) => {
    const here = points.filter((point) => point.length === length);
    const floors = here.map((point) => point.exactFloorMs).filter((floor) => floor !== null);
    return {
      family: "full",
      method: "full",
      length,
      ms: median(here.map((point) => point.exactMs)),
      floor: floors.length === 0 ? null : median(floors),
    };
  });
  const crossings = [...Map.groupBy(points, (point) => point.method)].flatMap(([method, own]) => {
    const at = crossover(own.map(({ length, ratio }) => ({ length, ratio: ratio[0] })));
    if (at === undefined || at <= (lengths[0] as number)) return [];
    const i = lengths.findIndex((length) => length >= at);
    const [a, b] = [exact[i - 1], exact[i]] as [typeof exact[0], typeof exact[0]];
    const t = Math.log(at / a.length) / Math.log(b.length / a.length);
    return [{ method, family: (own[0] as Point).family, length: at, ms: a.ms + t * (b.ms - a.ms) }];
  });
  const { text, faint } = inkOf(theme);
  const x = {
    field: "length",
    type: "quantitative",
    scale: { type: "log", base: 2, nice: false },
    axis: { ...LENGTH_AXIS, values: lengths },
    title: "tokens in the cache",
  };
  const y = { field: "ms", type: "quantitative", title: "ms a token", scale: { zero: true } };
  return {
    name: "time_length",
    title: timeFinding(all.filter((point) => point.method !== "full")),
    subtitle:
      "Medians of interleaved pairs, scaled to exact attention's median at each length. Dotted: exact attention's physical floor " +
      "(weights and rows over measured bandwidth). Rings: where a method becomes faster than exact.",
    spec: {
      width: 700,
      height: 360,
      layer: [
        {
          data: { values: points },
          mark: { type: "line", strokeWidth: 1.5 },
          encoding: { x, y, color, detail: { field: "method" } },
        },
        { data: { values: points }, mark: { type: "point", filled: true, size: 50 }, encoding: { x, y, color, shape } },
        { data: { values: exact }, mark: { type: "line", strokeWidth: 2.5 }, encoding: { x, y, color } },
        {
          data: { values: exact.filter(({ floor }) => floor !== null) },
          mark: { type: "line", strokeDash: [2, 3], color: faint },
          encoding: { x, y: { field: "floor", type: "quantitative" } },
        },
        {
          data: { values: crossings },
          mark: { type: "point", size: 180, stroke: text, strokeWidth: 1.2, shape: "circle", filled: false },
          encoding: { x, y },
        },
      ],
    },
  };
};

/** One method of each family, the one with the shortest name: settings of one differ little in time. */
function plainest(points: readonly Point[]): Point[] {
  const shortest = new Map<string, string>();
  for (const { family, method } of points) {
    if (method.length < (shortest.get(family)?.length ?? Infinity)) shortest.set(family, method);
  }
  return points.filter(({ family, method }) => shortest.get(family) === method);
}

/** Answers beside full attention's, task by task. */
export const tasksChart: ChartMaker = (all, theme) => {
  const points = all.filter((point) =>
    point.quality.kind === "questions" && point.method !== "full" && point.task !== "needle-grid"
  );
  if (points.length === 0) return undefined;
  const { color, shape } = familyChannels(all, points, theme);
  const rows = points.flatMap((point) => {
    if (point.quality.kind !== "questions") return [];
    const { marginMinusFull: [mean, low, high], informative } = point.quality;
    return [{
      method: point.method,
      family: point.family,
      task: `${point.task} ${formatLength(point.length)}${point.mode === "cold" ? " cold" : ""}`,
      label: `${point.task} ${formatLength(point.length)}${informative ? "" : " *"}`,
      mean,
      low,
      high,
      informative,
    }];
  });
  const labels = [...new Set(rows.map((row) => row.label))];
  const rowsOf = new Map(labels.map((label, i) => [label, i]));
  const sorted = rows.toSorted((a, b) => (rowsOf.get(a.label) as number) - (rowsOf.get(b.label) as number));
  const methods = [...new Set(rows.map((row) => row.method))];
  const x = {
    field: "mean",
    type: "quantitative",
    title: "margin over the best wrong answer, minus full attention's (nats)",
  };
  const y = { field: "label", type: "nominal", sort: labels, title: null, axis: { grid: true, labelLimit: 260 } };
  const offset = { field: "method", sort: methods, scale: { paddingOuter: 0.2 } };
  const dim = {
    field: "informative",
    type: "nominal",
    scale: { domain: [true, false], range: [1, 0.35] },
    legend: null,
  };
  return {
    name: "tasks",
    title: tasksFinding(points),
    subtitle:
      "0 is full attention; bars: 95 % intervals of paired differences. * not informative: full attention does not beat a " +
      "window by 3 standard errors.",
    spec: {
      width: 560,
      height: { step: Math.max(5, Math.ceil(44 / methods.length)) },
      data: { values: sorted },
      layer: [
        { mark: { type: "rule", strokeDash: [2, 2] }, encoding: { x: { datum: 0 } } },
        {
          mark: { type: "rule" },
          encoding: {
            x: { field: "low", type: "quantitative" },
            x2: { field: "high" },
            y,
            yOffset: offset,
            color,
            opacity: dim,
          },
        },
        {
          mark: { type: "point", filled: true, size: 42 },
          encoding: { x, y, yOffset: offset, color, shape, opacity: dim },
        },
      ],
    },
  };
};
