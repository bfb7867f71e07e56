/**
 * `kvasir bench report`: results of the matrix as pictures, tables and one static page.
 *
 * @module
 */
import { Command } from "@commander-js/extra-typings";
import { UsageError } from "../../cli/exit.ts";
import type { Cell } from "../matrix/cell.ts";
import { parseCells } from "../matrix/store.ts";
import { type Chart, type ChartMaker, keysChart, paretoChart, tasksChart, timeChart } from "./charts.ts";
import { buildChart, gridChart, headsChart, memoryChart } from "./maps.ts";
import { pictureName, renderPage, type Section } from "./page.ts";
import { groupPoints } from "./points.ts";
import { renderSvg } from "./render.ts";
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
    .requiredOption("--out <folder>", "where the page goes")
    .action(async (files, { out }) => {
      const cells = files.flatMap((file) => parseCells(Deno.readTextFileSync(file), file));
      if (cells.length === 0) throw new UsageError(`Cannot draw: ${files.join(", ")} hold no results`);
      for (const path of await writeReport(cells, out)) console.log(path);
      done(0);
    });
  return command as unknown as Command;
}

/** Writes everything into `folder`; gives the paths. */
export async function writeReport(cells: readonly Cell[], folder: string): Promise<string[]> {
  Deno.mkdirSync(folder, { recursive: true });
  const written: string[] = [];
  const write = (name: string, text: string) => {
    Deno.writeTextFileSync(`${folder}/${name}`, text);
    written.push(`${folder}/${name}`);
  };
  const sections: Section[] = [];
  for (const group of groupPoints(cells)) {
    const charts: Chart[] = [];
    for (const maker of MAKERS) {
      const light = maker(group.points, "light");
      const dark = maker(group.points, "dark");
      if (light === undefined || dark === undefined) continue;
      charts.push(light);
      write(`${pictureName(group, light)}-light.svg`, await renderSvg(light, "light"));
      write(`${pictureName(group, dark)}-dark.svg`, await renderSvg(dark, "dark"));
    }
    const tables = [
      summaryTable(group.points),
      fidelityTable(group.points),
      ...taskTables(group.points),
      spreadTable(group.points),
    ].filter((table): table is Table => table !== undefined && table.rows.length > 0);
    sections.push({ group, charts, tables });
  }
  write(
    "tables.md",
    sections.map(({ group, tables }) => `## ${group.title}\n\n${tables.map(tableToMarkdown).join("\n")}`).join("\n"),
  );
  write("index.html", renderPage(sections));
  return written;
}
