/**
 * `response_format` and `grammar`: what an answer's text must look like.
 *
 * @module
 */
import { compileGrammar, type Grammar } from "../engine/grammar.ts";
import type { CommonBody } from "./fields.ts";
import { ApiError } from "./errors.ts";

/** Undefined: anything goes. Throws 400 naming the keyword of a schema, or the line of a grammar, that is not understood. */
export function grammarOf({ response_format: format, grammar }: CommonBody): Grammar | undefined {
  if (grammar !== null && grammar !== undefined) {
    if (format !== null && format !== undefined && format.type !== "text") {
      throw new ApiError(
        "invalid_request_error",
        "Cannot use grammar: response_format says already what the answer is",
        {
          param: "grammar",
        },
      );
    }
    return checked({ gbnf: grammar }, "grammar");
  }
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
