/**
 * The models on this machine: one folder each under `${XDG_CACHE_HOME:-~/.cache}/kvasir/models`, with the files and a
 * `manifest.json` that is written last, so that a folder without one is not a model yet.
 *
 * @module
 */
import { CATALOG, DEFAULT_MODEL } from "./hub_catalog.ts";
import { HubError } from "./hub_errors.ts";

/** What is known of an installed model. */
export interface Manifest {
  /** Of this format. */
  readonly version: 1;
  /** As one names it: `smollm2-135m-instruct`, `hf:user/repo:Q4_K_M`. */
  readonly name: string;
  /** What to open, within the model's folder. */
  readonly open: string;
  /** What the model consists of. */
  readonly files: readonly StoredFile[];
  /** Of all files. */
  readonly bytes: number;
  /** Where it came from, in words. */
  readonly source: string;
  /** As stated by the source. */
  readonly license: string;
  /** ISO date of the download. */
  readonly pulled: string;
}

/** One file of a model. */
export interface StoredFile {
  /** Name within the folder. */
  readonly file: string;
  /** Size. */
  readonly bytes: number;
  /** In hex. */
  readonly sha256: string;
}

/** One line of `models list`. */
export interface ModelListing {
  /** What to call it. */
  readonly name: string;
  /** Whether it is here. */
  readonly installed: boolean;
  /** Whether it runs when none is named. */
  readonly isDefault: boolean;
  /** On disk, or to download. */
  readonly bytes: number;
  /** As stated by the source. */
  readonly license: string;
  /** What to open; undefined until it is installed. */
  readonly path: string | undefined;
  /** One line about it. */
  readonly summary: string;
}

/** The models' folder; throws `HubError` when no home is known. */
export function modelsDir(): string {
  const cache = Deno.env.get("XDG_CACHE_HOME");
  if (cache !== undefined && cache.startsWith("/")) return `${cache}/kvasir/models`;
  const home = Deno.env.get("HOME");
  if (home === undefined || home === "") throw new HubError("Cannot find models: HOME is not set; set XDG_CACHE_HOME");
  return `${home}/.cache/kvasir/models`;
}

/** The folder of model `name` under `dir`. */
export function folderOf(dir: string, name: string): string {
  const slug = name.replace(/^https?:\/\//, "").replace(/[^\w.-]+/g, "--").replace(/^\.+/, "");
  if (slug === "" || slug.length > 200) throw new HubError(`Cannot find model: "${name}" is no model's name`);
  return `${dir}/${slug}`;
}

/** The manifest of `name`, or undefined when it is not (wholly) installed. */
export function readManifest(dir: string, name: string): Manifest | undefined {
  const folder = folderOf(dir, name);
  let manifest: unknown;
  try {
    manifest = JSON.parse(Deno.readTextFileSync(`${folder}/manifest.json`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (!isManifest(manifest)) return undefined;
  for (const { file, bytes } of manifest.files) if (sizeOf(`${folder}/${file}`) !== bytes) return undefined;
  return manifest;
}

/** Whether a damaged, or somebody else's, file is none of ours; names must stay in the model's folder. */
function isManifest(value: unknown): value is Manifest {
  const { version, name, open, files, bytes, source, license, pulled } = (value ?? {}) as Partial<Manifest>;
  return version === 1 && typeof bytes === "number" && isFileName(open) &&
    [name, source, license, pulled].every((text) => typeof text === "string") &&
    Array.isArray(files) && files.every((file) => isFileName(file?.file) && typeof file.bytes === "number");
}

function isFileName(value: unknown): boolean {
  return value === "." || (typeof value === "string" && /^\w[\w.-]*$/.test(value));
}

/** Writes the manifest atomically. */
export function writeManifest(dir: string, manifest: Manifest): void {
  const path = `${folderOf(dir, manifest.name)}/manifest.json`;
  Deno.writeTextFileSync(`${path}.partial`, JSON.stringify(manifest, undefined, 2) + "\n");
  Deno.renameSync(`${path}.partial`, path);
}

/** The path to open for an installed model. */
export function modelPath(dir: string, manifest: Manifest): string {
  const folder = folderOf(dir, manifest.name);
  return manifest.open === "." ? folder : `${folder}/${manifest.open}`;
}

/** Known models and installed ones, known ones first. */
export function listModels(dir: string = modelsDir()): ModelListing[] {
  const listings: ModelListing[] = [];
  for (const [name, entry] of Object.entries(CATALOG)) {
    const manifest = readManifest(dir, name);
    listings.push({
      name,
      installed: manifest !== undefined,
      isDefault: name === DEFAULT_MODEL,
      bytes: entry.bytes,
      license: entry.license,
      path: manifest === undefined ? undefined : modelPath(dir, manifest),
      summary: entry.summary,
    });
  }
  for (const manifest of installed(dir)) {
    if (Object.hasOwn(CATALOG, manifest.name)) continue;
    const { name, bytes, license, source } = manifest;
    const path = modelPath(dir, manifest);
    listings.push({ name, installed: true, isDefault: false, bytes, license, path, summary: source });
  }
  return listings;
}

/** The manifest and path of an installed model; throws `HubError` when it is not installed. */
export function showModel(name: string, dir: string = modelsDir()): { manifest: Manifest; path: string } {
  const manifest = readManifest(dir, name);
  if (manifest === undefined) throw notInstalled("show", name, dir);
  return { manifest, path: modelPath(dir, manifest) };
}

/** Removes a model and what is left of interrupted downloads of it; returns the bytes freed. */
export function removeModel(name: string, dir: string = modelsDir()): number {
  const folder = folderOf(dir, name);
  const bytes = bytesUnder(folder);
  if (bytes === undefined) throw notInstalled("remove", name, dir);
  Deno.removeSync(folder, { recursive: true });
  return bytes;
}

function notInstalled(action: string, name: string, dir: string): HubError {
  const names = installed(dir).map((m) => m.name);
  const there = names.length === 0 ? "none is" : `installed are ${names.join(", ")}`;
  return new HubError(`Cannot ${action} model: "${name}" is not installed, ${there}`);
}

function installed(dir: string): Manifest[] {
  const manifests: Manifest[] = [];
  try {
    for (const entry of Deno.readDirSync(dir)) {
      if (!entry.isDirectory) continue;
      const manifest = readManifest(dir, entry.name);
      // The folder's name is made from the model's: one that does not match was not put here by us.
      if (manifest !== undefined && folderOf(dir, manifest.name) === `${dir}/${entry.name}`) manifests.push(manifest);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return manifests.sort((a, b) => a.name < b.name ? -1 : 1);
}

function sizeOf(path: string): number | undefined {
  try {
    return Deno.statSync(path).size;
  } catch {
    return undefined;
  }
}

function bytesUnder(folder: string): number | undefined {
  try {
    let bytes = 0;
    for (const entry of Deno.readDirSync(folder)) {
      const path = `${folder}/${entry.name}`;
      bytes += (entry.isDirectory ? bytesUnder(path) : sizeOf(path)) ?? 0;
    }
    return bytes;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
