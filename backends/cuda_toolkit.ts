/**
 * CUDA's compiler: where it is, and how it is fetched. As a program it fetches:
 *
 * ```text
 * deno run <permissions> backends/cuda_toolkit.ts      into .tools/cuda, unless there is a compiler already
 * ```
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";
import { exists, projectRoot, variable } from "./library.ts";

/** What is fetched: the compiler of CUDA 13.0, which drivers from 580 on run; 346 MB unpacked. */
const PACKAGES = [
  "nvidia-cuda-nvcc==13.0.88",
  "nvidia-nvvm==13.0.88",
  "nvidia-cuda-crt==13.0.88",
  "nvidia-cuda-runtime==13.0.96",
  "nvidia-cuda-cccl==13.0.85",
];

/** Path of nvcc: `KVASIR_NVCC`, on PATH, below CUDA_HOME or CUDA_PATH, or fetched; undefined where there is none. */
export function findNvcc(): string | undefined {
  const given = variable("KVASIR_NVCC");
  if (given !== undefined) return given;
  const folders = [
    ...(variable("PATH") ?? "").split(":"),
    ...["CUDA_HOME", "CUDA_PATH"].map((name) => variable(name)).filter((home) => home !== undefined).map((home) =>
      `${home}/bin`
    ),
    "/usr/local/cuda/bin",
    `${toolsFolder()}/nvidia/cu13/bin`,
  ];
  return folders.filter((folder) => folder !== "").map((folder) => `${folder}/nvcc`).find(exists);
}

/** Whether this machine has an NVIDIA driver, as far as its files tell: the library itself says what it lacks. */
export function hasDriver(): boolean {
  return ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"].some((path) => {
    try {
      Deno.statSync(path);
      return true;
    } catch {
      return false;
    }
  });
}

function toolsFolder(): string {
  return `${projectRoot() ?? "."}/.tools/cuda`;
}

/** Fetches the compiler by pip; returns its path. Throws `Unsupported` where that fails. */
async function install(): Promise<string> {
  const target = toolsFolder();
  for (const pip of [["pip3"], ["pip"], ["python3", "-m", "pip"]]) {
    const [command, ...first] = pip as [string, ...string[]];
    try {
      const args = [...first, "install", "--quiet", "--no-deps", "--upgrade", "--target", target, ...PACKAGES];
      const { success } = await new Deno.Command(command, { args, stdin: "null" }).output();
      const nvcc = findNvcc();
      if (success && nvcc !== undefined) return nvcc;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
    }
  }
  throw new Unsupported(
    "Cannot fetch the CUDA compiler: pip could not install it, install the CUDA toolkit 13.0 and set CUDA_HOME",
  );
}

if (import.meta.main) {
  try {
    const found = findNvcc();
    if (found === undefined) console.error("Fetching the CUDA compiler (346 MB) ...");
    console.error(`CUDA compiler: ${found ?? await install()}`);
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
