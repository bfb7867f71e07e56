/**
 * What a context file says of itself: the section `about`, JSON (docs/context_file.md).
 *
 * @module
 */
import type { Message } from "../model/model.ts";
import type { Fingerprint } from "./context_types.ts";
import { ContextError } from "../core/errors.ts";

/** See the module's head. */
export interface ContextAbout {
  /** Of this format. */
  readonly version: 1;
  /** `ctx_…` */
  readonly id: string;
  /** Tokens whose keys and values the file holds. */
  readonly tokens: number;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  /** 0: for ever. */
  readonly ttlSeconds: number;
  /** Id of the context that it began with. */
  readonly parent?: string;
  /** The caller's. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Only what has the same key begins with it of its own accord. */
  readonly share: string;
  /** The conversation that the tokens came from. */
  readonly messages?: readonly Message[];
  /** What it was made with. */
  readonly fingerprint: Fingerprint;
  /** Geometry of each layer's keys and values. */
  readonly layers: readonly { readonly kvHeads: number; readonly headDim: number; readonly hasIndex: boolean }[];
}

const MOST_BYTES = 64 << 20;
const MOST_LAYERS = 4096;
const MOST_TOKENS = 2 ** 27;
const FIELDS = ["model", "tokenizer", "kvType", "rope", "version", "policy", "index"] as const;
const REMEDIES: Readonly<Record<(typeof FIELDS)[number], string>> = {
  model: "use that model (-m), or make the context anew",
  tokenizer: "use that model (-m), or make the context anew",
  kvType: "give it with --cache-type-k and --cache-type-v, or make the context anew",
  rope: "give the same --rope flags, or make the context anew",
  version: "make the context anew",
  policy: "give it with --policy and --index, or make the context anew",
  index: "give it with --index, or make the context anew",
};

/** As bytes of the section. */
export function encodeAbout(about: ContextAbout): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(about)}\n`);
}

/** Checked in every field; throws `ContextError` `damaged`. */
export function decodeAbout(bytes: Uint8Array, path: string): ContextAbout {
  const bad = (what: string) => new ContextError("damaged", `Cannot open context "${path}": ${what}`);
  if (bytes.length > MOST_BYTES) throw bad(`its description has ${bytes.length} bytes`);
  let about: ContextAbout;
  try {
    about = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw bad("its description is no JSON");
  }
  if (typeof about !== "object" || about === null) throw bad("its description is no object");
  const whole = (value: unknown, most: number) =>
    Number.isInteger(value) && value as number >= 0 && value as number <= most;
  const text = (value: unknown, most: number) => typeof value === "string" && value.length <= most;
  const texts = (value: unknown) =>
    typeof value === "object" && value !== null && Object.values(value).every((v) => text(v, 4096));
  if (about.version !== 1) throw bad(`its description has version ${about.version}, expected 1; make it anew`);
  if (!text(about.id, 64) || !/^ctx_[0-9a-f]{1,60}$/.test(about.id)) throw bad("its id is none");
  if (!whole(about.tokens, MOST_TOKENS) || about.tokens < 1) throw bad("its number of tokens is none");
  if (!whole(about.createdMs, 1e15) || !(about.ttlSeconds >= 0 && about.ttlSeconds <= 1e10)) {
    throw bad("its times are none");
  }
  if (about.parent !== undefined && !text(about.parent, 64)) throw bad("its parent is none");
  if (!texts(about.metadata) || Object.keys(about.metadata).length > 64) throw bad("its metadata is none");
  if (!text(about.share, 1 << 16)) throw bad("its key is none");
  if (!texts(about.fingerprint) || FIELDS.some((f) => typeof about.fingerprint[f] !== "string")) {
    throw bad("its fingerprint is none");
  }
  const { layers, messages } = about;
  const isLayer = (l: unknown) => {
    const { kvHeads, headDim, hasIndex } = (l ?? {}) as Record<string, unknown>;
    return whole(kvHeads, 65536) && whole(headDim, 65536) && typeof hasIndex === "boolean";
  };
  if (!Array.isArray(layers) || layers.length > MOST_LAYERS || !layers.every(isLayer)) throw bad("its layers are none");
  const isMessage = (m: unknown) => {
    const { role, content } = (m ?? {}) as Record<string, unknown>;
    return text(role, 32) && typeof content === "string";
  };
  if (messages !== undefined && !(Array.isArray(messages) && messages.every(isMessage))) {
    throw bad("its messages are none");
  }
  return about;
}

/** Throws `ContextError` `mismatch` that names the first field that differs, both values and what to do. */
export function expectFingerprint(name: string, theirs: Fingerprint, ours: Partial<Fingerprint>): void {
  for (const field of FIELDS) {
    const want = ours[field];
    if (want === undefined || theirs[field] === want) continue;
    throw new ContextError(
      "mismatch",
      `Cannot use context "${name}": its ${field} is "${theirs[field]}", here it is "${want}"; ${REMEDIES[field]}`,
      field,
    );
  }
}
