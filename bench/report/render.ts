/**
 * Vega-Lite to SVG, without a browser.
 *
 * @module
 */
import * as vega from "vega";
import * as vegaLite from "vega-lite";
import type { Chart } from "./charts.ts";
import { configOf, type Theme } from "./theme.ts";

/** Lines are broken at about so many characters: without a canvas, widths of texts are only estimated, generously. */
const TITLE_WIDTH = 78;
const SUBTITLE_WIDTH = 98;

/** The picture as SVG. */
export async function renderSvg({ title, subtitle, spec }: Chart, theme: Theme): Promise<string> {
  const whole = {
    ...spec,
    title: { text: wrap(title, TITLE_WIDTH), subtitle: wrap(subtitle, SUBTITLE_WIDTH) },
    config: configOf(theme),
  };
  const compiled = vegaLite.compile(whole as unknown as vegaLite.TopLevelSpec, { logger: silent() }).spec;
  const view = new vega.View(vega.parse(compiled), { renderer: "none", logger: silent() });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** Warnings would be about scales that share what they should. */
function silent(): vega.LoggerInterface {
  return vega.logger(vega.Error);
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1) as string;
    if (last !== "" && last.length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return lines;
}
