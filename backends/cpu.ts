/**
 * The CPU backend: `libkvasir_cpu`, C++ with kernels of several instruction sets.
 *
 * @module
 */
import type { BackendType } from "./backend.ts";
import { Unsupported } from "../core/errors.ts";
import { formatParams } from "../core/spec.ts";
import { libraryPath } from "./library.ts";
import { NativeBackend } from "./native.ts";

/** Registry entry. `isa` is auto, avx512, avx2 or portable; 0 threads are all; `precision` is exact or fast. */
export const cpu: BackendType = {
  summary: "C++ on the CPU: AVX-512, AVX2 or portable kernels, its own thread pool",
  defaults: { isa: "auto", threads: 0, precision: "exact" },
  async prepare(report) {
    const { buildLibrary } = await import("./build.ts");
    await buildLibrary(report);
  },
  open(params) {
    check(params);
    const library = libraryPath();
    if (library === undefined) {
      throw new Unsupported(
        'Cannot open backend "cpu": its library is not built, run ./kvasir doctor or deno run -A backends/build.ts',
      );
    }
    return new NativeBackend({ name: "cpu", library, options: formatParams(params) });
  },
};

const CHOICES: Readonly<Record<string, readonly string[]>> = {
  isa: ["auto", "avx512", "avx2", "portable"],
  precision: ["exact", "fast"],
};

/** The library would refuse these too, but could not say that the argument is wrong rather than the machine. */
function check(params: Parameters<BackendType["open"]>[0]): void {
  for (const [key, choices] of Object.entries(CHOICES)) {
    if (choices.includes(String(params[key]))) continue;
    throw new RangeError(`Cannot use "cpu": ${key} is "${params[key]}", expected one of ${choices.join(", ")}`);
  }
  const { threads } = params;
  if (!Number.isInteger(threads) || Number(threads) < 0 || Number(threads) > 1024) {
    throw new RangeError(`Cannot use "cpu": threads is ${threads}, expected 1 to 1024, or 0 for all`);
  }
}
