/**
 * How index types do on recorded and generated heads, and rivals beside them.
 *
 *     deno run -A bench/index.ts run FILE.kvqk… --spec flat --spec flat:codes=int4 --goal top100 --goal error0.05 --cold --out RAW.jsonl
 *     deno run -A bench/index.ts rivals FILE.kvqk… --spec hnswlib:centred --spec faiss-ivf --beside flat --out RAW.jsonl
 *     deno run -A bench/index.ts table RAW.jsonl…          one row per file, spec and goal, in Markdown
 *     deno run -A bench/index.ts heads RAW.jsonl…          the same, as spread over KV heads
 *     deno run -A bench/index.ts ratio SPEC RAW.jsonl…     times over those of SPEC
 *     deno run -A bench/index.ts against SPEC RAW.jsonl…   rivals against SPEC, head by head
 *     deno run -A bench/index.ts picture OUT.svg RAW.jsonl…
 *
 * `run` and `rivals` take `--queries N` (decode queries a head), `--every N --first N` (a sample of the KV heads) and append to `--out`.
 * `--beside SPEC` searches the same queries by that index type in the same run and prints the table of `against`. Programs
 * (native/bench/index_bench.cc, bench/rival/index_rivals.cc) are compiled on the way; rivals need Debian's libhnswlib-dev and
 * libfaiss-dev. Heads are recorded by bench/record.ts and made by bench/generated.ts.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { buildLibrary } from "../backends/build.ts";
import { libraryPath } from "../backends/library.ts";
import { indexPicture } from "./index_plot.ts";
import { type HeadLine, headTable, indexTable, parseLines, ratioTable, rivalTable } from "./index_table.ts";

const ROOT = decodeURIComponent(new URL("..", import.meta.url).pathname).replace(/\/$/, "");
const FLAGS = ["-O3", "-march=native", "-std=c++17", "-I", "native/include", "-I", "native/base", "-I", "native/bench"];

async function execute(command: string, args: readonly string[]): Promise<string> {
  const child = new Deno.Command(command, { args: [...args], cwd: ROOT, stderr: "piped" });
  const { success, stdout, stderr } = await child.output();
  if (!success) throw new Error(`Cannot run ${command}: ${new TextDecoder().decode(stderr).slice(-2000)}`);
  return new TextDecoder().decode(stdout);
}

/** Compiles one program into the build folder; returns its path. */
async function compile(kind: "run" | "rivals"): Promise<string> {
  let library = libraryPath("index");
  if (library === undefined) {
    await buildLibrary(() => {}, "index");
    library = libraryPath("index") as string;
  }
  const folder = library.replace(/\/[^/]*$/, "");
  const out = `${folder}/${kind === "run" ? "index_bench" : "index_rivals"}`;
  const rest = kind === "run"
    ? ["native/bench/index_bench.cc", `-L${folder}`, "-lkvasir_index", `-Wl,-rpath,${folder}`]
    : ["bench/rival/index_rivals.cc", "-fopenmp", "-lfaiss", "-llapack", "-lblas"];
  await execute("c++", [...FLAGS, "-o", out, ...rest]);
  return out;
}

function readAll(paths: readonly string[]): HeadLine[] {
  return paths.flatMap((path) => parseLines(Deno.readTextFileSync(path)));
}

async function measure(kind: "run" | "rivals", args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      spec: { type: "string", multiple: true },
      goal: { type: "string", multiple: true, default: ["top100"] },
      queries: { type: "string", default: "8" },
      every: { type: "string", default: "1" },
      first: { type: "string", default: "0" },
      cold: { type: "boolean", default: false },
      out: { type: "string" },
      beside: { type: "string" },
    },
  });
  if (values.spec === undefined || positionals.length === 0) {
    throw new RangeError("Cannot run: heads and --spec are needed");
  }
  const runs: (readonly [program: string, specs: readonly string[]])[] = [[await compile(kind), values.spec]];
  if (values.beside !== undefined) runs.push([await compile("run"), [values.beside]]);
  const lines: HeadLine[] = [];
  for (const [file, [program, specs]] of positionals.flatMap((file) => runs.map((run) => [file, run] as const))) {
    const text = await execute(program, [
      await Deno.realPath(file),
      ...specs.flatMap((spec) => ["--spec", spec]),
      ...values.goal.flatMap((goal) => ["--goal", goal]),
      ...["--queries", values.queries, "--every", values.every, "--first", values.first],
      ...(values.cold ? ["--cold"] : []),
    ]);
    if (values.out !== undefined) await Deno.writeTextFile(values.out, text, { append: true });
    lines.push(...parseLines(text));
  }
  console.log(values.beside === undefined ? indexTable(lines) : rivalTable(lines, values.beside));
}

async function main([command, ...args]: string[]): Promise<void> {
  switch (command) {
    case "run":
    case "rivals":
      return await measure(command, args);
    case "table":
      return console.log(indexTable(readAll(args)));
    case "heads":
      return console.log(headTable(readAll(args)));
    case "ratio":
      return console.log(ratioTable(readAll(args.slice(1)), args[0] ?? ""));
    case "against":
      return console.log(rivalTable(readAll(args.slice(1)), args[0] ?? ""));
    case "picture":
      return await Deno.writeTextFile(args[0] ?? "", indexPicture(readAll(args.slice(1))));
    default:
      throw new RangeError(
        `Cannot run "${command ?? ""}": choose run, rivals, table, heads, ratio, against or picture`,
      );
  }
}

if (import.meta.main) await main(Deno.args);
