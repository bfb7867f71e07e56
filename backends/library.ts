/**
 * Where the native libraries of these sources are, once built: `build/<hash of sources>/`, so that a changed source is a
 * new path and an old process keeps its own.
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";

/** Part of the hash: raised when the way of building changes without a source changing. */
const RECIPE = "1";

/** The folder that holds `native/`; undefined when this module was not loaded from a file system. */
export function projectRoot(): string | undefined {
  const url = new URL("..", import.meta.url);
  return url.protocol === "file:" ? decodeURIComponent(url.pathname).replace(/\/$/, "") : undefined;
}

/** Libraries that are built together: kernels, and indexes over host memory. */
export const LIBRARIES = ["cpu", "index"] as const;

/** One of them, or one that is built by itself: the backend of NVIDIA devices, and its twin on the CPU, for tests. */
export type LibraryName = typeof LIBRARIES[number] | "cuda" | "cuda_emulated";

/** Folders of `native/` with the sources of a library, and where in a build folder it goes. */
function placeOf(name: LibraryName): { readonly sources: readonly string[]; readonly under: string } {
  return name === "cuda" || name === "cuda_emulated"
    ? { sources: ["include", "base", "index", "cuda"], under: "/cuda" }
    : { sources: ["include", "base", ...LIBRARIES], under: "" };
}

/** File name of a shared library on this system; throws `Unsupported` where none can be built. */
export function libraryFile(name: LibraryName = "cpu"): string {
  if (Deno.build.os === "windows") throw new Unsupported(`Cannot use libkvasir_${name}: it is not built on Windows`);
  return `libkvasir_${name}.${Deno.build.os === "darwin" ? "dylib" : "so"}`;
}

/** Hash of every source and header of a library, and of the platform: 16 hex digits, in a few milliseconds. */
export function sourceHash(root: string, name: LibraryName = "cpu"): string {
  const files = [`${root}/native/CMakeLists.txt`];
  for (const folder of placeOf(name).sources) {
    for (const entry of Deno.readDirSync(`${root}/native/${folder}`)) {
      if (entry.isFile) files.push(`${root}/native/${folder}/${entry.name}`);
    }
  }
  const hash = new Hash();
  hash.add(new TextEncoder().encode(`${RECIPE} ${Deno.build.target}`));
  for (const file of files.sort()) {
    hash.add(new TextEncoder().encode(file.slice(root.length)));
    hash.add(Deno.readFileSync(file));
  }
  return hash.hex();
}

/** Two 32-bit multiplicative hashes (FNV-1a's shape, murmur's constants): sources are ours, nobody forges them. */
class Hash {
  #a = 0x811c9dc5;
  #b = 0x9747b28c;

  add(bytes: Uint8Array): void {
    let a = this.#a ^ bytes.length;
    let b = this.#b;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      a = Math.imul(a ^ byte, 0x01000193);
      b = Math.imul(b ^ byte, 0x5bd1e995);
      b ^= b >>> 15;
    }
    this.#a = a;
    this.#b = b;
  }

  hex(): string {
    return [this.#a, this.#b].map((x) => (x >>> 0).toString(16).padStart(8, "0")).join("");
  }
}

/** Folders that may hold builds, the preferred one first: beside the sources, then the user's cache. */
export function buildFolders(root: string, name: LibraryName = "cpu"): string[] {
  const cache = variable("XDG_CACHE_HOME") ??
    (variable("HOME") === undefined ? undefined : `${variable("HOME")}/.cache`);
  const { under } = placeOf(name);
  return [`${root}/build`, ...(cache === undefined ? [] : [`${cache}/kvasir/build`])].map((folder) => folder + under);
}

/** An environment variable, undefined also where it may not be read (asking would prompt). */
export function variable(name: string): string | undefined {
  if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") return undefined;
  return Deno.env.get(name) || undefined;
}

/** Environment variables that name a file in place of the one built here, and save looking. */
const GIVEN: Readonly<Record<LibraryName, string>> = {
  cpu: "KVASIR_LIBRARY",
  index: "KVASIR_INDEX_LIBRARY",
  cuda: "KVASIR_CUDA_LIBRARY",
  cuda_emulated: "KVASIR_CUDA_EMULATED_LIBRARY",
};

/** Path of a library built from the sources as they are, undefined when there is none yet. */
export function libraryPath(name: LibraryName = "cpu"): string | undefined {
  const given = variable(GIVEN[name]);
  if (given !== undefined) return given;
  const root = projectRoot();
  if (root === undefined) return undefined;
  const hash = sourceHash(root, name);
  for (const folder of buildFolders(root, name)) {
    const path = `${folder}/${hash}/${libraryFile(name)}`;
    if (exists(path)) return path;
  }
  return undefined;
}

/** Whether a file is there and may be read. */
export function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
