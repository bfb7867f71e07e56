/**
 * Opens a model on disk, whatever its kind: a GGUF file (or one part of a split one), or a Hugging Face folder.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import { fromGguf } from "./config.ts";
import { type GgufFile, openGguf } from "./gguf.ts";
import type { GgufValue } from "./gguf_values.ts";
import type { ModelConfig } from "./model.ts";
import { openFolder } from "./open_folder.ts";
import { readJsonFile, readSmallFile } from "./open_json.ts";
import { badFile } from "./open_source.ts";
import type { RopeOverride } from "./rope_override.ts";
import { type GenerationDefaults, ggufDefaults, hfDefaults } from "./open_defaults.ts";
import { FileWeights, type WeightEntry, type WeightOptions } from "./weights.ts";

/** What a tokenizer is made of. */
export type TokenizerSource =
  | { readonly kind: "gguf"; readonly path: string; readonly metadata: ReadonlyMap<string, GgufValue> }
  | {
    readonly kind: "json";
    /** The folder. */
    readonly path: string;
    /** tokenizer.json */
    readonly tokenizer: unknown;
    /** tokenizer_config.json, where there is one. */
    readonly tokenizerConfig: unknown;
    /** special_tokens_map.json, where there is one. */
    readonly specialTokens: unknown;
    /** generation_config.json, where there is one: it may name more tokens that end a generation. */
    readonly generationConfig: unknown;
    /** config.json */
    readonly config: unknown;
  };

/** A model whose headers are read and checked; its weights are not loaded yet. */
export interface OpenedModel extends Disposable {
  /** A GGUF file, or a folder of safetensors. */
  readonly kind: "gguf" | "safetensors";
  /** As it was named. */
  readonly path: string;
  /** Files that hold the weights. */
  readonly files: readonly string[];
  /** Checked hyperparameters. */
  readonly config: ModelConfig;
  /** Bytes of all tensors in the file. */
  readonly bytes: number;
  /** Element types of the matrices and how many bytes each takes, most first. */
  readonly types: ReadonlyMap<string, number>;
  /** Jinja source, where the model has one. */
  readonly chatTemplate: string | undefined;
  /** What the makers recommend for sampling. */
  readonly generationDefaults: GenerationDefaults;
  /** Tells files apart cheaply: sizes, times and tensor layout, not contents. */
  readonly fingerprint: string;
  /** Reads what the tokenizer needs (a folder's tokenizer.json only now). */
  tokenizerSource(): TokenizerSource;
  /** Loads tensors on `backend` as the architecture asks for them; then `finish()`, and this can be disposed. */
  openWeights(backend: Backend, options?: Omit<WeightOptions, "path">): FileWeights;
}

/**
 * Opens the model at `path`, with `rope` in place of what the file says of it. Throws `ModelFileError`: not found (with names
 * that come near), cut off, damaged or not supported.
 */
export function openModelFile(path: string, rope?: RopeOverride): OpenedModel {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw badFile(path, `no such file or folder${nearNames(path)}`);
    throw badFile(path, (error as Error).message);
  }
  return info.isDirectory ? openHf(path.replace(/\/+$/, "") || "/", rope) : openGgufModel(path, rope);
}

/** Tensors that say nothing new: frequencies are in the configuration already. */
const OPTIONAL = /^(rope_freqs\.weight|.*rot_embd.*)$/;

