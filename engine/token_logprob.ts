/**
 * Tokens with their log-probability, as callers see them.
 *
 * @module
 */
import type { Tokenizer } from "../model/model.ts";
import type { TokenLogprob } from "./types.ts";

/** A token's bytes, also as text. */
export function tokenLogprob(tokenizer: Tokenizer, token: number, logprob: number): TokenLogprob {
  const bytes = tokenizer.bytes(token);
  return { token, text: new TextDecoder().decode(bytes), bytes: [...bytes], logprob };
}
