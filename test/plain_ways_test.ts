import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { prepareBackend } from "../backends/mod.ts";
import { LIBRARIES, libraryPath } from "../backends/library.ts";
import { DEFAULT_MODEL, pullModel } from "../model/hub.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const GREEDY = ["-n", "6", "-t", "0", "--quiet"];
const QUESTION = "Why is the sky blue?";

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(command: string, args: readonly string[], options: Deno.CommandOptions = {}): Promise<Result> {
  const output = await new Deno.Command(command, { args: [...args], cwd: ROOT, stdin: "null", ...options }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code: output.code, out: text(output.stdout), err: text(output.stderr) };
}

const kvasir = (args: readonly string[], options: Deno.CommandOptions = {}) => run(`${ROOT}/kvasir`, args, options);

/** What deno run needs, as narrow as the entry script grants it. */
async function permissions(): Promise<string[]> {
  await prepareBackend("cpu");
  const libraries = LIBRARIES.map((name) => libraryPath(name));
  assert(libraries.every((path) => path !== undefined));
  return ["--no-prompt", "--allow-read", "--allow-env", "--allow-sys=cpus", `--allow-ffi=${libraries.join()}`];
}

describe("plain ways to start", () => {
  it("the entry script works through a symlink from any directory and answers", async () => {
    await pullModel(DEFAULT_MODEL);
    // Builds, so that no later run has to say that it did.
    await kvasir(["doctor"]);
    const folder = await Deno.makeTempDir();
    try {
      await Deno.symlink(`${ROOT}/kvasir`, `${folder}/kv`);
      const linked = await run(`${folder}/kv`, ["generate", ...GREEDY, QUESTION], { cwd: folder });
      assertEquals([linked.code, linked.err], [0, ""]);
      assertStringIncludes(linked.out, "The answer");
      const output = `${folder}/answer.txt`;
      const written = await kvasir(["generate", ...GREEDY, "-o", output, QUESTION]);
      assertEquals([written.code, written.out], [0, ""]);
      assertEquals(await Deno.readTextFile(output), linked.out);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  it("deno run and deno task give the same text as the entry script", async () => {
    const path = await pullModel(DEFAULT_MODEL);
    const [script, plain, task] = await Promise.all([
      kvasir(["generate", ...GREEDY, QUESTION]),
      run(Deno.execPath(), ["run", ...await permissions(), "cli/main.ts", "generate", "-m", path, ...GREEDY, QUESTION]),
      run(Deno.execPath(), ["task", "--quiet", "generate", ...GREEDY, QUESTION]),
    ]);
    assertEquals([script.code, plain.code, task.code], [0, 0, 0]);
    assertEquals(plain.out, script.out);
    assertEquals(task.out, script.out);
  });

  it("a server reads a model behind a link, and listens where it is told", async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.symlink(await pullModel(DEFAULT_MODEL), `${folder}/model.gguf`);
      const child = new Deno.Command(`${ROOT}/kvasir`, {
        args: ["serve", "-m", `${folder}/model.gguf`, "--host", "::1", "--port", "0"],
        stdin: "null",
        stdout: "null",
        stderr: "piped",
      }).spawn();
      const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
      const { value = "" } = await reader.read();
      child.kill("SIGTERM");
      while (!(await reader.read()).done);
      assertStringIncludes(value, "serving model at http://[::1]:");
      assertEquals((await child.status).code, 143);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  it("a plugin's backend runs by its name", async () => {
    const args = ["generate", "--plugin", "test/plugin_backend.ts", "--backend", "echo-reference", ...GREEDY, "Hi"];
    const result = await kvasir(args);
    assertEquals([result.code, result.err], [0, ""]);
    const own = await kvasir(["generate", "--backend", "reference", ...GREEDY, "Hi"]);
    assertEquals(result.out, own.out);
  });

  it("--json reports tokens and timings", async () => {
    const result = await kvasir(["generate", ...GREEDY, "--json", "--logprobs", "2", QUESTION]);
    const report = JSON.parse(result.out);
    assertEquals(report.finish_reason, "length");
    assertEquals(report.tokens.length, 6);
    assertEquals(report.tokens[0].top_logprobs.length, 2);
    assertEquals(report.tokens[0].logprob, report.tokens[0].top_logprobs[0].logprob);
  });

  it("where no library can be built it says so and computes the same", async () => {
    const model = await pullModel(DEFAULT_MODEL);
    const folder = await Deno.makeTempDir();
    try {
      const copied = await run("bash", ["-c", `git ls-files -z | xargs -0 cp --parents -t "$0"`, folder]);
      assertEquals([copied.code, copied.err], [0, ""]);
      const args = ["generate", "-m", model, "-n", "2", "-t", "0", "--quiet", "Hi"];
      const env = { KVASIR_NO_BUILD: "1" };
      const result = await run(`${folder}/kvasir`, args, { cwd: folder, env });
      assertEquals(result.code, 0, result.err);
      assertStringIncludes(result.err, "TypeScript backend");
      assertStringIncludes(result.err, "KVASIR_NO_BUILD");
      const native = await kvasir(args);
      assertEquals(result.out, native.out);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
});

describe("mistakes get one line and their exit code", () => {
  const cases: readonly [title: string, args: string[], code: number, message: string][] = [
    ["a wrong flag", ["generate", "--bogus"], 2, "--bogus"],
    ["a wrong value", ["generate", "-n", "many", "Hi"], 2, "whole number"],
    ["a wrong command", ["frobnicate"], 2, "frobnicate"],
    ["a missing file", ["generate", "-f", "no-such-file", "Hi"], 2, "not both"],
    ["a missing prompt file", ["generate", "-f", "no-such-file"], 2, "no such file"],
    ["a missing model", ["generate", "-m", "no/such.gguf", "Hi"], 4, "no such file"],
    ["an unknown model", ["generate", "--offline", "-m", "hf:no/such", "Hi"], 4, "offline"],
    ["a name nobody knows", ["models", "pull", "nope"], 4, "known are smollm2-135m-instruct"],
    ["a file that is no model", ["generate", "-m", "README.md", "Hi"], 4, "Cannot open model"],
    ["a folder that is no model", ["generate", "-m", "docs", "Hi"], 4, "Cannot open model"],
    ["an unknown backend", ["generate", "--backend", "abacus", "Hi"], 2, "cpu, cuda, hybrid, reference"],
    ["an unknown parameter", ["generate", "--backend", "cpu:colour=red", "Hi"], 2, "colour"],
    ["a plugin that throws", ["generate", "--plugin", "data:text/javascript,throw Error('oh')", "Hi"], 1, "plugin"],
    ["a port that is none", ["serve", "--port", "80000"], 2, "65535"],
    ["a server that is no address", ["chat", "--server", "http://a b"], 2, "no address"],
    ["a server that is not there", ["context", "list", "--server", "http://127.0.0.1:1"], 1, "Cannot reach"],
    ["an output that is a folder", ["generate", "-o", "docs", "Hi"], 2, "folder"],
    ["a context too small", ["generate", "-c", "8", QUESTION], 3, "the context holds 8"],
    ["a text too short to score", ["perplexity", "deno.lock", "--window", "8", "--stride", "8"], 2, "--stride"],
  ];
  for (const [title, args, code, message] of cases) {
    it(title, async () => {
      const result = await kvasir(args);
      assertEquals(result.code, code, result.err);
      assertStringIncludes(result.err, message);
      assertEquals(result.out, "");
      assert(!/\bat .*\.ts:\d+/.test(result.err), result.err);
    });
  }

  it("help of a command is that command's", async () => {
    const [asked, flagged] = await Promise.all([kvasir(["help", "generate"]), kvasir(["generate", "--help"])]);
    assertEquals([asked.code, asked.out], [0, flagged.out]);
    assertStringIncludes(asked.out, "--save-context");
  });

  it("a reader that leaves early is no error", async () => {
    const command = `${ROOT}/kvasir generate -n 40 --quiet Hi | head -c 1; exit \${PIPESTATUS[0]}`;
    const result = await run("bash", ["-c", command]);
    assertEquals([result.code, result.err], [0, ""]);
  });

  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    it(`${signal} during generation ends with ${code} and what was written`, async () => {
      const child = new Deno.Command(`${ROOT}/kvasir`, {
        args: ["generate", "--ignore-eos", "Tell a long story"],
        cwd: ROOT,
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const reader = child.stdout.getReader();
      const first = await reader.read();
      child.kill(signal);
      while (!(await reader.read()).done);
      assertEquals((await child.status).code, code);
      assert(!first.done && first.value.length > 0);
    });
  }
});
