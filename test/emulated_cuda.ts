/**
 * The CUDA backend with its kernels run by the CPU, threads in another order at every launch: a backend for tests.
 *
 * @module
 */
import type { BackendType } from "../backends/backend.ts";
import { type Backends, prepareBackend } from "../backends/mod.ts";
import { openHost } from "../backends/cuda.ts";
import { cpu } from "../backends/cpu.ts";
import { hybrid } from "../backends/hybrid.ts";
import { buildEmulated } from "../backends/build_cuda.ts";
import { libraryPath } from "../backends/library.ts";
import { NativeBackend } from "../backends/native.ts";
import { Unsupported } from "../core/errors.ts";
import { formatParams } from "../core/spec.ts";

const emulated: BackendType = {
  summary: "CUDA's kernels on the CPU",
  defaults: {
    seed: 1,
    graphs: true,
    wgmma: true,
    tma: true,
    maps: true,
    memory: 0,
    fault: 0,
    driver: 13000,
    devices: 1,
  },
  async prepare(report) {
    await buildEmulated(report);
  },
  open(params) {
    const library = libraryPath("cuda_emulated");
    if (library === undefined) throw new Unsupported("Cannot open cuda-emulated: it is not built");
    return new NativeBackend({
      name: "cuda-emulated",
      library,
      options: formatParams(params),
      memory: "device",
      openHost,
    });
  },
};

/**
 * `cuda-emulated:seed=1`, to be given to `openBackend`, and `hybrid-emulated`, which has it as its device. `fault` is the launch
 * that fails, 0 none.
 */
export const emulatedCuda: Backends = {
  "cuda-emulated": emulated,
  "hybrid-emulated": ((type) => ({ ...type, defaults: { ...type.defaults, device: "cuda-emulated" } }))(
    hybrid({ cpu, "cuda-emulated": emulated }),
  ),
};

/** Builds what the emulation needs; why that cannot be, said with what is therefore not tested, or "". */
export async function prepareEmulated(what: string): Promise<string> {
  try {
    for (const spec of ["cpu", "cuda-emulated"]) await prepareBackend(spec, emulatedCuda);
    return "";
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    console.log(`${what} not tested: ${error.message}`);
    return error.message;
  }
}
