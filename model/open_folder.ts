/**
 * Opens a model folder as Hugging Face's `transformers` writes it: config.json and safetensors, in one file or several.
 *
 * @module
 */
import { fromHf } from "./config.ts";
import type { ModelConfig } from "./model.ts";
import { readJsonFile } from "./open_json.ts";
import type { RopeOverride } from "./rope_override.ts";
import { badFile, FileSource, quoted, shown, type TensorEntry } from "./open_source.ts";
import { parseSafetensors } from "./safetensors.ts";
import { mapName } from "./safetensors_names.ts";
import type { WeightEntry } from "./weights.ts";

const MAX_SHARDS = 1024;

/** A parsed folder; its files stay open until disposed. */
export interface ModelFolder extends Disposable {
  /** Checked hyperparameters. */
  readonly config: ModelConfig;
  /** The parsed config.json. */
  readonly json: unknown;
  /** By canonical names. */
  readonly entries: ReadonlyMap<string, WeightEntry>;
  /** The weight files. */
  readonly paths: readonly string[];
}

/** Parses the folder's configuration and the headers of its weight files; throws `ModelFileError`. */
export function openFolder(folder: string, rope?: RopeOverride): ModelFolder {
  const configPath = `${folder}/config.json`;
  const json = readJsonFile(configPath);
  if (json === undefined) throw badFile(folder, `the folder has no config.json${ggufFiles(folder)}`);
  const { config, tied } = fromHf(json, configPath, rope);
  const sources: FileSource[] = [];
  const dispose = () => sources.forEach((source) => source.close());
  try {
    const tensors = new Map<string, TensorEntry>();
    for (const { path, only } of shards(folder)) {
      const source = new FileSource(path);
      sources.push(source);
      const found = parseSafetensors(source);
      for (const name of only ?? found.keys()) {
        const entry = found.get(name);
        if (entry === undefined) throw badFile(path, `tensor ${quoted(name)}, which the index puts here, is missing`);
        tensors.set(name, entry);
      }
    }
    const entries = canonicalEntries(tensors, config, tied, folder);
    return { config, json, entries, paths: sources.map((s) => s.path), [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** The folder's tensors under canonical names; throws `ModelFileError` when two claim one name or the output is missing. */
export function canonicalEntries(
  tensors: ReadonlyMap<string, TensorEntry>,
  config: ModelConfig,
  tied: boolean,
  folder: string,
): Map<string, WeightEntry> {
  const entries = new Map<string, WeightEntry>();
  for (const [hfName, entry] of tensors) {
    const mapped = mapName(hfName, config.architecture);
    // A file may carry the output matrix although the configuration says it is the embedding table.
    if (mapped === undefined || (tied && mapped.name === "output.weight")) continue;
    if (entries.has(mapped.name)) throw badFile(entry.source.path, `tensor ${quoted(hfName)} occurs twice`);
    entries.set(mapped.name, { ...entry, addOne: mapped.addOne });
  }
  if (!tied && !entries.has("output.weight")) {
    throw badFile(folder, 'tensor "lm_head.weight" is missing, and config.json does not tie it to the embedding');
  }
  return entries;
}

/** One weight file of a folder. */
export interface Shard {
  /** Within the folder. */
  /** Within the folder. */
  readonly path: string;
  /** The tensors wanted from it; all when undefined. */
  readonly only: readonly string[] | undefined;
}

function shards(folder: string): Shard[] {
  const single = `${folder}/model.safetensors`;
  if (exists(single)) return [{ path: single, only: undefined }];
  const indexPath = `${folder}/model.safetensors.index.json`;
  const index = readJsonFile(indexPath) as { weight_map?: unknown } | undefined | null;
  if (index === undefined) {
    const state = exists(`${folder}/pytorch_model.bin`)
      ? "weights are in pytorch_model.bin, save them as safetensors"
      : "the folder has neither model.safetensors nor model.safetensors.index.json";
    throw badFile(folder, state);
  }
  const map = index?.weight_map;
  if (typeof map !== "object" || map === null) throw badFile(indexPath, "weight_map is missing");
  return readIndex(map as Readonly<Record<string, unknown>>, folder, indexPath);
}

/** Shards of an index in order of first mention; only plain file names of this folder are taken. */
export function readIndex(map: Readonly<Record<string, unknown>>, folder: string, indexPath: string): Shard[] {
  const byFile = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/.test(file)) {
      throw badFile(
        indexPath,
        `tensor ${quoted(tensor)} lies in ${shown(file)}, a safetensors file of this folder is needed`,
      );
    }
    const list = byFile.get(file);
    if (list === undefined) byFile.set(file, [tensor]);
    else list.push(tensor);
  }
  if (byFile.size > MAX_SHARDS) throw badFile(indexPath, `${byFile.size} files, at most ${MAX_SHARDS} possible`);
  return [...byFile].map(([file, only]) => ({ path: `${folder}/${file}`, only }));
}

/** `; it holds "a.gguf", name one`: people name the folder of a file they downloaded. */
function ggufFiles(folder: string): string {
  const names = [...Deno.readDirSync(folder)].map((entry) => entry.name).filter((name) => name.endsWith(".gguf"));
  return names.length === 0 ? "" : `; it holds ${names.sort().slice(0, 3).map(quoted).join(", ")}, name the file`;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
