/**
 * CUDA's kernels run by the CPU, as `--plugin` takes them: a device whose failures can be had at will.
 *
 * @module
 */
import type { BackendType } from "../backends/backend.ts";
import { emulatedCuda } from "./emulated_cuda.ts";

/** What a plugin exports. */
export const backends: Readonly<Record<string, BackendType>> = emulatedCuda;
