import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DEFAULT_MODEL, pullModel } from "../../model/hub.ts";
import { loadPlugins } from "../../engine/plugins.ts";
import { openBackend } from "../../backends/mod.ts";
import { IndexRegistry } from "../../index/mod.ts";
import { indexConformance } from "../../test/index_conformance.ts";
import { Probe } from "../probe.ts";
import { grammarText } from "../tasks/grammar.ts";
import type { Cell, CellSpec, QuestionQuality, TextQuality } from "./cell.ts";
import { cellKey } from "./cell.ts";
import { planGroups, type Wanted } from "./rows.ts";
import { type Group, runGroup, type RunPlace } from "./run.ts";
import { parseCells, ResultFile } from "./store.ts";
import { suites } from "./suites.ts";
import { haystackOf, matrixTasks, openTasks } from "./tasks.ts";

/** Of a spec and an answer; what is not looked at is left out. */
function cellOf(method: string, length: number): Cell {
  const spec = { method, length, task: "copy", policy: method } as CellSpec;
  return { kind: "cell", key: cellKey(spec), spec, quality: { kind: "text", kl: [0, 0, 0] } } as unknown as Cell;
}

Deno.test("results survive being cut off anywhere, and say what is finished", () => {
  const folder = Deno.makeTempDirSync();
  const path = `${folder}/r.jsonl`;
  try {
    const cells = [cellOf("full", 1024), cellOf("kvasir", 1024), cellOf("kvasir", 2048)];
    {
      using file = new ResultFile(path);
      for (const cell of cells) file.append(cell);
      assertThrows(() => new ResultFile(path), Error, "another run");
    }
    const whole = Deno.readTextFileSync(path);
    const ends = [0, ...[...whole.matchAll(/\n/g)].map((match) => match.index + 1)];
    for (let cut = 0; cut <= whole.length; cut += 7) {
      Deno.writeTextFileSync(path, whole.slice(0, cut));
      using file = new ResultFile(path);
      const kept = ends.filter((end) => end <= cut).length - 1;
      assertEquals(cells.map(({ key }) => file.has(key)), cells.map((_, i) => i < kept), `cut at ${cut}`);
      for (const cell of cells.slice(kept)) file.append(cell);
      assertEquals(Deno.readTextFileSync(path), whole);
    }
    const file = new ResultFile(path);
    assertThrows(() => file.append({ ...cellOf("x", 1), seconds: NaN }), TypeError, "seconds");
    assertEquals(Deno.readTextFileSync(path), whole);
    file[Symbol.dispose]();
    Deno.writeTextFileSync(path, "{}\n" + whole);
    assertThrows(() => new ResultFile(path), SyntaxError, "line 1");
    Deno.writeTextFileSync(path, whole + "junk\n");
    assertThrows(() => new ResultFile(path), SyntaxError, "line 4");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("a cell's key is its specs, not its label", () => {
  const spec = cellOf("kvasir", 1024).spec;
  assertEquals(cellKey(spec), cellKey({ ...spec, method: "kvasir:error=0.05" }));
  for (const other of [{ length: 2048 }, { policy: "full" }, { seed: 1 }, { haystackHash: "x" }]) {
    assert(cellKey(spec) !== cellKey({ ...spec, ...other }));
  }
  assertEquals(parseCells(JSON.stringify(cellOf("m", 3)) + "\n", "here").length, 1);
});

Deno.test("a method of one's own takes 60 lines and keeps the laws", async () => {
  const file = new URL("../toy_method.ts", import.meta.url);
  assert(Deno.readTextFileSync(file).trimEnd().split("\n").length <= 60);
  const { indexTypes } = await loadPlugins([file.href]);
  using backend = openBackend("reference");
  const skip = { reason: "much work for TypeScript", laws: ["draws: samples", "search: some thousand keys"] };
  const results = indexConformance({ spec: "corner", types: new IndexRegistry(indexTypes), backend, skip });
  assertEquals(results.filter(({ outcome }) => outcome === "failed"), []);
  assert(results.filter(({ outcome }) => outcome === "passed").length > 10);
});

Deno.test("suites name tasks that there are", () => {
  for (const { tasks } of Object.values(suites)) {
    for (const task of tasks) assert(matrixTasks[task] !== undefined, task);
  }
});

/** One seen through: what `kvasir bench matrix --suite smoke` does, smaller. */
Deno.test("smoke: whoever loses the evidence falls to chance, the default stays with full attention, and twice is the same", async (t) => {
  const length = 1344;
  const plugins = await loadPlugins([new URL("../toy_method.ts", import.meta.url).href]);
  using probe = await Probe.open({ model: await pullModel(DEFAULT_MODEL) }, plugins);
  const tasks = openTasks(probe.loaded, haystackOf(grammarText(40 * length)));
  const wanted: Wanted = {
    methods: ["full", "kvasir", "streaming-llm:window=256"],
    settings: { min_length: "0" },
    tasks: ["copy", "text"],
    lengths: [length],
    modes: ["shared"],
    samples: 1,
    questions: 8,
    tokens: 40,
    seed: 42,
    writes: false,
  };
  const place: RunPlace = {
    probe,
    tasks,
    machine: { cpu: "", cores: 1, memoryGB: null, os: "", deno: "" },
    commit: "",
    version: "",
    pairs: 4,
    weights: probe.loaded.backend.bytes,
    breathe: () => Promise.resolve(),
  };
  const own = { ...wanted, tasks: ["text"], methods: ["exact-topk:budget=64@corner"] };
  const groups = [...planGroups(probe, tasks, wanted, () => false), ...planGroups(probe, tasks, own, () => false)];
  const cells: Cell[] = [];
  for (const group of groups) cells.push(...await runGroup(place, group));
  const of = (task: string, method: string) =>
    cells.find(({ spec }) => spec.task === task && spec.method.startsWith(method)) as Cell;
  const answers = (method: string) => of("copy", method).quality as QuestionQuality;
  const text = (method: string) => of("text", method).quality as TextQuality;

  await t.step("answers", () => {
    assert(answers("full").rightFar as number > 0.4, `full copies ${answers("full").rightFar}`);
    assert(answers("streaming").rightFar as number < 0.05, `a window copies ${answers("streaming").rightFar}`);
    assert(answers("full").informative);
    assert(Math.abs(answers("kvasir").rightMinusFull[0]) < 0.1, `${answers("kvasir").rightMinusFull}`);
    assertEquals([answers("full").rightMinusFull, text("full").deltaNll], [[0, 0, 0], [0, 0, 0]]);
    assert(text("full").kl[0] < 1e-9);
    assert(text("kvasir").kl[0] < 0.01 && text("kvasir").kl[0] > 0, `${text("kvasir").kl}`);
    // A cheap score finds keys that a window does not see, and a top-k leaves out what a sample does not.
    assert(text("exact-topk").kl[0] < 0.5 * text("streaming").kl[0], `${text("exact-topk").kl}`);
    assert(text("exact-topk").kl[0] > 2 * text("kvasir").kl[0], `${text("exact-topk").kl}`);
    assert(text("streaming").kl[0] > 10 * text("kvasir").kl[0], `${text("streaming").kl}`);
    const { headErrors } = of("text", "kvasir");
    assert(headErrors !== null && headErrors.mean > 0 && headErrors.mean < 0.1, `${headErrors?.mean}`);
    assertEquals([headErrors.heads.length, headErrors.heads[0]?.length], [30, 9]);
  });
  await t.step("work and costs of the same run", () => {
    const [full, own, near] = ["full", "kvasir", "streaming"].map((method) => of("text", method)) as [Cell, Cell, Cell];
    assertEquals([full.work.share, full.work.retrieved], [1, 0]);
    assert(own.work.share < 0.6 && own.work.retrieved > 0 && own.work.scored > own.work.retrieved);
    assertEquals(near.work.spanned, 260);
    assert(near.work.rowBytes < own.work.rowBytes && own.work.rowBytes < full.work.rowBytes);
    assert(own.memory.index > 0 && near.memory.index === 0);
    for (const { speed } of cells) assert(speed.pairs === 4 && speed.ratio[0] > 0 && (speed.ownFloorMs ?? 1) > 0);
  });
  await t.step("the same again", async () => {
    const again = planGroups(probe, tasks, { ...wanted, methods: wanted.methods.slice(1, 2) }, () => false);
    for (const group of again) {
      for (const cell of await runGroup(place, group)) {
        const before = of(cell.spec.task, cell.spec.method);
        assertEquals([cell.key, cell.prompts, cell.quality], [before.key, before.prompts, before.quality]);
        assertEquals([cell.work, cell.headErrors], [before.work, before.headErrors]);
      }
    }
    assertEquals(planGroups(probe, tasks, wanted, (key) => cells.some((cell) => cell.key === key)), []);
  });
  await t.step("a run that is stopped leaves nothing behind", async () => {
    const { backend } = probe.loaded;
    const before = backend.bytes;
    const group = groups[0] as Group;
    let left = 2;
    const breathe = () => left-- > 0 ? Promise.resolve() : Promise.reject(new Error("stopped"));
    await assertRejects(() => runGroup({ ...place, breathe }, group), Error, "stopped");
    // The text that was read last stays until the next one.
    assert(Math.abs(backend.bytes - before) < 0.05 * before, `${before} bytes, then ${backend.bytes}`);
    // A text that is being read can be given up, too: the second of its three chunks is never run.
    let chunks = 0;
    probe.breathe = () => ++chunks === 1 ? Promise.reject(new Error("stopped")) : Promise.resolve();
    await assertRejects(() => runGroup(place, group), Error, "stopped");
    probe.breathe = undefined;
    assertEquals(chunks, 1);
    assertEquals(backend.bytes, place.weights);
  });
});
