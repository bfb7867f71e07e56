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
    const library = libraryPath();
    if (library === undefined) {
      throw new Unsupported(
        'Cannot open backend "cpu": its library is not built, run ./kvasir doctor or deno run -A backends/build.ts',
      );
    }
    return new NativeBackend({ name: "cpu", library, options: formatParams(params) });
  },
};
