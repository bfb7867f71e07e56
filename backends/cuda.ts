/**
 * The backend of NVIDIA devices: `libkvasir_cuda`, CUDA kernels from compute capability 7.5 on.
 *
 * @module
 */
import type { Backend, BackendType } from "./backend.ts";
import { Unsupported } from "../core/errors.ts";
import { formatParams } from "../core/spec.ts";
import { cpu } from "./cpu.ts";
import { hasDriver } from "./cuda_toolkit.ts";
import { libraryPath } from "./library.ts";
import { NativeBackend } from "./native.ts";

/**
 * Registry entry. `device` counts from 0, as the driver does; `graphs`: launches that repeat are sent as graphs; `wgmma`: prompts
 * by products of warpgroups, on devices of compute capability 9.0; `tma`: their keys and values by tensor maps, where the driver
 * has them. What is used of the two is in the backend's spec (`prompts=wgmma+tma`).
 */
export const cuda: BackendType = {
  summary: "CUDA on an NVIDIA device: everything a model needs there",
  defaults: { device: 0, graphs: true, wgmma: true, tma: true },
  async prepare(report) {
    if (libraryPath("cuda") === undefined && !hasDriver()) throw noDriver();
    const { buildCuda } = await import("./build_cuda.ts");
    await buildCuda(report);
  },
  open(params) {
    const { device, graphs, wgmma, tma } = params;
    if (!Number.isInteger(device) || Number(device) < 0 || Number(device) > 255) {
      throw new RangeError(`Cannot use "cuda": device is ${device}, expected 0 to 255`);
    }
    for (const [name, value] of Object.entries({ graphs, wgmma, tma })) {
      if (typeof value !== "boolean") {
        throw new RangeError(`Cannot use "cuda": ${name} is ${value}, expected true or false`);
      }
    }
    const library = libraryPath("cuda");
    if (library === undefined) {
      if (!hasDriver()) throw noDriver();
      throw new Unsupported(
        'Cannot open backend "cuda": its library is not built, run ./kvasir doctor --install-cuda or deno run -A backends/build_cuda.ts',
      );
    }
    return new NativeBackend({ name: "cuda", library, options: formatParams(params), memory: "device", openHost });
  },
};

/** What keeps a device's files: one thread, which checks and copies. */
export function openHost(): Backend {
  return cpu.open({ ...cpu.defaults, threads: 1 });
}

function noDriver(): Unsupported {
  return new Unsupported('Cannot open cuda: this machine has no NVIDIA driver, use backend "cpu"');
}
