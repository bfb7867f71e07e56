/**
 * The report as one static page: pictures beside it, light and dark, and tables.
 *
 * @module
 */
import type { Chart } from "./charts.ts";
import type { Table } from "./tables.ts";

/** One part of the page. */
export interface Section {
  readonly title: string;
  /** Where, of what commits, how much. */
  readonly note: string;
  /** What its files begin with. */
  readonly slug: string;
  readonly charts: readonly Chart[];
  readonly tables: readonly Table[];
}

const STYLE = `
:root { color-scheme: light dark; --ground: #fff; --text: #1f2328; --faint: #59636e; --line: #d8dde3; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #2a313c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1rem 4rem; background: var(--ground); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { margin: 3rem 0 .25rem; font-size: 1.25rem; } h3 { font-size: 1rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--faint); max-width: 60rem; }
h2, h3, p { overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; overflow-x: auto; } img { display: block; max-width: 100%; height: auto; }
@media (max-width: 40rem) { img { max-width: none; width: 42rem; } }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { color: var(--faint); font-weight: 500; } td:has(code), th:first-child { text-align: left; } code { font-size: 12px; }
`;

/** The page; pictures are found as `NAME-light.svg` and `NAME-dark.svg` beside it. */
export function renderPage(sections: readonly Section[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kvasir: the benchmark matrix</title>
<style>${STYLE}</style>
</head>
<body>
<h1>The benchmark matrix</h1>
<p>Answers and costs of the same runs, methods over the same keys. Tasks are ruler-style and infinitebench-style: their scores are not
the originals'.</p>
${sections.map(renderSection).join("\n")}
</body>
</html>
`;
}

/** What files of a picture are called. */
export function pictureName(slug: string, chart: Chart): string {
  return `${slug}-${chart.name}`;
}

function renderSection({ title, note, slug, charts, tables }: Section): string {
  return `<h2>${escapeHtml(title)}</h2>
<p>${escapeHtml(note)}</p>
${charts.map((chart) => renderFigure(slug, chart)).join("\n")}
${tables.map(renderTable).join("\n")}`;
}

function renderFigure(slug: string, chart: Chart): string {
  const name = pictureName(slug, chart);
  return `<figure><picture>
<source srcset="${name}-dark.svg" media="(prefers-color-scheme: dark)">
<img src="${name}-light.svg" alt="${escapeHtml(`${chart.title}. ${chart.subtitle}`)}">
</picture></figure>`;
}

function renderTable({ title, note, head, rows }: Table): string {
  const cell = (text: string) => escapeHtml(text).replaceAll(/`([^`]*)`/g, "<code>$1</code>");
  return `<h3>${escapeHtml(title)}</h3>
<p>${escapeHtml(note)}</p>
<div class="scroll"><table>
<thead><tr>${head.map((text) => `<th>${cell(text)}</th>`).join("")}</tr></thead>
<tbody>
${rows.map((row) => `<tr>${row.map((text) => `<td>${cell(text)}</td>`).join("")}</tr>`).join("\n")}
</tbody></table></div>`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
