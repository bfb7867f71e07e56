/**
 * What a context was made with: whoever differs in one field would go on with keys and values that are not its own.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Fingerprint } from "./context_types.ts";
import type { Loaded } from "./loaded.ts";
import denoJson from "../deno.json" with { type: "json" };

/** Of what is open; policy and index are each context's own. */
export function fingerprint(loaded: Loaded, kvType: string): Omit<Fingerprint, "policy" | "index"> {
  const { model, tokenizer } = loaded.identify();
  const rope = createHash("sha256");
  for (const { rope: r } of loaded.model.config.layers) {
    rope.update(r === undefined ? "none" : JSON.stringify([r.dims, r.pairing, r.magnitude]));
    if (r !== undefined) {
      rope.update(new Uint8Array(r.frequencies.buffer, r.frequencies.byteOffset, r.frequencies.byteLength));
    }
  }
  return { model, tokenizer, kvType, rope: rope.digest("hex").slice(0, 16), version: denoJson.version };
}
