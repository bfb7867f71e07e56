/**
 * Errors as clients see them: one JSON shape, OpenAI's, with llama.cpp's types. No stack, no path.
 *
 * @module
 */
import {
  ContextError,
  type ContextErrorKind,
  DoesNotFit,
  NATIVE_STATUS,
  NativeError,
  Unsupported,
} from "../core/errors.ts";

/** Every type of error, and the status it comes with. */
export const ERROR_STATUS = {
  invalid_request_error: 400,
  exceed_context_size_error: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  method_not_allowed_error: 405,
  conflict_error: 409,
  context_mismatch_error: 409,
  payload_too_large_error: 413,
  unsupported_media_type_error: 415,
  rate_limit_error: 429,
  server_error: 500,
  not_supported_error: 501,
  unavailable_error: 503,
  timeout_error: 504,
  insufficient_memory_error: 507,
} as const;

/** A key of {@link ERROR_STATUS}. */
export type ErrorType = keyof typeof ERROR_STATUS;

/** What an error may carry besides its message. */
export interface ErrorDetails {
  /** The field that is wrong, as a path: `messages.0.role`. */
  readonly param?: string;
  /** More fields of the body's `error`. */
  readonly more?: Readonly<Record<string, number>>;
  /** Of the answer. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** An error that a client is told of. */
export class ApiError extends Error {
  /** For logs. */
  override readonly name = "ApiError";

  /** `message` is one sentence for the client. */
  constructor(readonly type: ErrorType, message: string, readonly details: ErrorDetails = {}) {
    super(message);
  }

  /** Of the answer. */
  get status(): (typeof ERROR_STATUS)[ErrorType] {
    return ERROR_STATUS[this.type];
  }

  /** The answer's body, or the last event of a stream. */
  get body(): { readonly error: Readonly<Record<string, unknown>> } {
    const { param = null, more } = this.details;
    return { error: { message: this.message, type: this.type, param, code: this.status, ...more } };
  }

  /** As an answer. */
  response(): Response {
    return Response.json(this.body, { status: this.status, headers: { ...this.details.headers } });
  }
}

/** What a client is told of anything thrown; `report` gets what it is not told. */
export function toApiError(error: unknown, report: (error: unknown) => void): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof DoesNotFit) {
    if (error.counts === undefined) return new ApiError("insufficient_memory_error", line(error));
    const { promptTokens, ctxSize } = error.counts;
    return new ApiError("exceed_context_size_error", line(error), {
      more: { n_prompt_tokens: promptTokens, n_ctx: ctxSize },
    });
  }
  if (error instanceof ContextError) return new ApiError(CONTEXT_ERRORS[error.kind], line(error));
  // Engine, template and specs report wrong values so; whatever else is out of range is a fault of ours.
  if (error instanceof RangeError && ASKED.test(error.message)) {
    return new ApiError("invalid_request_error", line(error));
  }
  if (error instanceof Unsupported) return new ApiError("not_supported_error", line(error));
  report(error);
  if (error instanceof NativeError && error.code === NATIVE_STATUS.MEMORY) {
    return new ApiError("insufficient_memory_error", "Cannot answer: memory is exhausted, try a shorter prompt");
  }
  return new ApiError("server_error", "Cannot answer: something failed within the server, its log says what");
}

/** What errors about a client's wishes begin with. */
const ASKED =
  /^Cannot (?:detokenize|find|fork context|generate|keep context|look at|name context|read spec|render|use)\b/;

const CONTEXT_ERRORS: Readonly<Record<ContextErrorKind, ErrorType>> = {
  missing: "not_found_error",
  exists: "conflict_error",
  mismatch: "context_mismatch_error",
  damaged: "server_error",
  full: "insufficient_memory_error",
};

/** Paths are nobody's business. */
function line(error: Error): string {
  return (error.message.split("\n", 1)[0] ?? "").replace(/(?:file:\/\/|\/)(?:[\w.@+-]+\/)+[\w.@+-]+/g, "a file");
}
