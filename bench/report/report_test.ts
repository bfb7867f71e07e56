import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Cell } from "../matrix/cell.ts";
import type { HeadLine } from "../index_table.ts";
import { writeReport } from "./command.ts";
import {
  formatLength,
  formatNumber,
  keysFinding,
  paretoFinding,
  tasksFinding,
  textPoints,
  timeFinding,
} from "./findings.ts";
import { byMethodAndLength, crossover, groupPoints, paretoFront } from "./points.ts";
import { fidelityTable, tableToMarkdown, taskTables } from "./tables.ts";

const interval = (x: number) => [x, 0.8 * x, 1.2 * x] as const;

/** A cell whose figures are told by what is given. */
function cellOf(method: string, length: number, task: string, o: { kl?: number; ratio?: number; keys?: number }): Cell {
  const { kl = 0.01, ratio = 1, keys = 600 } = o;
  const minus = [-kl, -2 * kl, -0.5 * kl] as const;
  const heads = Array.from({ length: 4 }, (_, i) => [kl * i, kl, 0.5]);
  return {
    kind: "cell",
    key: `${method} ${length} ${task}`,
    spec: { backend: "cpu:threads=2", model: "tiny.gguf", method, task, length, mode: "shared" },
    machine: { cpu: "c", cores: 2, memoryGB: 8, os: "o", deno: "2" },
    commit: "0123456789abcdef",
    headErrors: method === "full" ? null : { mean: kl, p99: kl, heads },
    quality: task === "text"
      ? { kind: "text", count: 9, kl: interval(kl), klP50: kl, klP99: kl, sameTop: 0.9, deltaNll: minus, nllFull: 3 }
      : {
        kind: "questions",
        count: 11,
        chance: 1 / 32,
        informative: length > 1024,
        right: interval(0.5),
        rightFar: 0.4,
        logprob: interval(-1),
        margin: interval(2),
        rightMinusFull: minus,
        logprobMinusFull: minus,
        marginMinusFull: minus,
        each: Array.from({ length: 11 }, (_, i) => [i / 11, i % 2, i - 5, null]),
      },
    work: { keys: length, spanned: keys - 80, retrieved: 80, share: method === "full" ? 1 : keys / length },
    speed: {
      pairs: 5,
      exactMs: length / 100,
      ownMs: 9,
      ratio: [ratio, 0.9 * ratio, 1.1 * ratio],
      bandwidth: 10,
      exactFloorMs: length / 150,
      ownFloorMs: 4,
    },
    memory: { weights: 1e8, cache: 1e4 * length, index: method === "full" ? 0 : 3e3 * length },
    build: { readMs: 100, readWithMs: 110, settleMs: 5, threadSeconds: 0.2, insertMs: 0.1 },
  } as unknown as Cell;
}

const cells = [1024, 2048, 4096].flatMap((length) =>
  ["text", "copy", "needle-grid"].flatMap((task) => [
    cellOf("full", length, task, { kl: 0, keys: length }),
    cellOf("kvasir", length, task, { kl: 0.001, ratio: length / 2000 }),
    cellOf("exact-topk@flat:codes=f16", length, task, { kl: 0.008, ratio: length / 2500, keys: 700 }),
    cellOf("streaming-llm:window=512", length, task, { kl: 0.2, ratio: length / 1500, keys: 516 }),
  ])
);

Deno.test("fronts hold what nothing beats, crossovers what stays faster", () => {
  const points = [[1, 5], [2, 3], [2, 4], [3, 3], [4, 1], [5, 2]] as const;
  assertEquals(paretoFront(points, ([x]) => x, ([, y]) => y), [[1, 5], [2, 3], [4, 1]]);
  const at = (...ratios: number[]) => crossover(ratios.map((ratio, i) => ({ length: 1024 * 2 ** i, ratio })));
  assertEquals(at(0.5, 0.9, 0.95), undefined);
  assertEquals(at(1.1, 1.5), 1024);
  assertEquals(Math.round(at(0.5, 1.5) as number), Math.round(1024 * Math.SQRT2));
  // Faster once by chance is not faster for good.
  assertEquals(Math.round(at(1.2, 0.8, 1.2) as number), Math.round(2048 * Math.SQRT2));
});

