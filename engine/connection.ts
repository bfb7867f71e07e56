/**
 * Matches replies with those who wait for them.
 *
 * @module
 */
import type { Progress, TokenEvent } from "./types.ts";
import type { Reply, Request } from "./protocol.ts";
import type { Link, Receiver } from "./link.ts";
import { fromRemote } from "./remote_error.ts";

/** A request before it has its id. */
export type Body<R = Request> = R extends { readonly id: number } ? Omit<R, "id"> : never;

/** Hears replies that no request asked for. */
export interface Observer {
  /** Of opening. */
  progress(progress: Progress): void;
  /** For the user to read. */
  notice(text: string): void;
}

interface Waiter {
  /** Of requests with one result. */
  result?(value: unknown): void;
  /** Of generations. */
  events?(events: readonly TokenEvent[]): void;
  error(error: Error): void;
}

/** The caller's end of a link. */
export class Connection implements Receiver {
  readonly #waiters = new Map<number, Waiter>();
  readonly #observer: Observer;
  #link: Link | undefined;
  #lastId = 0;
  /** Why nothing can be asked any more. */
  #gone: Error | undefined;

  /** Attach a link before asking. */
  constructor(observer: Observer) {
    this.#observer = observer;
  }

  /** Whether the other side crashed or was closed. */
  get isGone(): boolean {
    return this.#gone !== undefined;
  }

  /** Uses `link` from now on. */
  attach(link: Link): void {
    this.#link = link;
  }

  /** Sends a request with one result; aborting the signal cancels it and rejects with the signal's reason. */
  ask<T>(body: Body, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#send(body, {
        result: (value) => {
          signal?.removeEventListener("abort", cancel);
          resolve(value as T);
        },
        error: (error) => {
          signal?.removeEventListener("abort", cancel);
          reject(signal?.aborted ? signal.reason : error);
        },
      });
      const cancel = () => body.type === "open" ? this.#link?.abort() : this.cancel(id);
      if (signal?.aborted) cancel();
      else signal?.addEventListener("abort", cancel);
    });
  }

  /** Sends a generation; its events go to `events` until the last, unless `error` comes first. */
  stream(
    body: Body,
    events: (events: readonly TokenEvent[]) => void,
    error: (error: Error) => void,
  ): number {
    return this.#send(body, { events, error });
  }

  /** Cancels a request; its end is still reported. */
  cancel(id: number): void {
    if (this.#waiters.has(id)) this.#link?.send({ type: "cancel", id });
  }

  /** Ends the other side; who still waits gets `reason`. */
  close(reason: Error): void {
    this.crashed(reason);
  }

  /** Delivers one reply. */
  reply(reply: Reply): void {
    if (reply.type === "progress") return this.#observer.progress(reply.progress);
    if (reply.type === "notice") return this.#observer.notice(reply.text);
    if (reply.type === "events") {
      for (const { id, events } of reply.all) {
        const waiter = this.#waiters.get(id);
        if (events.at(-1)?.type === "done") this.#waiters.delete(id);
        waiter?.events?.(events);
      }
      return;
    }
    const waiter = this.#waiters.get(reply.id);
    this.#waiters.delete(reply.id);
    if (reply.type === "error") waiter?.error(fromRemote(reply.error));
    else waiter?.result?.(reply.value);
  }

  /** The other side is gone: everybody who waits is told, and so is everybody who asks later. */
  crashed(error: Error): void {
    if (this.#gone !== undefined) return;
    this.#gone = error;
    this.#link?.close();
    const waiters = [...this.#waiters.values()];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.error(error);
  }

  #send(body: Body, waiter: Waiter): number {
    const id = ++this.#lastId;
    if (this.#gone !== undefined || this.#link === undefined) {
      waiter.error(this.#gone ?? new TypeError("Cannot use engine: it is not open"));
      return id;
    }
    this.#waiters.set(id, waiter);
    this.#link.send({ ...body, id } as Request);
    return id;
  }
}
