/**
 * The life of one request: its place among all, its time limit, and an ear for the client's leaving.
 *
 * @module
 */
import { ApiError } from "./errors.ts";

/** What a generation holds besides the engine: a place, a time limit, an ear for the client's leaving. */
export class Life implements Disposable {
  /** Whether its time was up. */
  isLate = false;
  readonly #controller = new AbortController();
  readonly #place: Disposable;
  readonly #client: AbortSignal;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #end = () => this.end();

  /** Ends by itself with `client`, or after `timeoutMs`. */
  constructor(place: Disposable, client: AbortSignal, timeoutMs: number) {
    this.#place = place;
    this.#client = client;
    this.#timer = setTimeout(() => {
      this.isLate = true;
      this.end();
    }, timeoutMs);
    if (client.aborted) this.end();
    else client.addEventListener("abort", this.#end);
  }

  /** Aborted when it ends early. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The work is to stop. */
  end(): void {
    this.#controller.abort();
  }

  /** The work is over. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#client.removeEventListener("abort", this.#end);
    this.#place[Symbol.dispose]();
  }
}

/** What a request gets that was ended. */
export function cancelled(isLate: boolean): ApiError {
  if (isLate) return new ApiError("timeout_error", "Cannot finish: the request took longer than the server allows");
  return new ApiError("unavailable_error", "Cannot finish: the request was cancelled, or the server is shutting down");
}
