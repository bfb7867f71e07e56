/**
 * What goes wrong between a model's name and its file.
 *
 * @module
 */

/** A model that cannot be found, fetched or stored: `Cannot pull model: <state>, <remedy>`. */
export class HubError extends Error {
  /** For callers that compare names. */
  override readonly name = "HubError";
}

/** Turns a full disk or a refused permission into a {@link HubError}; gives other errors back as they are. */
export function storageError(error: unknown, where: string, bytes: number): unknown {
  const { code, message } = error as { code?: string; message?: string };
  if (code === "ENOSPC" || /no space left/i.test(message ?? "")) {
    const size = bytes > 0 ? `, the model takes ${Math.ceil(bytes / 1e6)} MB` : "";
    return new HubError(
      `Cannot pull model: no space left on the disk of "${where}"${size}; free some or set XDG_CACHE_HOME`,
    );
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return new HubError(`Cannot pull model: "${where}" is not writable; set XDG_CACHE_HOME`);
  }
  return error;
}
