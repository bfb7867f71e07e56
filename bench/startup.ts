/**
 * Process start to first token of a one-token prompt, warm page cache: Kvasir against llama.cpp in turn, and the peak
 * memory of a long prompt.
 *
 *     deno run -A bench/startup.ts [--rival .tools/rival] model.gguf [more.gguf …]
 *
 * Both are whole processes as a user starts them, timed from the spawn to the first byte of the answer. Peak memory is
 * the kernel's (VmHWM) of our process while it answers a prompt that fills 8000 tokens.
 *
 * @module
 */
import { parseArgs } from "node:util";

const ROOT = new URL("..", import.meta.url).pathname;

/** Milliseconds from the spawn to the first byte on standard output. */
async function firstByte(command: string, args: string[], input = ""): Promise<number> {
  const start = performance.now();
  const child = new Deno.Command(command, { args, cwd: ROOT, stdin: "piped", stdout: "piped", stderr: "null" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  const ms = performance.now() - start;
  while (!(await reader.read()).done);
  const { success } = await child.status;
  if (done || !success) throw new Error(`Cannot measure: ${command} ${args.join(" ")} failed`);
  return ms;
}

/** Largest resident size of a process in MB, sampled until it ends. */
async function peakMegabytes(command: string, args: string[]): Promise<number> {
  const child = new Deno.Command(command, { args, cwd: ROOT, stdin: "null", stdout: "null", stderr: "null" }).spawn();
  let peak = 0;
  let running = true;
  const ended = child.status.then((status) => {
    running = false;
    if (!status.success) throw new Error(`Cannot measure: ${command} ${args.join(" ")} failed`);
  });
  while (running) {
    try {
      const match = /VmHWM:\s+(\d+) kB/.exec(await Deno.readTextFile(`/proc/${child.pid}/status`));
      if (match !== null) peak = Math.max(peak, Number(match[1]) * 1024 / 1e6);
    } catch {
      // The process has just ended.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await ended;
  return peak;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: { rival: { type: "string", default: ".tools/rival" }, runs: { type: "string", default: "5" } },
  });
  const rival = await Deno.realPath(values.rival);
  const script = new URL("./rival/llama_cpp.mjs", import.meta.url).pathname;
  const text = await Deno.makeTempFile();
  await Deno.writeTextFile(text, "In the beginning God created the heaven and the earth. ".repeat(650));
  console.log("| model | llama.cpp ms | kvasir ms | ratio | peak MB at 8K |");
  console.log("|---|---|---|---|---|");
  for (const model of positionals) {
    const ours: number[] = [];
    const theirs: number[] = [];
    const answer = ["generate", "-m", model, "--raw", "-t", "0", "--ignore-eos", "--quiet", "-n", "2"];
    for (let run = -1; run < Number(values.runs); run++) {
      const a = await firstByte(`${ROOT}kvasir`, [...answer, "a"]);
      const b = await firstByte("node", [script, rival], `${JSON.stringify({ kind: "first", model })}\n`);
      if (run < 0) continue;
      ours.push(a);
      theirs.push(b);
    }
    const [mine, best] = [ours, theirs].map((list) => list.toSorted((x, y) => x - y)[list.length >> 1] as number);
    const peak = await peakMegabytes(`${ROOT}kvasir`, [...answer, "-c", "8192", "-f", text]);
    const name = model.split("/").at(-1);
    console.log(
      `| ${name} | ${best?.toFixed(0)} | ${mine?.toFixed(0)} | ${((mine ?? NaN) / (best ?? NaN)).toFixed(2)} | ${
        peak.toFixed(0)
      } |`,
    );
  }
  await Deno.remove(text);
}

if (import.meta.main) await main();
