/**
 * Builds `libkvasir_cuda` with nvcc, and its twin on the CPU. As a program it prints the library's path:
 *
 * ```text
 * deno run <permissions> backends/build_cuda.ts              build if needed; nothing where there is no driver
 * deno run <permissions> backends/build_cuda.ts --emulated   the twin
 * deno run <permissions> backends/build_cuda.ts --check      compile for one architecture, if there is an nvcc
 * deno run <permissions> backends/build_cuda.ts --test       build and run the native tests on the twin
 * ```
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";
import { type BuildProgress, cmake, progressLine, removeOldest, sources, writableFolder } from "./build.ts";
import { findNvcc, hasDriver } from "./cuda_toolkit.ts";
import { exists, libraryFile, libraryPath, sourceHash, variable } from "./library.ts";

/** Path of `libkvasir_cuda`, built if its sources changed. Throws `Unsupported` with the reason and the remedy. */
export async function buildCuda(onProgress: BuildProgress = () => {}): Promise<string> {
  const found = libraryPath("cuda");
  if (found !== undefined) return found;
  const nvcc = findNvcc();
  if (nvcc === undefined) {
    throw new Unsupported(
      "Cannot build libkvasir_cuda: there is no CUDA compiler, fetch it by ./kvasir doctor --install-cuda or set CUDA_HOME",
    );
  }
  return await build("cuda", [`-DKVASIR_NVCC=${nvcc}`], onProgress);
}

/** Path of `libkvasir_cuda_emulated`, the same kernels run by the CPU: for tests. Throws like {@link buildCuda}. */
export async function buildEmulated(onProgress: BuildProgress = () => {}): Promise<string> {
  return libraryPath("cuda_emulated") ?? await build("cuda_emulated", [], onProgress);
}

async function build(
  name: "cuda" | "cuda_emulated",
  options: readonly string[],
  onProgress: BuildProgress,
): Promise<string> {
  if (variable("KVASIR_NO_BUILD") !== undefined) {
    throw new Unsupported(`Cannot build libkvasir_${name}: KVASIR_NO_BUILD is set, unset it`);
  }
  const root = sources();
  const folder = await writableFolder(root, name);
  using lock = await Deno.open(`${folder}/lock`, { create: true, write: true });
  await lock.lock(true);
  const file = libraryFile(name);
  // Sources may be edited meanwhile: the name must be that of what was compiled.
  for (let attempt = 0; attempt < 3; attempt++) {
    const hash = sourceHash(root, name);
    const path = `${folder}/${hash}/${file}`;
    if (exists(path)) return path;
    const objects = await cmake(
      root,
      folder,
      "release",
      ["-DKVASIR_TESTS=OFF", ...options],
      `kvasir_${name}`,
      onProgress,
    );
    if (sourceHash(root, name) !== hash) continue;
    await Deno.mkdir(`${folder}/${hash}`, { recursive: true });
    await Deno.copyFile(`${objects}/${file}`, `${path}.${Deno.pid}`);
    await Deno.rename(`${path}.${Deno.pid}`, path);
    await removeOldest(folder, hash);
    return path;
  }
  throw new Unsupported(`Cannot build libkvasir_${name}: its sources change while it is built, try again`);
}

/** Compiles all kernels for one architecture; returns false where there is no nvcc. */
async function check(): Promise<boolean> {
  const nvcc = findNvcc();
  if (nvcc === undefined) return false;
  const root = sources();
  const folder = await writableFolder(root, "cuda");
  const architectures = variable("KVASIR_CUDA_ARCHITECTURES") ?? "80";
  const options = ["-DKVASIR_TESTS=OFF", `-DKVASIR_NVCC=${nvcc}`, `-DKVASIR_CUDA_ARCHITECTURES=${architectures}`];
  await cmake(root, folder, "check", options, "kvasir_cuda", progressLine());
  return true;
}

/** The native tests on the twin, or, until one fails, on one with the seeded bug at that place of native/cuda/mutants.h; the exit code. */
async function test(mutant: string | undefined): Promise<number> {
  const root = sources();
  const folder = await writableFolder(root, "cuda_emulated");
  const objects = await cmake(
    root,
    folder,
    mutant === undefined ? "release" : "mutants",
    ["-DKVASIR_TESTS=ON", `-DKVASIR_CUDA_DEFINES=${mutant === undefined ? "" : "KVASIR_MUTANTS"}`],
    "kvasir_cuda_test",
    progressLine(),
  );
  const options = mutant === undefined ? {} : { args: ["--first-failure"], env: { KVASIR_MUTANT: mutant } };
  const child = new Deno.Command(`${objects}/kvasir_cuda_test`, { stdin: "null", ...options }).spawn();
  return (await child.status).code;
}

async function main(args: readonly string[]): Promise<number> {
  const [flag, value] = args;
  try {
    switch (flag) {
      case undefined:
        // Who has no driver gets the sentence from the backend, not a compilation.
        if (libraryPath("cuda") !== undefined || hasDriver()) console.log(await buildCuda(progressLine()));
        return 0;
      case "--emulated":
        console.log(await buildEmulated(progressLine()));
        return 0;
      case "--check":
        console.log(await check() ? "1 passed, 0 failed" : "ignored: no nvcc (./kvasir doctor --install-cuda)");
        return 0;
      case "--test":
        return await test(value);
      default:
        console.error("usage: build_cuda.ts [--emulated | --check | --test [mutant]]");
        return 2;
    }
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    console.error(error.message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
