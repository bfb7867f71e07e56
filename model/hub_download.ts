/**
 * Downloads one file over HTTP so that an interruption costs nothing: what has arrived stays beside the target as
 * `.partial`, and the next attempt asks for the rest, if the server still has the same file (by its ETag).
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { HubError, storageError } from "./hub_errors.ts";

/** One download. */
export interface DownloadOptions {
  /** http or https. */
  readonly url: string;
  /** Where the finished file goes; written atomically. */
  readonly to: string;
  /** Sent to the origin of `url` only. */
  readonly token?: string | undefined;
  /** Expected size, where known. */
  readonly bytes?: number | undefined;
  /** Expected SHA-256 in hex, where known. */
  readonly sha256?: string | undefined;
  /** Stops it, leaving the partial file. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes of this file on disk, and in all (0 while unknown). */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Milliseconds before the first retry, doubled each time. */
  readonly retryMs?: number;
}

const ATTEMPTS = 5;
const MAX_REDIRECTS = 5;

/** Fetches the file and returns its SHA-256. Throws `HubError`; an abort leaves a partial file to go on from. */
export async function download(o: DownloadOptions): Promise<string> {
  const partial = `${o.to}.partial`;
  for (let attempt = 1;; attempt++) {
    try {
      const sha256 = await attemptOnce(o, partial);
      Deno.renameSync(partial, o.to);
      removeIfThere(`${partial}.etag`);
      return sha256;
    } catch (error) {
      o.signal?.throwIfAborted();
      if (error instanceof HubError) throw error;
      const stored = storageError(error, o.to, o.bytes ?? 0);
      if (stored instanceof HubError) throw stored;
      if (attempt === ATTEMPTS) {
        throw new HubError(
          `Cannot pull model: ${hostOf(o.url)} did not deliver "${baseName(o.to)}" (${(error as Error).message}); ` +
            `run the command again to go on`,
        );
      }
      await sleep((o.retryMs ?? 500) * 2 ** (attempt - 1), o.signal);
    }
  }
}

async function attemptOnce(o: DownloadOptions, partial: string): Promise<string> {
  const hash = createHash("sha256");
  let have = await hashPartial(partial, hash, o.signal);
  const etag = have > 0 ? readText(`${partial}.etag`) : undefined;
  if (have > 0 && etag === undefined) have = 0;
  const headers = new Headers();
  if (have > 0 && etag !== undefined) {
    headers.set("range", `bytes=${have}-`);
    headers.set("if-range", etag);
  }
  const response = await follow(o, headers);
  if (response.status === 416) {
    await response.body?.cancel();
    // Nothing is left to send: the last attempt was stopped between the last byte and the renaming.
    if (response.headers.get("content-range") === `bytes */${have}`) return checked(hash, o, partial);
    removeIfThere(partial);
    throw new Error("the partial file was too long");
  }
  if (!response.ok) {
    await response.body?.cancel();
    if (response.status >= 500 || response.status === 429) throw new Error(`status ${response.status}`);
    throw new HubError(refusal(response.status, o));
  }
  const resumed = response.status === 206 && startOf(response) === have;
  if (response.status === 206 && !resumed) {
    await response.body?.cancel();
    removeIfThere(partial);
    throw new Error("the server sent another range than asked for");
  }
  const fresh = resumed ? hash : createHash("sha256");
  let done = resumed ? have : 0;
  const length = Number(response.headers.get("content-length") ?? NaN);
  const total = Number.isFinite(length) ? done + length : o.bytes ?? 0;
  if (o.bytes !== undefined && Number.isFinite(length) && total !== o.bytes) {
    await response.body?.cancel();
    throw new HubError(
      `Cannot pull model: "${baseName(o.to)}" has ${total} bytes on ${hostOf(o.url)}, ${o.bytes} expected`,
    );
  }
  const tag = response.headers.get("etag");
  if (tag !== null && !tag.startsWith("W/")) Deno.writeTextFileSync(`${partial}.etag`, tag);
  else removeIfThere(`${partial}.etag`);

  using file = Deno.openSync(partial, { write: true, create: true, append: resumed, truncate: !resumed });
  o.onProgress?.(done, total);
  for await (const chunk of response.body ?? []) {
    o.signal?.throwIfAborted();
    fresh.update(chunk);
    writeAll(file, chunk);
    done += chunk.length;
    if (o.bytes !== undefined && done > o.bytes) {
      throw new HubError(`Cannot pull model: ${hostOf(o.url)} sent too much`);
    }
    o.onProgress?.(done, total);
  }
  if (total > 0 && done < total) throw new Error(`connection ended after ${done} of ${total} bytes`);
  file.syncDataSync();
  return checked(fresh, o, partial);
}

function checked(hash: Hash, o: DownloadOptions, partial: string): string {
  const sha256 = hash.digest("hex");
  if (o.sha256 !== undefined && sha256 !== o.sha256) {
    removeIfThere(partial);
    removeIfThere(`${partial}.etag`);
    throw new HubError(
      `Cannot pull model: "${baseName(o.to)}" from ${hostOf(o.url)} has sha256 ${sha256}, ${o.sha256} expected; ` +
        `it was removed`,
    );
  }
  return sha256;
}

/** Follows redirects by hand: a token must not travel to another host. */
async function follow(o: DownloadOptions, headers: Headers): Promise<Response> {
  let url = new URL(o.url);
  const home = url.origin;
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const own = new Headers(headers);
    if (o.token !== undefined && url.origin === home) own.set("authorization", `Bearer ${o.token}`);
    // Compressed transfers would make ranges and lengths mean something else.
    own.set("accept-encoding", "identity");
    const response = await fetch(url, { headers: own, redirect: "manual", signal: o.signal ?? null });
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || location === null) return response;
    await response.body?.cancel();
    url = new URL(location, url);
    if (url.protocol !== "https:" && url.protocol !== "http:") break;
  }
  throw new HubError(`Cannot pull model: ${hostOf(o.url)} redirects too often`);
}

function refusal(status: number, o: DownloadOptions): string {
  const what = `Cannot pull model: ${hostOf(o.url)} answers ${status} for "${baseName(o.to)}"`;
  if (status === 401 || status === 403) {
    return `${what}, ${
      o.token === undefined ? "set HF_TOKEN" : "the token has no access: accept the model's terms there"
    }`;
  }
  return status === 404 ? `${what}, check its name` : what;
}

function startOf(response: Response): number {
  return Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? NaN);
}

async function hashPartial(path: string, hash: Hash, signal: AbortSignal | undefined): Promise<number> {
  let bytes = 0;
  try {
    const file = await Deno.open(path);
    for await (const chunk of file.readable) {
      signal?.throwIfAborted();
      hash.update(chunk);
      bytes += chunk.length;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return bytes;
}

/** Writes all of `bytes`. */
export function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

/** Removes a file; it is fine when there is none. */
export function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

function hostOf(url: string): string {
  return new URL(url).host;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
