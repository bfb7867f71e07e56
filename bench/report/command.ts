/**
 * `kvasir bench report`: results of the matrix as pictures, tables and one static page.
 *
 * @module
 */
import { Command } from "@commander-js/extra-typings";
import { UsageError } from "../../cli/exit.ts";
import type { Cell } from "../matrix/cell.ts";
import { parseCells } from "../matrix/store.ts";
import { type HeadLine, parseLines } from "../index_table.ts";
import { type Chart, type ChartMaker, keysChart, paretoChart, tasksChart, timeChart } from "./charts.ts";
import { indexChart, indexLevelTable } from "./index_level.ts";
import { buildChart, gridChart, headsChart, memoryChart } from "./maps.ts";
import { pictureName, renderPage, type Section } from "./page.ts";
import { groupPoints } from "./points.ts";
import { renderSvg } from "./render.ts";
import type { Theme } from "./theme.ts";
import { fidelityTable, spreadTable, summaryTable, type Table, tableToMarkdown, taskTables } from "./tables.ts";

const MAKERS: readonly ChartMaker[] = [
  paretoChart,
  keysChart,
  timeChart,
  tasksChart,
  gridChart,
  headsChart,
  memoryChart,
  buildChart,
];

/** The command, for `cli/bench.ts`. */
export function reportCommand(done: (code: number) => void): Command {
  const command = new Command("report")
    .description("Draws results of `bench matrix`: SVG pictures, light and dark, tables, and one page, index.html.")
    .argument("<results...>", "files of JSON lines")
    .option("--heads <files...>", "what bench/index.ts wrote: index types and rival libraries on recorded heads")
    .requiredOption("--out <folder>", "where the page goes")
    .action(async (files, { out, heads }) => {
      const cells = files.flatMap((file) => parseCells(readText(file), file));
      if (cells.length === 0) throw new UsageError(`Cannot draw: ${files.join(", ")} hold no results`);
      const lines = (heads ?? []).flatMap((file) => parseLines(readText(file)));
      for (const path of await writeReport(cells, out, lines)) console.log(path);
      done(0);
    });
  return command as unknown as Command;
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new UsageError(`Cannot read results "${path}": ${why}`);
  }
}

/** Writes everything into `folder`; gives the paths. */
export async function writeReport(
  cells: readonly Cell[],
  folder: string,
  heads: readonly HeadLine[] = [],
): Promise<string[]> {
  Deno.mkdirSync(folder, { recursive: true });
  const written: string[] = [];
  const write = (name: string, text: string) => {
    Deno.writeTextFileSync(`${folder}/${name}`, text);
    written.push(`${folder}/${name}`);
  };
  const draw = async (slug: string, makers: readonly ((theme: Theme) => Chart | undefined)[]): Promise<Chart[]> => {
    const charts: Chart[] = [];
    for (const maker of makers) {
      for (const theme of ["dark", "light"] as const) {
        const chart = maker(theme);
        if (chart === undefined) continue;
        write(`${pictureName(slug, chart)}-${theme}.svg`, await renderSvg(chart, theme));
        if (theme === "light") charts.push(chart);
      }
    }
    return charts;
  };
  const sections: Section[] = [];
  for (const { title, slug, machine, isAlways, commits, points } of groupPoints(cells)) {
    const tables = [summaryTable(points), fidelityTable(points), ...taskTables(points), spreadTable(points)];
    sections.push({
      title,
      slug,
      note: `${machine}; commit ${commits.join(", ")}; ${points.length} cells${
        isAlways ? "; methods retrieve at any length (min_length=0)" : ""
      }.`,
      charts: await draw(slug, MAKERS.map((maker) => (theme: Theme) => maker(points, theme))),
      tables: tables.filter((table): table is Table => table !== undefined && table.rows.length > 0),
    });
  }
  if (heads.length > 0) {
    sections.push({
      title: "Index level",
      slug: "heads",
      note: "Recorded and generated heads, no model around them.",
      charts: await draw("heads", [(theme) => indexChart(heads, theme)]),
      tables: [indexLevelTable(heads)],
    });
  }
  write(
    "tables.md",
    sections.map(({ title, tables }) => `## ${title}\n\n${tables.map(tableToMarkdown).join("\n")}`).join("\n"),
  );
  write("index.html", renderPage(sections));
  return written;
}
