/**
 * The picture of an index bench: keys scored against recall, and rows kept against output error. SVG, no library.
 *
 * @module
 */
import { grouped, type HeadLine, mean, sourceName } from "./index_table.ts";

const WIDTH = 1040;
const HEIGHT = 470;
const PLOT = { top: 40, width: 380, height: 330 };
const COLORS = [
  "#1f77b4",
  "#d62728",
  "#2ca02c",
  "#9467bd",
  "#ff7f0e",
  "#17becf",
  "#8c564b",
  "#e377c2",
  "#7f7f7f",
  "#bcbd22",
];
const SHAPES = ["circle", "square", "triangle", "diamond"] as const;

interface Point {
  readonly x: number;
  readonly y: number;
  readonly series: string;
  readonly source: string;
}

/** An axis: where a value lies in [0, 1], and which values are marked. */
interface Axis {
  readonly label: string;
  readonly ticks: readonly (readonly [value: number, text: string])[];
  place(value: number): number;
}

/** Powers of ten times 1, 2, 5 within [low, high]. */
function logAxis(label: string, low: number, high: number, text: (x: number) => string): Axis {
  const ticks: [number, string][] = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of [1, 2, 5]) {
      const value = Number((m * 10 ** e).toPrecision(1));
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push([value, text(value)]);
    }
  }
  return { label, ticks, place: (x) => Math.log(Math.max(low, Math.min(high, x)) / low) / Math.log(high / low) };
}

function linearAxis(label: string, low: number, high: number, step: number, text: (x: number) => string): Axis {
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
  return {
    label,
    ticks: ticks.map((x) => [x, text(x)]),
    place: (x) => (Math.max(low, Math.min(high, x)) - low) / (high - low),
  };
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function marker(shape: (typeof SHAPES)[number], x: number, y: number, color: string): string {
  const style = `fill="${color}" fill-opacity="0.85" stroke="white" stroke-width="0.8"`;
  switch (shape) {
    case "circle":
      return `<circle cx="${x}" cy="${y}" r="5" ${style}/>`;
    case "square":
      return `<rect x="${x - 4.5}" y="${y - 4.5}" width="9" height="9" ${style}/>`;
    case "triangle":
      return `<path d="M${x} ${y - 6}l5.5 10h-11z" ${style}/>`;
    case "diamond":
      return `<path d="M${x} ${y - 6.5}l6 6.5l-6 6.5l-6 -6.5z" ${style}/>`;
  }
}

function panel(left: number, title: string, x: Axis, y: Axis, points: readonly Point[], style: Style): string {
  const { top, width, height } = PLOT;
  const parts = [
    `<text x="${left + width / 2}" y="${top - 14}" text-anchor="middle" font-weight="bold">${escape(title)}</text>`,
  ];
  for (const [value, text] of x.ticks) {
    const at = (left + width * x.place(value)).toFixed(1);
    parts.push(`<line x1="${at}" y1="${top}" x2="${at}" y2="${top + height}" stroke="#e4e4e4"/>`);
    parts.push(`<text x="${at}" y="${top + height + 16}" text-anchor="middle" font-size="11">${escape(text)}</text>`);
  }
  for (const [value, text] of y.ticks) {
    const at = (top + height * (1 - y.place(value))).toFixed(1);
    parts.push(`<line x1="${left}" y1="${at}" x2="${left + width}" y2="${at}" stroke="#e4e4e4"/>`);
    parts.push(`<text x="${left - 6}" y="${Number(at) + 4}" text-anchor="end" font-size="11">${escape(text)}</text>`);
  }
  parts.push(`<rect x="${left}" y="${top}" width="${width}" height="${height}" fill="none" stroke="#888"/>`);
  parts.push(`<text x="${left + width / 2}" y="${top + height + 36}" text-anchor="middle">${escape(x.label)}</text>`);
  const middle = top + height / 2;
  parts.push(
    `<text x="${left - 46}" y="${middle}" text-anchor="middle" transform="rotate(-90 ${left - 46} ${middle})">${
      escape(y.label)
    }</text>`,
  );
  for (const point of points) {
    const px = Number((left + width * x.place(point.x)).toFixed(1));
    const py = Number((top + height * (1 - y.place(point.y))).toFixed(1));
    parts.push(marker(style.shape(point.source), px, py, style.color(point.series)));
  }
  return parts.join("\n");
}

interface Style {
  color(series: string): string;
  shape(source: string): (typeof SHAPES)[number];
}

/** Two panels over all lines: top-100 goals on the left, error goals on the right; means over KV heads. */
export function indexPicture(lines: readonly HeadLine[]): string {
  const family = (spec: string) => /^(hnswlib|faiss)/.test(spec) ? spec.replace(/[:,](ef|nprobe)=.*$/, "") : spec;
  const left: Point[] = [];
  const right: Point[] = [];
  for (const group of grouped(lines)) {
    const [first] = group as [HeadLine, ...HeadLine[]];
    const at = { series: family(first.spec), source: sourceName(first) };
    const scored = group.filter((l) => l.scored !== undefined).map((l) => (l.scored as number) / l.rest);
    if (first.goal === "top100" && scored.length > 0) {
      left.push({
        ...at,
        x: mean(scored),
        y: mean(group.map((l) => l.recall)),
      });
    }
    if (first.goal.startsWith("error")) {
      right.push({ ...at, x: mean(group.map((l) => l.kept / l.tokens)), y: mean(group.flatMap((l) => l.errors)) });
    }
  }
  const series = [...new Set([...left, ...right].map((p) => p.series))];
  const sources = [...new Set([...left, ...right].map((p) => p.source))];
  const style: Style = {
    color: (name) => COLORS[series.indexOf(name) % COLORS.length] as string,
    shape: (name) => SHAPES[sources.indexOf(name) % SHAPES.length] as (typeof SHAPES)[number],
  };
  const percent = (x: number) => `${Number((100 * x).toPrecision(2))} %`;
  const parts = [
    panel(
      70,
      "top 100: recall against keys scored",
      logAxis("keys scored, mean over heads", 0.005, 1, percent),
      linearAxis("recall@100 by score, mean over heads", 0, 1, 0.1, (x) => x.toFixed(1)),
      left,
      style,
    ),
    panel(
      580,
      "error goal: output error against rows kept",
      logAxis("rows kept per KV head, of all tokens", 0.001, 0.1, percent),
      logAxis("relative L2 error of the output", 0.005, 0.5, (x) => `${x}`),
      right,
      style,
    ),
  ];
  const legend: string[] = [];
  let x = 40;
  let y = PLOT.top + PLOT.height + 66;
  const entry = (shape: (typeof SHAPES)[number], color: string, text: string) => {
    const width = 32 + 7.2 * text.length;
    if (x + width > WIDTH) [x, y] = [40, y + 20];
    legend.push(marker(shape, x, y - 4, color), `<text x="${x + 10}" y="${y}" font-size="11.5">${escape(text)}</text>`);
    x += width;
  };
  for (const name of series) entry("circle", style.color(name), name);
  for (const name of sources) entry(style.shape(name), "#555", name);
  const height = Math.max(HEIGHT, y + 16);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    ...parts,
    ...legend,
    "</svg>\n",
  ].join("\n");
}