Deno.test("cells of other machines, models and backends are not mixed; of equal keys the last counts", () => {
  const [first] = cells as [Cell];
  const other = { ...first, key: "x", machine: { ...first.machine, cores: 64 } };
  const again = { ...first, commit: "fedcba9876543210" };
  const { spec } = first;
  const rival = { ...first, key: "r", spec: { ...spec, backend: "rival", method: "rival", policy: "rival:x" } };
  const groups = groupPoints([...cells, other, again, rival]);
  // A rival stands beside ours, on the same machine only.
  assertEquals(groups.map(({ points }) => points.length), [cells.length + 1, 1]);
  assertEquals(new Set(groups.map(({ slug }) => slug)).size, 2);
  assertEquals(groups[0]?.commits.length, 2);
  assertEquals(byMethodAndLength(groups[0]?.points ?? []).length, 13);
});

Deno.test("a task's table names who is on the front, where the task tells methods apart", () => {
  const [{ points }] = groupPoints(cells) as [ReturnType<typeof groupPoints>[0]];
  const notes = taskTables(points).filter(({ title }) => title.startsWith("copy")).map(({ note }) => note);
  assertEquals(notes.length, 3);
  assert(!notes[0]?.includes("front"));
  // The 100 best keys are more than 600, and worse.
  assertStringIncludes(
    notes[2] as string,
    "On the front of margins and keys: `streaming-llm:window=512`, `kvasir`, `full`.",
  );
});

Deno.test("titles say what the points show", () => {
  const [{ points }] = groupPoints(cells) as [ReturnType<typeof groupPoints>[0]];
  const text = textPoints(points);
  assertStringIncludes(keysFinding(text), "At 4K, kvasir reads 600 keys and stays 8.0 times closer");
  // At 1K it is slower than exact attention.
  assertStringIncludes(paretoFinding(text), "at 2K, 4K, not at 1K");
  const dearer = text.map((point) =>
    point.family === "kvasir"
      ? { ...point, ms: 1e3, ratio: [0.01, 0.01, 0.01] as const, quality: text[1]!.quality }
      : point
  );
  assertStringIncludes(paretoFinding(dearer), "at no length");
  assertStringIncludes(
    timeFinding(points),
    "kvasir is faster than exact attention from about 1.9K on, 2.0 times as fast at 4K",
  );
  assertEquals(
    tasksFinding(points),
    "kvasir loses at most 0.0010 nats of margin (copy at 2K), streaming-llm:window=512 up to 0.20 (copy at 2K)",
  );
  assertEquals([formatLength(512), formatLength(4096), formatNumber(0.00123), formatNumber(88.1)], [
    "512",
    "4K",
    "0.0012",
    "88",
  ]);
});

Deno.test("a report holds all pictures, light and dark, on one page", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const head = (spec: string, recall: number, warmUs: number): HeadLine => ({
      ...{ file: "h.gguf", spec, goal: "top100", layer: 0, kvHead: 0, group: 3, dim: 64, tokens: 8192, rest: 7000 },
      ...{ recall, worstRecall: recall, mass: 0.6, error: 0.1, errors: [0.1], scored: 7000, kept: 100, bytesRead: 1e6 },
      ...{ warmUs, coldUs: 2 * warmUs, buildSeconds: 1, bytesPerKey: 70, insertUs: 1, decisions: "" },
    });
    const heads = [head("flat", 1, 50), head("hnswlib:ef=100", 0.9, 90), head("hnswlib:ef=400", 0.97, 300)];
    const written = await writeReport(cells, folder, heads);
    const pictures = written.filter((path) => path.endsWith(".svg"));
    assertEquals(pictures.length, 2 * 9);
    const level = Deno.readTextFileSync(pictures.find((path) => path.includes("index_level-light")) as string);
    assertStringIncludes(level, "6.0 times that of flat");
    const page = Deno.readTextFileSync(`${folder}/index.html`);
    for (const path of pictures) {
      const svg = Deno.readTextFileSync(path);
      assert(svg.startsWith("<svg") && !/NaN|undefined|Infinity/.test(svg), path);
      assertStringIncludes(page, path.slice(folder.length + 1));
      assert(svg.includes(path.includes("-dark") ? "#0d1117" : "#ffffff"), path);
    }
    assertStringIncludes(Deno.readTextFileSync(pictures[0] as string), "kvasir");
    const tables = Deno.readTextFileSync(`${folder}/tables.md`);
    assertStringIncludes(tables, "copy, 1K tokens, shared: not informative");
    assert(!/NaN|undefined/.test(tables));
    const [{ points }] = groupPoints(cells) as [ReturnType<typeof groupPoints>[0]];
    const table = fidelityTable(points);
    assertEquals(tableToMarkdown(table!).split("\n").length, 4 + 12 + 1);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
