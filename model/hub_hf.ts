/**
 * Hugging Face repositories: which files `hf:user/repo:quant` means, by the hub's API.
 *
 * @module
 */
import { HubError } from "./hub_errors.ts";

/** Where the hub is, and who asks. */
export interface HfAccess {
  /** Without a slash at the end. */
  readonly endpoint: string;
  /** Access token, for gated and private repositories. */
  readonly token: string | undefined;
  /** Stops requests. */
  readonly signal: AbortSignal | undefined;
}

/** `hf:user/repo:quant`, parsed. */
export interface HfReference {
  /** `user/name`. */
  readonly repo: string;
  /** Upper case, or undefined for the best that is there. */
  readonly quant: string | undefined;
}

/** One file to fetch. */
export interface RemoteFile {
  /** Path in the repository. */
  readonly name: string;
  /** Where to get it. */
  readonly url: string;
  /** 0 while unknown. */
  readonly bytes: number;
  /** In hex, where the hub knows it. */
  readonly sha256: string | undefined;
}

/** What a reference stands for. */
export interface HfModel {
  /** All that is needed. */
  readonly files: readonly RemoteFile[];
  /** What to open once they are there: a file's name, or "." for the folder. */
  readonly open: string;
  /** As the repository states it. */
  readonly license: string;
  /** The commit, so that all files are of one state. */
  readonly revision: string;
}

/** Parses `hf:user/repo` or `hf:user/repo:quant`; throws `HubError` when it is neither. */
export function parseHf(name: string): HfReference {
  const match = /^hf:([\w.-]+\/[\w.-]+)(?::([\w.-]+))?$/.exec(name);
  if (match === null) throw new HubError(`Cannot find model: "${name}" is not of the form hf:user/repo:quant`);
  return { repo: match[1] as string, quant: match[2]?.toUpperCase() };
}

/** Quantizations in the order of preference when none is named. */
const PREFERRED = ["Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16", "F32"];
const FOLDER_FILES =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|model\.safetensors\.index)\.json$|^chat_template\.jinja$|^model(-\d{5}-of-\d{5})?\.safetensors$/;

/** Asks the hub which files make up the model. Throws `HubError` with what the repository offers. */
export async function findFiles(reference: HfReference, access: HfAccess): Promise<HfModel> {
  const { repo, quant } = reference;
  const info = await repositoryInfo(repo, access);
  const revision = typeof info.sha === "string" && /^[0-9a-f]{40}$/.test(info.sha) ? info.sha : "main";
  const all = (Array.isArray(info.siblings) ? info.siblings : []).flatMap((s) => remoteFile(s, repo, revision, access));
  const license = typeof info.cardData?.license === "string" ? info.cardData.license : "unknown";
  const ggufs = all.filter((file) => /\.gguf$/i.test(file.name) && !/mmproj|imatrix/i.test(file.name));
  if (ggufs.length > 0) {
    const files = pickQuant(ggufs, quant, repo);
    return { files, open: baseName((files[0] as RemoteFile).name), license, revision };
  }
  const files = all.filter((file) => FOLDER_FILES.test(file.name));
  const has = (pattern: RegExp) => files.some((file) => pattern.test(file.name));
  if (quant !== undefined || !has(/^config\.json$/) || !has(/\.safetensors$/)) {
    throw new HubError(
      `Cannot find model: "${repo}" holds no GGUF file${quant ? "" : " and no config.json with safetensors"}`,
    );
  }
  return { files, open: ".", license, revision };
}

/** The (perhaps split) GGUF file of one quantization. */
export function pickQuant(files: readonly RemoteFile[], quant: string | undefined, repo: string): RemoteFile[] {
  const byQuant = new Map<string, RemoteFile[]>();
  for (const file of [...files].sort((a, b) => a.name < b.name ? -1 : 1)) {
    const found = quantOf(file.name);
    const list = byQuant.get(found);
    if (list === undefined) byQuant.set(found, [file]);
    else if (/-\d{5}-of-\d{5}\.gguf$/i.test(file.name)) list.push(file);
  }
  const wanted = quant ?? PREFERRED.find((q) => byQuant.has(q)) ?? [...byQuant.keys()][0] as string;
  const chosen = byQuant.get(wanted);
  if (chosen === undefined) {
    throw new HubError(
      `Cannot find model: "${repo}" has no ${wanted}, it has ${[...byQuant.keys()].sort().join(", ")}`,
    );
  }
  return chosen;
}

/** `Q4_K_M` out of `model-Q4_K_M-00001-of-00002.gguf`; the name without `.gguf` when it holds none. */
function quantOf(name: string): string {
  const stem = baseName(name).replace(/\.gguf$/i, "").replace(/-\d{5}-of-\d{5}$/, "").toUpperCase();
  const match = /(?:^|[-._])((?:UD-)?I?Q\d[A-Z0-9_]*|TQ\d_\d|MXFP4|BF16|F16|FP16|F32)$/.exec(stem);
  return match?.[1]?.replace("FP16", "F16") ?? stem;
}

interface RepositoryInfo {
  readonly sha?: unknown;
  readonly siblings?: unknown;
  readonly cardData?: { readonly license?: unknown } | null;
}

async function repositoryInfo(repo: string, { endpoint, token, signal }: HfAccess): Promise<RepositoryInfo> {
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const host = new URL(endpoint).host;
  let response: Response;
  try {
    response = await fetch(`${endpoint}/api/models/${repo}?blobs=true`, { headers, signal: signal ?? null });
  } catch (error) {
    signal?.throwIfAborted();
    throw new HubError(`Cannot find model: ${host} cannot be reached (${(error as Error).message})`);
  }
  if (!response.ok) {
    await response.body?.cancel();
    const remedy = response.status === 401 || response.status === 403
      ? ": it does not exist, or is private or gated; set HF_TOKEN"
      : response.status === 404
      ? ": there is no such repository"
      : "";
    throw new HubError(`Cannot find model: ${host} answers ${response.status} for "${repo}"${remedy}`);
  }
  try {
    const json: unknown = await response.json();
    if (typeof json === "object" && json !== null) return json;
  } catch {
    signal?.throwIfAborted();
  }
  throw new HubError(`Cannot find model: ${host} does not answer like a model hub for "${repo}"`);
}

/** Names out of the answer become paths here: plain ones only. */
function remoteFile(sibling: unknown, repo: string, revision: string, { endpoint }: HfAccess): RemoteFile[] {
  const { rfilename, size, lfs } = (sibling ?? {}) as {
    rfilename?: unknown;
    size?: unknown;
    lfs?: { sha256?: unknown };
  };
  if (typeof rfilename !== "string" || !/^[\w][\w.-]*(\/[\w][\w.-]*)*$/.test(rfilename)) return [];
  const sha256 = typeof lfs?.sha256 === "string" && /^[0-9a-f]{64}$/.test(lfs.sha256) ? lfs.sha256 : undefined;
  const bytes = typeof size === "number" && Number.isSafeInteger(size) && size > 0 ? size : 0;
  return [{ name: rfilename, url: fileUrl(endpoint, repo, revision, rfilename), bytes, sha256 }];
}

/** Where the hub serves a file. */
export function fileUrl(endpoint: string, repo: string, revision: string, file: string): string {
  return `${endpoint}/${repo}/resolve/${revision}/${file}`;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
