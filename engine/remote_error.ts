/**
 * Errors that cross threads: structured cloning keeps neither our classes nor their fields.
 *
 * @module
 */
import { HubError } from "../model/hub_errors.ts";
import {
  ContextError,
  type ContextErrorKind,
  DoesNotFit,
  ModelFileError,
  NativeError,
  Unsupported,
} from "../core/errors.ts";

/** An error as it is posted. */
export interface RemoteError {
  /** Of its class. */
  readonly name: string;
  /** As thrown. */
  readonly message: string;
  /** Of the other thread. */
  readonly stack?: string;
  /** Of a `NativeError`. */
  readonly code?: number;
  /** Of a `ContextError`. */
  readonly kind?: ContextErrorKind;
  /** As kind. */
  readonly field?: string;
  /** Of a `DoesNotFit`. */
  readonly counts?: { readonly promptTokens: number; readonly ctxSize: number };
}

type Maker = (error: RemoteError) => Error;

const CLASSES: Readonly<Record<string, Maker>> = {
  NativeError: (e) => new NativeError(e.code ?? -1, e.message),
  Unsupported: (e) => new Unsupported(e.message),
  ModelFileError: (e) => new ModelFileError(e.message),
  HubError: (e) => new HubError(e.message),
  DoesNotFit: (e) => new DoesNotFit(e.message, e.counts),
  ContextError: (e) => new ContextError(e.kind ?? "missing", e.message, e.field),
  RangeError: (e) => new RangeError(e.message),
  TypeError: (e) => new TypeError(e.message),
  SyntaxError: (e) => new SyntaxError(e.message),
  NotFound: (e) => new Deno.errors.NotFound(e.message),
  NotCapable: (e) => new Deno.errors.NotCapable(e.message),
  PermissionDenied: (e) => new Deno.errors.PermissionDenied(e.message),
  AbortError: (e) => new DOMException(e.message, "AbortError"),
};

/** What is posted of anything thrown. */
export function toRemote(error: unknown): RemoteError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message, stack } = error;
  return {
    name,
    message,
    ...(stack === undefined ? {} : { stack }),
    ...(error instanceof NativeError ? { code: error.code } : {}),
    ...(error instanceof ContextError ? { kind: error.kind } : {}),
    ...(error instanceof ContextError && error.field !== undefined ? { field: error.field } : {}),
    ...(error instanceof DoesNotFit && error.counts !== undefined ? { counts: error.counts } : {}),
  };
}

/** An error of the class that was thrown on the other side, with its message and stack. */
export function fromRemote(remote: RemoteError): Error {
  const make = Object.hasOwn(CLASSES, remote.name) ? CLASSES[remote.name] : undefined;
  const error = make?.(remote) ?? new Error(remote.message);
  if (remote.stack !== undefined && !(error instanceof DOMException)) error.stack = remote.stack;
  return error;
}
