/**
 * `./kvasir test`: everything that must hold, in the order in which failures are cheapest to find. Ends by printing
 * `N passed, N failed`.
 *
 * @module
 */
const ROOT = new URL("..", import.meta.url).pathname;
const PERMISSIONS = [
  "--allow-read",
  "--allow-write",
  "--allow-env",
  "--allow-ffi",
  "--allow-run",
  "--allow-net",
  "--allow-sys",
];

interface Outcome {
  readonly passed: number;
  readonly failed: number;
  /** What failed, a line each: said once more at the end, where a long log is read first. */
  readonly failures?: readonly string[];
}

async function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<boolean> {
  const child = new Deno.Command(command, { args: [...args], cwd: ROOT, env, stdin: "null" }).spawn();
  return (await child.status).success;
}

/** One check that passes or fails as a whole. */
async function check(title: string, args: readonly string[]): Promise<Outcome> {
  console.log(`\n== ${title}: deno ${args.slice(0, 4).join(" ")}${args.length > 4 ? " …" : ""}`);
  const ok = await run(Deno.execPath(), args);
  if (!ok) console.log(`FAILED ${title}`);
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, failures: ok ? [] : [title] };
}

/** Deno tests, counted step by step from the JUnit report. */
async function denoTests(title: string, args: readonly string[]): Promise<Outcome> {
  console.log(`\n== ${title}`);
  const report = await Deno.makeTempFile({ suffix: ".xml" });
  try {
    const ok = await run(Deno.execPath(), ["test", "--no-check", ...PERMISSIONS, `--junit-path=${report}`, ...args]);
    const counts = countJunit(await Deno.readTextFile(report));
    // A crash or an uncaught error can leave no failed case behind.
    return ok || counts.failed > 0 ? counts : { ...counts, failed: 1, failures: [`${title}: Deno failed`] };
  } finally {
    await Deno.remove(report);
  }
}

/** Test cases of a JUnit file; a case with steps counts by its steps. */
export function countJunit(xml: string): Outcome {
  let passed = 0;
  const failures: string[] = [];
  for (const [, attributes = "", rest = ""] of xml.matchAll(/<testcase ([^>]*?)(\/>|>[\s\S]*?<\/testcase>)/g)) {
    if (attributes === "" || rest.includes("<skipped")) continue;
    if (rest.includes("<failure") || rest.includes("<error")) {
      failures.push(attributes.match(/name="([^"]*)"/)?.[1] ?? attributes);
    } else passed++;
  }
  return { passed, failed: failures.length, failures };
}

/** Bugs seeded in CUDA's kernels, a build with all of them: each must make a native test fail, and without one none may. */
async function mutants(): Promise<Outcome> {
  console.log("\n== seeded bugs");
  const list = await Deno.readTextFile(`${ROOT}native/cuda/mutants.h`);
  const names = [...list.matchAll(/^ {2}(k\w+),/gm)].map((match) => match[1] as string);
  let [passed, failed] = [0, 0];
  for (const [place, name] of names.entries()) {
    const args = ["run", ...PERMISSIONS, "backends/build_cuda.ts", "--test", `${place}`];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdin: "null" }).output();
    const text = new TextDecoder().decode(stdout);
    // A build that breaks prints no counts: that catches nothing. The first of the list is no bug.
    const caught = /^\d+ passed, [1-9]\d* failed$/m.test(text), sound = /^[1-9]\d* passed, 0 failed$/m.test(text);
    const right = place === 0 ? sound : caught;
    const by = [...text.matchAll(/^FAILED (.*)$/gm)].map((match) => match[1]).join("; ");
    console.log(
      `${caught ? "caught" : sound ? "all passed" : "did not run"} ${name}${by === "" ? "" : `, by ${by}`}${
        right ? "" : " (WRONG)"
      }`,
    );
    if (right) passed++;
    else failed++;
  }
  return { passed, failed };
}

/** The native test program; prints and counts its own cases. */
async function nativeTests(title: string, args: readonly string[], builder = "backends/build.ts"): Promise<Outcome> {
  console.log(`\n== ${title}`);
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", ...PERMISSIONS, builder, ...args],
    cwd: ROOT,
    stdout: "piped",
    stdin: "null",
  });
  const { success, stdout } = await command.output();
  const text = new TextDecoder().decode(stdout);
  console.log(text.trimEnd());
  const counts = [...text.matchAll(/^(\d+) passed, (\d+) failed$/gm)];
  const passed = counts.reduce((sum, match) => sum + Number(match[1]), 0);
  const failed = counts.reduce((sum, match) => sum + Number(match[2]), 0);
  const failures = [...text.matchAll(/(?:^ {2}\S.*\n)*^FAILED .*$/gm)].map(([match]) => `${title}: ${match.trim()}`);
  if (success || failed > 0) return { passed, failed, failures };
  return { passed, failed: 1, failures: [...failures, `${title}: the program ended before its tests did`] };
}

async function main(args: readonly string[]): Promise<number> {
  const started = performance.now();
  const outcomes: Outcome[] = [];
  if (args.includes("--sanitize")) {
    outcomes.push(await nativeTests("native tests under ASan and UBSan", ["--sanitize", "address"]));
    outcomes.push(await nativeTests("native tests under TSan", ["--sanitize", "thread"]));
  } else if (args.includes("--mutants")) {
    outcomes.push(await mutants());
  } else if (args.length > 0) {
    outcomes.push(await denoTests(`tests: ${args.join(" ")}`, args));
  } else {
    const sources = await sourceFiles();
    outcomes.push(await check("format", ["fmt", "--check"]));
    outcomes.push(await check("lint", ["lint", "--quiet"]));
    outcomes.push(await check("types and doc examples", ["check", "--quiet", "--doc", ...sources]));
    outcomes.push(await check("documentation of the public surface", ["doc", "--lint", "mod.ts"]));
    outcomes.push(await nativeTests("native tests", ["--test"]));
    outcomes.push(await nativeTests("CUDA's kernels, run by the CPU", ["--test"], "backends/build_cuda.ts"));
    outcomes.push(await nativeTests("CUDA's kernels, compiled", ["--check"], "backends/build_cuda.ts"));
    outcomes.push(await denoTests("unit, law and golden tests", ["--doc", "--permit-no-files"]));
  }
  const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
  const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
  for (const failure of outcomes.flatMap((outcome) => outcome.failures ?? [])) console.log(`\nfailed: ${failure}`);
  console.log(`\nin ${((performance.now() - started) / 1000).toFixed(0)} s`);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

async function sourceFiles(): Promise<string[]> {
  const files: string[] = ["mod.ts"];
  for (
    const folder of [
      "core",
      "backends",
      "index",
      "attention",
      "model",
      "engine",
      "server",
      "cli",
      "test",
      "bench",
      "bench/matrix",
      "bench/report",
      "bench/tasks",
      "bench/tasks/text",
    ]
  ) {
    try {
      for await (const entry of Deno.readDir(`${ROOT}${folder}`)) {
        if (entry.isFile && entry.name.endsWith(".ts")) files.push(`${folder}/${entry.name}`);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return files;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
