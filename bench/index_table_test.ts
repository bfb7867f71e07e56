import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  grouped,
  type HeadLine,
  headTable,
  indexTable,
  parseLines,
  quantile,
  ratioTable,
  rivalTable,
} from "./index_table.ts";
import { indexPicture } from "./index_plot.ts";

const LINE: HeadLine = {
  file: "tiny-q4_1.gguf",
  spec: "flat",
  goal: "top100",
  layer: 0,
  kvHead: 0,
  group: 2,
  dim: 64,
  tokens: 8192,
  rest: 8000,
  recall: 1,
  worstRecall: 1,
  mass: 0.5,
  error: 0.02,
  errors: [0.01, 0.03],
  scored: 8000,
  kept: 100,
  warmUs: 10,
  decisions: "",
};

describe("index tables", () => {
  it("read lines and skip what is none", () => {
    assertEquals(parseLines(`noise\n${JSON.stringify(LINE)}\n`), [LINE]);
  });

  it("make one row of the heads of a file, spec and goal", () => {
    const lines = [LINE, { ...LINE, layer: 1, recall: 0.5, errors: [0.02, 0.02] }, { ...LINE, goal: "error0.05" }];
    assertEquals(grouped(lines).map((g) => g.length), [2, 1]);
    const row = indexTable(lines).split("\n")[2] as string;
    assert(
      row.startsWith(
        "| tiny 8K | `flat` | top100 | 0.7500, 0.500 | 0.500 | 0.0200, 0.0300 | 100 %; 100 % | 100, 1.22 % |",
      ),
      row,
    );
    assertEquals(indexTable(lines).split("\n").length, 4);
    assert(headTable(lines).includes("| 0.500 / 1.00 / 1.00 |"), headTable(lines));
  });

  it("set rivals against ours head by head", () => {
    const rival = (layer: number, knob: number, recall: number, warmUs: number) => ({
      ...LINE,
      layer,
      recall,
      warmUs,
      spec: `hnswlib:centred,ef=${knob}`,
    });
    const ours = [LINE, { ...LINE, layer: 1, warmUs: 20 }];
    const rivals = [rival(0, 1, 0.4, 20), rival(0, 2, 0.96, 60), rival(1, 1, 0.7, 90), rival(1, 2, 0.9, 200)];
    const row = rivalTable([...ours, ...rivals], "flat").split("\n")[2];
    // Head 0 reaches .4 within 50 µs and .96 in six times ours; head 1 reaches .7 within 100 µs and never .95.
    assertEquals(
      row,
      "| tiny 8K | hnswlib:centred | 2 | 0.700 | 0.700 | 1 of 2; × 6.00, least × 6.00 | never | NaN |".replace(
        "NaN",
        "–",
      ),
    );
    assertEquals(rivalTable(rivals, "flat").split("\n").length, 2);
  });

  it("set times against a spec's, over the sum and by head", () => {
    const lists = { ...LINE, spec: "lists", warmUs: 5, expectedRecall: 0.97, recall: 0.95 };
    const other = { ...LINE, layer: 1, warmUs: 30 };
    const row = ratioTable([LINE, other, lists, { ...lists, layer: 1, warmUs: 33 }], "flat").split("\n")[2];
    assertEquals(row, "| tiny 8K | `lists` | top100 | 2 | 0.9500, 0.950 | 0.950 | 0.50 / 1.10 / 1.10; 1.10 | – | – |");
    assert(headTable([lists]).includes("| 0.020; 0.020 |"), headTable([lists]));
  });

  it("take quantiles by nearest rank", () => {
    assertEquals(quantile([3, 1, 2, 5, 4], 0.5), 3);
    assertEquals(quantile([1], 0.9), 1);
  });

  it("draw every spec and file", () => {
    const svg = indexPicture([LINE, { ...LINE, spec: "flat:codes=int4", goal: "error0.05", tokens: 32768 }]);
    for (const text of ["flat:codes=int4", "tiny 8K", "tiny 32K"]) assert(svg.includes(text), text);
    assertEquals(svg.match(/<svg/g)?.length, 1);
  });
});
