/**
 * Builds the native libraries with cmake when their sources changed. As a program it prints the path of libkvasir_cpu:
 *
 * ```text
 * deno run <permissions> backends/build.ts                       build if needed, print the path
 * deno run <permissions> backends/build.ts --test                build and run the native tests
 * deno run <permissions> backends/build.ts --sanitize address    the same under ASan and UBSan (thread: TSan)
 * ```
 *
 * Two processes may build at once: one waits for the other's lock and then finds its result, which appears by one
 * rename. Objects are kept in `build/cmake-<variant>`, so that a changed file costs its own compilation only.
 *
 * @module
 */
import { Unsupported } from "../core/errors.ts";
import {
  buildFolders,
  exists,
  LIBRARIES,
  libraryFile,
  type LibraryName,
  libraryPath,
  projectRoot,
  sourceHash,
  variable,
} from "./library.ts";

/** Called with steps done and in all (0 while unknown), and what is being built. */
export type BuildProgress = (done: number, total: number, detail: string) => void;

/** Compilations at once: each needs up to about 1 GB. */
const MOST_JOBS = 16;

/**
 * Path of a library; all are built first if their sources changed. Throws `Unsupported`, with the reason and the remedy,
 * where they cannot be built.
 */
export async function buildLibrary(onProgress: BuildProgress = () => {}, name: LibraryName = "cpu"): Promise<string> {
  const found = libraryPath(name);
  if (found !== undefined) return found;
  const root = sources();
  if (variable("KVASIR_NO_BUILD") !== undefined) {
    throw new Unsupported('Cannot build native libraries: KVASIR_NO_BUILD is set, unset it or use backend "reference"');
  }
  if (!mayRun("cmake")) {
    throw new Unsupported(
      "Cannot build native libraries: this process may not run cmake, start it by ./kvasir or add --allow-run --allow-write",
    );
  }
  const folder = await writableFolder(root);
  using lock = await Deno.open(`${folder}/lock`, { create: true, write: true });
  await lock.lock(true);
  // Sources may be edited meanwhile: the name must be that of what was compiled.
  for (let attempt = 0; attempt < 3; attempt++) {
    const hash = sourceHash(root);
    const path = `${folder}/${hash}/${libraryFile(name)}`;
    if (exists(path)) return path;
    const objects = await cmake(root, folder, "release", ["-DKVASIR_TESTS=OFF"], "kvasir_libraries", onProgress);
    if (sourceHash(root) !== hash) continue;
    await keepLibraries(objects, `${folder}/${hash}`);
    await removeOldest(folder, hash);
    return path;
  }
  throw new Unsupported("Cannot build native libraries: its sources change while it is built, try again");
}

/** Copies what was built into a folder that is there whole or not at all. */
async function keepLibraries(objects: string, folder: string): Promise<void> {
  const fresh = folder.replace(/([^/]+)$/, `.$1.${Deno.pid}`);
  try {
    await Deno.mkdir(fresh, { recursive: true });
    for (const library of LIBRARIES) {
      await Deno.copyFile(`${objects}/${libraryFile(library)}`, `${fresh}/${libraryFile(library)}`);
    }
    await Deno.rename(fresh, folder);
  } catch (error) {
    await Deno.remove(fresh, { recursive: true }).catch(() => {});
    throw new Unsupported(`Cannot keep native libraries in "${folder}": ${(error as Error).message}`);
  }
}

/** Builds the native tests, plain or under a sanitizer, and returns the program's path. */
export async function buildTests(
  sanitize: "address" | "thread" | undefined,
  onProgress: BuildProgress = () => {},
): Promise<string> {
  const root = sources();
  const folder = await writableFolder(root);
  using lock = await Deno.open(`${folder}/lock`, { create: true, write: true });
  await lock.lock(true);
  const options = ["-DKVASIR_TESTS=ON", `-DKVASIR_SANITIZE=${sanitize ?? ""}`];
  // Without a sanitizer they are made of the libraries' own objects.
  const objects = await cmake(root, folder, sanitize ?? "release", options, "kvasir_native_test", onProgress);
  return `${objects}/kvasir_native_test`;
}

/** The checkout's folder; throws `Unsupported` where there is none to build from. */
export function sources(): string {
  const root = projectRoot();
  if (root === undefined || !exists(`${root}/native/CMakeLists.txt`)) {
    throw new Unsupported("Cannot build native libraries: its sources are not on this machine, use a checkout");
  }
  libraryFile();
  return root;
}

/** The first build folder of a library that can be written to, made if need be. */
export async function writableFolder(root: string, name: LibraryName = "cpu"): Promise<string> {
  const folders = buildFolders(root, name);
  for (const folder of folders) {
    try {
      await Deno.mkdir(folder, { recursive: true });
      await Deno.writeTextFile(`${folder}/.writable`, "");
      return folder;
    } catch {
      // The next one may do.
    }
  }
  throw new Unsupported(`Cannot build native libraries: none of ${folders.join(", ")} can be written to`);
}

/** Configures and builds one target in its own folder; returns that folder. The log is kept in it. */
export async function cmake(
  root: string,
  folder: string,
  variant: string,
  options: readonly string[],
  target: string,
  onProgress: BuildProgress,
): Promise<string> {
  // Not every cmake can switch the generator of a folder it has configured.
  const generator = await runs("ninja") ? "Ninja" : "Unix Makefiles";
  const objects = `${folder}/cmake-${variant}-${generator === "Ninja" ? "ninja" : "make"}`;
  await Deno.mkdir(objects, { recursive: true });
  const log = new Log(`${objects}/build.log`);
  const configured = await run(log, ["-S", `${root}/native`, "-B", objects, "-G", generator, ...options], () => {});
  if (!configured) throw await log.failure("cmake could not configure it");
  onProgress(0, 0, target);
  const jobs = Math.min(MOST_JOBS, navigator.hardwareConcurrency);
  const built = await run(
    log,
    ["--build", objects, "--target", target, "--parallel", String(jobs)],
    (line) => reportLine(line, target, onProgress),
  );
  if (!built) throw await log.failure("the compiler failed");
  await log.close();
  return objects;
}

