/**
 * Colours and type of pictures, light and dark, and what all of them share.
 *
 * @module
 */

/** Which page a picture stands on. */
export type Theme = "light" | "dark";

const INK = {
  light: { text: "#1f2328", faint: "#59636e", grid: "#e4e7eb", ground: "#ffffff", full: "#6e7781", main: "#0b57d0" },
  dark: { text: "#e6edf3", faint: "#9198a1", grid: "#2a313c", ground: "#0d1117", full: "#8b949e", main: "#58a6ff" },
} as const;

/** Told apart by people who see few colours, on white and on black; exact attention is grey, the default blue. */
const HUES = {
  light: [
    "#c2410c",
    "#0f766e",
    "#a21caf",
    "#a16207",
    "#be123c",
    "#4d7c0f",
    "#6d28d9",
    "#0891b2",
    "#92400e",
    "#475569",
    "#15803d",
    "#db2777",
    "#7c3aed",
    "#b45309",
    "#334155",
    "#9f1239",
    "#155e75",
    "#65a30d",
  ],
  dark: [
    "#fb923c",
    "#2dd4bf",
    "#e879f9",
    "#facc15",
    "#fb7185",
    "#a3e635",
    "#a78bfa",
    "#22d3ee",
    "#d6a46a",
    "#94a3b8",
    "#4ade80",
    "#f9a8d4",
    "#c4b5fd",
    "#fbbf24",
    "#cbd5e1",
    "#fda4af",
    "#67e8f9",
    "#bef264",
  ],
} as const;

const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];

/** Of one theme. */
export function inkOf(theme: Theme): typeof INK["light"] | typeof INK["dark"] {
  return INK[theme];
}

/** Families and what stands for them. */
export interface FamilyScale {
  readonly domain: readonly string[];
  readonly range: readonly (string | undefined)[];
}

/** Colours and shapes of method families, the same in every picture of a report. */
export function familyScales(families: readonly string[], theme: Theme): { color: FamilyScale; shape: FamilyScale } {
  const domain = [...new Set(families)].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  const others = domain.filter((family) => rank(family) === 2);
  const of = (family: string) =>
    rank(family) === 0
      ? INK[theme].full
      : rank(family) === 1
      ? INK[theme].main
      : HUES[theme][others.indexOf(family) % HUES[theme].length];
  return {
    color: { domain, range: domain.map(of) },
    shape: { domain, range: domain.map((_, i) => SHAPES[i % SHAPES.length]) },
  };
}

function rank(family: string): number {
  return family === "full" ? 0 : family === "kvasir" ? 1 : 2;
}

/** Vega-Lite's `config`. */
export function configOf(theme: Theme): object {
  const { text, faint, grid, ground } = INK[theme];
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  return {
    background: ground,
    padding: 16,
    font,
    title: {
      color: text,
      fontSize: 15,
      fontWeight: 600,
      anchor: "start",
      frame: "group",
      offset: 8,
      subtitleColor: faint,
      subtitleFontSize: 12,
      subtitlePadding: 5,
    },
    view: { stroke: grid },
    axis: {
      labelColor: faint,
      titleColor: faint,
      gridColor: grid,
      domainColor: grid,
      tickColor: grid,
      labelFontSize: 11,
      titleFontSize: 12,
      titleFontWeight: "normal",
      titlePadding: 8,
    },
    legend: { labelColor: text, titleColor: faint, labelFontSize: 11, titleFontSize: 11, symbolSize: 70, offset: 16 },
    header: { labelColor: text, titleColor: faint, labelFontSize: 12, labelFontWeight: 600, titleFontWeight: "normal" },
    text: { color: text, fontSize: 10 },
    rule: { color: faint },
  };
}
