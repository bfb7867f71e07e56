/**
 * `kvasir doctor`: what this machine has, what works, and what to do about the rest.
 *
 * @module
 */
import { type Command, Command as Plain } from "@commander-js/extra-typings";
import { builtinBackends, openBackend } from "../backends/mod.ts";
import { libraryPath } from "../backends/library.ts";
import { costsOfKeys, machineCosts } from "../index/costs.ts";
import { loadIndexLibrary } from "../index/ffi.ts";
import { Ops } from "../backends/ops.ts";
import { describeError, EXIT } from "./exit.ts";

/** One line of the report. */
export interface Finding {
  readonly name: string;
  /** Nothing is wrong. */
  readonly ok: boolean;
  /** The machine lacks what it would take, which is no fault. */
  readonly absent?: true;
  readonly detail: string;
}

/** The command, for `main.ts`. */
export function doctorCommand(done: (code: number) => void): Command {
  const command = new Plain("doctor")
    .description("Checks Deno, the native library, instruction sets, memory bandwidth, and computes something.")
    .option("--json", "print one JSON array")
    .option(
      "--install-cuda",
      "fetch the CUDA compiler (346 MB, from PyPI) and build for NVIDIA devices; ./kvasir does it first",
    )
    .action((flags) => {
      const findings = diagnose();
      if (flags.json === true) console.log(JSON.stringify(findings));
      else {
        for (const { name, ok, absent, detail } of findings) {
          console.log(`${absent ? "none" : ok ? "ok  " : "FAIL"} ${name.padEnd(16)} ${detail}`);
        }
      }
      done(findings.every((finding) => finding.ok) ? EXIT.OK : EXIT.NATIVE);
    });
  return command as unknown as Command;
}

/** Every check; failures are findings, never exceptions. */
export function diagnose(): Finding[] {
  const memory = Deno.systemMemoryInfo();
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  const findings: Finding[] = [
    { name: "deno", ok: true, detail: `${Deno.version.deno}, ${Deno.build.os} ${Deno.build.arch}` },
    { name: "memory", ok: true, detail: `${gib(memory.total)} GiB, ${gib(memory.available)} GiB available` },
  ];
  for (const isa of ["auto", "avx512", "avx2", "portable"]) {
    // An instruction set the processor lacks is no fault; the automatic choice failing is.
    findings.push(tryBackend(`cpu:isa=${isa}`, isa === "auto" || isa === "portable"));
  }
  findings.push(tryCosts());
  for (const name of Object.keys(builtinBackends)) {
    // A machine without an NVIDIA device lacks nothing that it could run.
    if (name !== "cpu") findings.push(tryBackend(name, name !== "cuda"));
  }
  return findings;
}

/** What index searches cost here: index type `planned` decides by it. */
function tryCosts(): Finding {
  const name = "index costs";
  const path = libraryPath("index");
  if (path === undefined) return { name, ok: true, detail: "no index library here" };
  try {
    const library = loadIndexLibrary(path);
    try {
      const costs = machineCosts(library, path);
      if (costs === undefined) {
        return { name, ok: true, detail: "the reference machine's: no cache folder may be written" };
      }
      const { scan, lists } = costsOfKeys(costs.text);
      const detail = `${scan} ns a key scanned, ${lists} ns a key of a list; ${
        costs.measured ? "measured now" : "kept"
      }, ${costs.file}`;
      return { name, ok: true, detail };
    } finally {
      library.close();
    }
  } catch (error) {
    return { name, ok: false, detail: describeError(error) };
  }
}

function tryBackend(spec: string, required: boolean): Finding {
  try {
    using backend = openBackend(spec);
    const ops = new Ops(backend);
    const x = backend.alloc([2, 32], "f32", "step");
    const w = backend.alloc([3, 32], "f32", "model");
    backend.write(x, Float32Array.from({ length: 64 }, (_, i) => i));
    backend.write(w, new Float32Array(96).fill(0.5));
    const [y] = ops.matmul(x, w);
    const got = backend.read(y)[3];
    const ok = got !== undefined && Math.abs(got - 760) < 0.1;
    const bandwidth = "bandwidth" in backend && typeof backend.bandwidth === "function"
      ? `, reads ${(backend.bandwidth(256) as number).toFixed(1)} GB/s`
      : "";
    return { name: spec, ok, detail: ok ? `${backend.spec}${bandwidth}` : `computed ${got}, expected 760` };
  } catch (error) {
    const detail = describeError(error);
    return required ? { name: spec, ok: false, detail } : { name: spec, ok: true, absent: true, detail };
  }
}