/** `[12/40] Building …` of ninja, `[ 30%] Building …` of make. */
function reportLine(line: string, target: string, onProgress: BuildProgress): void {
  const ninja = /^\[(\d+)\/(\d+)\]/.exec(line);
  if (ninja !== null) return onProgress(Number(ninja[1]), Number(ninja[2]), target);
  const make = /^\[ *(\d+)%\]/.exec(line);
  if (make !== null) onProgress(Number(make[1]), 100, target);
}

/** Output of one build: kept in a file, and its end for the reason of a failure. */
class Log {
  #text = "";

  constructor(readonly path: string) {}

  add(line: string): void {
    this.#text += line + "\n";
  }

  async close(): Promise<void> {
    await Deno.writeTextFile(this.path, this.#text);
  }

  /** An error that names what is missing where that can be told. */
  async failure(what: string): Promise<Unsupported> {
    const kept = await this.close().then(() => `; log: ${this.path}`, () => "");
    const remedy = /No space left on device/i.test(this.#text) || kept === ""
      ? "free some disk space and try again"
      : /CMAKE_CXX_COMPILER|compiler .*not found|not able to compile/i.test(this.#text)
      ? "install a C++ compiler (Debian: g++)"
      : /CMAKE_MAKE_PROGRAM|build program corresponding/i.test(this.#text)
      ? "install make or ninja (Debian: make)"
      : /virtual memory exhausted|Killed/i.test(this.#text)
      ? "free some memory and try again"
      : "see the log";
    return new Unsupported(`Cannot build native libraries: ${what}, ${remedy}${kept}`);
  }
}

async function run(log: Log, args: readonly string[], onLine: (line: string) => void): Promise<boolean> {
  const shell = ["-c", 'exec "$0" "$@" 2>&1', "cmake", ...args];
  // Both streams in order matter more than a shell saved, but a narrow grant may cover cmake only.
  const merged = mayRun("sh") ? { command: "sh", args: shell } : { command: "cmake", args: [...args] };
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(merged.command, { args: merged.args, stdin: "null", stdout: "piped", stderr: "piped" })
      .spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw noCmake();
    throw error;
  }
  await Promise.all([child.stdout, child.stderr].map(async (stream) => {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split(/\r?\n/);
      rest = lines.pop() as string;
      for (const line of lines) {
        log.add(line);
        onLine(line);
      }
    }
    if (rest !== "") log.add(rest);
  }));
  const status = await child.status;
  if (status.code === 127 && merged.command === "sh") throw noCmake();
  return status.success;
}

function noCmake(): Unsupported {
  return new Unsupported("Cannot build native libraries: cmake is not installed, install it (Debian: cmake g++ make)");
}

function mayRun(command: string): boolean {
  return Deno.permissions.querySync({ name: "run", command }).state === "granted";
}

async function runs(command: string): Promise<boolean> {
  if (!mayRun(command)) return false;
  try {
    return (await new Deno.Command(command, { args: ["--version"], stdout: "null", stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

/** Libraries kept beside the newest, for processes that still start from older sources. */
const KEPT = 4;

/** Removes all but the newest few. */
export async function removeOldest(folder: string, newest: string): Promise<void> {
  const builds: { path: string; made: number }[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (!entry.isDirectory || !/^[0-9a-f]{16}$/.test(entry.name) || entry.name === newest) continue;
    const path = `${folder}/${entry.name}`;
    builds.push({ path, made: (await Deno.stat(path)).mtime?.getTime() ?? 0 });
  }
  builds.sort((a, b) => b.made - a.made);
  for (const { path } of builds.slice(KEPT)) await Deno.remove(path, { recursive: true });
}

/** One line on a terminal, nothing in a pipe. */
export function progressLine(): BuildProgress {
  if (!Deno.stderr.isTerminal()) return () => {};
  return (done, total, detail) => {
    const share = total === 0 ? "" : ` ${Math.round(100 * done / total)} %`;
    Deno.stderr.writeSync(new TextEncoder().encode(`\r\u001b[KBuilding ${detail}${share}`));
  };
}

async function main(args: readonly string[]): Promise<number> {
  const [flag, value, ...rest] = args;
  const sanitize = flag === "--sanitize" && (value === "address" || value === "thread") ? value : undefined;
  const wellFormed = flag === undefined || (flag === "--test" && value === undefined) || sanitize !== undefined;
  if (!wellFormed || rest.length > 0) {
    console.error("usage: build.ts [--test | --sanitize address|thread]");
    return 2;
  }
  const started = performance.now();
  const existing = flag === undefined ? libraryPath() : undefined;
  try {
    const path = existing ??
      (flag === undefined ? await buildLibrary(progressLine()) : await buildTests(sanitize, progressLine()));
    if (existing === undefined) {
      const clear = Deno.stderr.isTerminal() ? "\r\u001b[K" : "";
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      console.error(`${clear}Built ${path.slice(path.lastIndexOf("/") + 1)} in ${seconds} s`);
    }
    if (flag === undefined) {
      console.log(path);
      return 0;
    }
    const child = new Deno.Command(path, { stdin: "null" }).spawn();
    return (await child.status).code;
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    console.error(error.message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
