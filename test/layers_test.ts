/**
 * The structure that ARCHITECTURE.md promises, read from the files: who imports whom, sizes, names, and what only some
 * files may touch.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";

const ROOT = new URL("..", import.meta.url).pathname;
const SKIPPED = new Set([".git", ".tools", "build", "node_modules", "coverage", ".vscode", "__pycache__", ".deno"]);
const MOST_LINES = 400;

/** Folders whose bodies a folder may import, itself included. Tests and benches may import anything. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  core: ["core"],
  backends: ["backends", "core"],
  index: ["index", "backends", "core"],
  attention: ["attention", "index", "backends", "core"],
  model: ["model", "backends", "core"],
  engine: ["engine", "attention", "index", "model", "backends", "core"],
  server: ["server", "engine", "attention", "index", "model", "backends", "core"],
  cli: ["cli", "server", "engine", "attention", "index", "model", "backends", "core"],
};

/** Types only: anyone may import their types. */
const CONTRACTS = new Set([
  "core/tensor.ts",
  "core/kv.ts",
  "backends/backend.ts",
  "index/index.ts",
  "attention/policy.ts",
  "model/model.ts",
]);

/** Benches that are commands: the command line may import these files of `bench/`, and loads them only when they run. */
const BENCH_DOORS = new Set(["bench/matrix/command.ts", "bench/report/command.ts"]);

/** The only file of `backends/` that models may import. */
const MODEL_DOOR = "backends/ops.ts";

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

function walk(folder = ""): string[] {
  const found: string[] = [];
  for (const entry of Deno.readDirSync(ROOT + folder)) {
    if (entry.isDirectory && !SKIPPED.has(entry.name)) found.push(...walk(`${folder}${entry.name}/`));
    else if (entry.isFile) found.push(folder + entry.name);
  }
  return found.sort();
}

/** Relative imports and re-exports of a file, static and dynamic, as paths from the root. */
function importsOf(from: string, text: string): Import[] {
  // Examples inside comments are not imports.
  const code = text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "");
  const found: Import[] = [];
  const add = (specifier: string, typeOnly: boolean) => {
    if (!specifier.startsWith(".") || !specifier.endsWith(".ts")) return;
    const to = new URL(specifier, `file:///${from}`).pathname.slice(1);
    found.push({ from, to, typeOnly });
  };
  for (const match of code.matchAll(/^\s*(?:import|export)\s+(type\s)?(?:[^"';]*?\sfrom\s*)?"([^"]+)"/gm)) {
    add(match[2] as string, match[1] !== undefined);
  }
  for (const match of code.matchAll(/(?:import|URL)\(\s*"([^"]+)"/g)) {
    add(match[1] as string, false);
  }
  return found;
}

/** Why an import breaks the rule; undefined when it does not. */
function complaint({ from, to, typeOnly }: Import): string | undefined {
  const [layer = "", target = ""] = [from.split("/")[0], to.split("/")[0]];
  const allowed = LAYERS[layer];
  // Unit tests sit beside the source and may use what the test folder has.
  if (allowed === undefined || from.endsWith("_test.ts")) return undefined;
  if (typeOnly && CONTRACTS.has(to)) return undefined;
  if (layer === "model" && target === "backends" && to !== MODEL_DOOR) {
    return `${from} imports ${to}: models may import ${MODEL_DOOR} only`;
  }
  if (layer === "cli" && BENCH_DOORS.has(to)) return undefined;
  return allowed.includes(target) ? undefined : `${from} imports ${to}: ${layer} may import ${allowed.join(", ")}`;
}

const files = walk();
const sources = files.filter((f) => f.endsWith(".ts"));
const read = (file: string) => Deno.readTextFileSync(ROOT + file);

describe("layers", () => {
  it("import downwards only", () => {
    const imports = sources.flatMap((file) => importsOf(file, read(file)));
    assert(imports.length > 50, "imports are found at all");
    assertEquals(imports.map(complaint).filter((c) => c !== undefined), []);
  });

  it("hold no body in contract files", () => {
    for (const file of CONTRACTS) {
      const text = read(file).replaceAll(/\/\*[\s\S]*?\*\//g, "");
      assert(!/^(?:export )?(?:const|let|function|class|enum|async)\s/m.test(text), `${file} holds more than types`);
      assert(importsOf(file, read(file)).every((i) => i.typeOnly), `${file} imports a body`);
    }
  });

  it("would catch what they forbid", () => {
    const bad: [string, string][] = [
      ["core/a.ts", 'import { x } from "../backends/mod.ts";'],
      ["core/a.ts", 'export * from "../engine/types.ts";'],
      ["backends/a.ts", 'import type { Engine } from "../engine/types.ts";'],
      ["backends/a.ts", 'import { Hits } from "../index/index.ts";'],
      ["backends/a.ts", 'const m = await import("../index/mod.ts");'],
      ["model/a.ts", 'import {\n  cpu,\n} from "../backends/cpu.ts";'],
      ["model/a.ts", 'import type { LayerPolicy } from "../attention/full.ts";'],
      ["engine/a.ts", 'import "../cli/main.ts";'],
      ["cli/a.ts", 'import { tasks } from "../bench/tasks/mod.ts";'],
      ["server/a.ts", 'new Worker(new URL("../cli/worker.ts", import.meta.url));'],
    ];
    for (const [file, text] of bad) {
      assertEquals(importsOf(file, text).map(complaint).filter((c) => c !== undefined).length, 1, text);
    }
    const good: [string, string][] = [
      ["core/a.ts", 'import type { Backend } from "../backends/backend.ts";'],
      ["core/a.ts", '/** import { x } from "../cli/main.ts"; */'],
      ["model/a.ts", 'import type { Ops } from "../backends/ops.ts";'],
      ["cli/a.ts", 'import { Engine } from "../engine/engine.ts";'],
    ];
    for (const [file, text] of good) assertEquals(importsOf(file, text).map(complaint).filter((c) => c), [], text);
  });
});

describe("files", () => {
  it(`have at most ${MOST_LINES} lines`, () => {
    const code = files.filter((f) => /\.(ts|cc|h|cu|py|mjs|sh)$|^kvasir$|CMakeLists\.txt$/.test(f));
    const long = code.map((f) => ({ f, lines: read(f).split("\n").length - 1 })).filter((x) => x.lines > MOST_LINES);
    assertEquals(long, []);
  });

  it("are named in snake case, in folders that name a concept", () => {
    assertEquals(sources.filter((f) => !/^(?:[a-z0-9_-]+\/)*[a-z0-9_]+(?:\.d)?\.ts$/.test(f)), []);
    assertEquals(files.filter((f) => /(?:^|\/)(?:utils?|helpers?|common|misc)(?:\/|\.)/.test(f)), []);
  });

  it("name no package registry's host", () => {
    const host = /(?:registry\.npm|pypi|pythonhosted|(?<![\w@])jsr)\.[a-z]{2,}/i;
    const text = files.filter((f) => /\.(ts|cc|h|cu|py|mjs|sh|md|json|txt|lock)$|^kvasir$|run$/.test(f));
    assertEquals(text.filter((f) => host.test(read(f))), []);
  });

  it("load native code in ffi.ts only, and never touch raw pointers", () => {
    const code = sources.filter((f) => !f.startsWith("test/") && !f.startsWith("bench/"));
    const loading = code.filter((f) => /Deno\.dlopen/.test(read(f)) && !f.endsWith("/ffi.ts"));
    assertEquals(loading, []);
    assertEquals(code.filter((f) => /Deno\.Unsafe/.test(read(f))), []);
  });
});
