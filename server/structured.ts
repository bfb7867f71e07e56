/**
 * `response_format`: what an answer's text must look like.
 *
 * @module
 */
import { compileGrammar, type Grammar } from "../engine/grammar.ts";
import type { CommonBody } from "./fields.ts";
import { ApiError } from "./errors.ts";

/** Undefined: anything goes. Throws 400 naming the keyword of a schema that is not understood. */
export function grammarOf(format: CommonBody["response_format"]): Grammar | undefined {
  if (format === null || format === undefined || format.type === "text") return undefined;
  if (format.type === "json_object") return checked({ json: format.schema ?? true }, "response_format.schema");
  return checked({ json: format.json_schema.schema }, "response_format.json_schema.schema");
}

/** The grammar, once it is known to be one. */
export function checked<G extends Grammar | undefined>(grammar: G, param: string): G {
  try {
    if (grammar !== undefined) compileGrammar(grammar);
    return grammar;
  } catch (error) {
    if (error instanceof RangeError) throw new ApiError("invalid_request_error", error.message, { param });
    throw error;
  }
}