function openGgufModel(path: string, rope: RopeOverride | undefined): OpenedModel {
  const file = openGguf(path);
  try {
    const entries = new Map<string, WeightEntry>();
    for (const [name, entry] of file.tensors) entries.set(name, { ...entry, optional: OPTIONAL.test(name) });
    return {
      ...common("gguf", path, fromGguf(file, rope), entries, file.paths),
      chatTemplate: ggufTemplate(file),
      generationDefaults: ggufDefaults(file.metadata, path),
      tokenizerSource: () => ({ kind: "gguf", path, metadata: file.metadata }),
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function openHf(path: string, rope: RopeOverride | undefined): OpenedModel {
  const folder = openFolder(path, rope);
  try {
    const read = (name: string) => readJsonFile(`${path}/${name}`);
    const generationConfig = read("generation_config.json");
    const tokenizerConfig = read("tokenizer_config.json");
    return {
      ...common("safetensors", path, folder.config, folder.entries, folder.paths),
      chatTemplate: hfTemplate(path, tokenizerConfig),
      generationDefaults: hfDefaults(generationConfig, `${path}/generation_config.json`),
      tokenizerSource: () => {
        const tokenizer = read("tokenizer.json");
        if (tokenizer === undefined) throw badFile(path, "the folder has no tokenizer.json");
        const specialTokens = read("special_tokens_map.json");
        return { kind: "json", path, tokenizer, tokenizerConfig, specialTokens, generationConfig, config: folder.json };
      },
      [Symbol.dispose]: () => folder[Symbol.dispose](),
    };
  } catch (error) {
    folder[Symbol.dispose]();
    throw error;
  }
}

function common(
  kind: OpenedModel["kind"],
  path: string,
  config: ModelConfig,
  entries: ReadonlyMap<string, WeightEntry>,
  paths: readonly string[],
) {
  const types = new Map<string, number>();
  let bytes = 0;
  for (const entry of entries.values()) {
    bytes += entry.bytes;
    if (entry.shape.length > 1) types.set(entry.dtype, (types.get(entry.dtype) ?? 0) + entry.bytes);
  }
  return {
    kind,
    path,
    files: paths,
    config,
    bytes,
    types: new Map([...types].sort((a, b) => b[1] - a[1])),
    fingerprint: fingerprint(paths, entries),
    openWeights: (backend: Backend, options: Omit<WeightOptions, "path"> = {}) =>
      new FileWeights(backend, entries, { ...options, path }),
  };
}

/** FNV-1a over sizes, modification times and where each tensor lies. */
function fingerprint(paths: readonly string[], entries: ReadonlyMap<string, WeightEntry>): string {
  let hash = 0xcbf29ce484222325n;
  const add = (text: string) => {
    for (let i = 0; i < text.length; i++) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(text.charCodeAt(i))) * 0x100000001b3n);
    }
  };
  for (const path of paths) {
    const { size, mtime } = Deno.statSync(path);
    add(`${size}:${mtime?.getTime() ?? 0};`);
  }
  // A few names suffice beside sizes and times: hashing all of a large model's would cost milliseconds.
  let i = 0;
  for (const [name, { dtype, offset }] of entries) if (i++ < 16) add(`${name}:${dtype}:${offset};`);
  return hash.toString(16).padStart(16, "0");
}

function ggufTemplate(file: GgufFile): string | undefined {
  const template = file.metadata.get("tokenizer.chat_template") ?? file.metadata.get("tokenizer.chat_template.default");
  return typeof template === "string" ? template : undefined;
}

/** chat_template.jinja, or the (default) template of tokenizer_config.json. */
function hfTemplate(folder: string, tokenizerConfig: unknown): string | undefined {
  const file = readSmallFile(`${folder}/chat_template.jinja`);
  if (file !== undefined) return new TextDecoder().decode(file);
  const value = (tokenizerConfig as { chat_template?: unknown } | null | undefined)?.chat_template;
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const named = value.find((entry) => entry?.name === "default")?.template;
  return typeof named === "string" ? named : undefined;
}

/** `; near are "a", "b"`: names of the same folder that begin alike. */
function nearNames(path: string): string {
  const slash = path.lastIndexOf("/");
  const folder = slash < 0 ? "." : path.slice(0, slash) || "/";
  const name = path.slice(slash + 1).toLowerCase();
  try {
    const near = [...Deno.readDirSync(folder)].map((entry) => entry.name)
      .map((other) => ({ other, shared: sharedPrefix(other.toLowerCase(), name) }))
      .filter(({ shared }) => shared >= 3 && shared * 2 >= name.length)
      .sort((a, b) => b.shared - a.shared).slice(0, 3);
    return near.length === 0 ? "" : `; near are ${near.map(({ other }) => JSON.stringify(other)).join(", ")}`;
  } catch {
    return "";
  }
}

function sharedPrefix(a: string, b: string): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
}
