/**
 * Tokenizers: text to ids and back, from a GGUF file's metadata or from Hugging Face's tokenizer.json.
 *
 * Control tokens in text stay text unless the caller trusts it (`special: true`), so that no user can end his own turn.
 *
 * @module
 */
import type { TokenDecoder, Tokenizer } from "./model.ts";
import { ModelFileError } from "../core/errors.ts";
import { type DecodeOptions, StreamDecoder } from "./decoder.ts";
import type { Encoder } from "./tokenizer_encoder.ts";
import type { Pieces } from "./tokenizer_pieces.ts";
import { type TextPart, type WholeToken, WholeTokens } from "./tokenizer_special.ts";
import type { TokenizerSource as OpenedTokenizerSource } from "./open.ts";
import { tokenizerFromGguf } from "./tokenizer_gguf.ts";
import { tokenizerFromJson } from "./tokenizer_json.ts";

export type { DecodeOptions } from "./decoder.ts";
export type { TextPart } from "./tokenizer_special.ts";

/** Where a tokenizer comes from: an opened model, or the files' contents. */
export type TokenizerSource =
  | OpenedTokenizerSource
  | { readonly kind: "gguf"; readonly metadata: ReadonlyMap<string, unknown> }
  | {
    readonly kind: "hf";
    /** Parsed tokenizer.json, tokenizer_config.json, special_tokens_map.json and generation_config.json. */
    readonly tokenizerJson: unknown;
    readonly tokenizerConfig?: unknown;
    readonly specialTokensMap?: unknown;
    readonly generationConfig?: unknown;
  };

/**
 * Loads a tokenizer.
 *
 * Throws {@link ModelFileError} naming the field that is wrong, `Unsupported` for kinds of tokenizers that are not known.
 */
export function loadTokenizer(source: TokenizerSource): TextTokenizer {
  if (source.kind === "gguf") return new TextTokenizer(tokenizerFromGguf(source.metadata));
  if (source.kind === "hf") return new TextTokenizer(tokenizerFromJson(source));
  const { tokenizer, tokenizerConfig, specialTokens, generationConfig } = source;
  const files = { tokenizerJson: tokenizer, tokenizerConfig, specialTokensMap: specialTokens, generationConfig };
  return new TextTokenizer(tokenizerFromJson(files));
}

/** Everything a {@link TextTokenizer} is made of; both readers produce it. */
export interface TokenizerParts {
  /** The bytes that each token stands for in text. */
  readonly bytes: (token: number) => Uint8Array;
  readonly pieces: Pieces;
  readonly encoder: Encoder;
  readonly wholeTokens: readonly WholeToken[];
  /** Where a space is put before text: never, at the start, or after every whole token too. */
  readonly spacePrefix: "never" | "start" | "always";
  /** No space is put where text begins with one (tokenizer.json's `Metaspace`). */
  readonly prefixSkipsSpace: boolean;
  readonly normalize: ((text: string) => string) | undefined;
  readonly bos: number | undefined;
  /** Tokens that end a generation; the one that the file names first comes first. */
  readonly eos: ReadonlySet<number>;
  readonly addBos: boolean;
}

/** Text ↔ ids. Encoding is linear in the text's length, times its logarithm where a run has no word borders. */
export class TextTokenizer implements Tokenizer {
  readonly vocab: number;
  readonly bos: number | undefined;
  readonly eos: ReadonlySet<number>;
  readonly addBos: boolean;
  readonly #whole: WholeTokens;
  readonly #control = new Set<number>();

  /** Use {@link loadTokenizer}. */
  constructor(readonly parts: TokenizerParts) {
    this.vocab = parts.pieces.length;
    this.bos = parts.bos;
    this.eos = parts.eos;
    this.addBos = parts.addBos;
    if (this.addBos && this.bos === undefined) {
      throw new ModelFileError("Cannot load tokenizer: prompts should start with a BOS token, which is not given");
    }
    this.#whole = new WholeTokens(parts.wholeTokens);
    for (const token of parts.wholeTokens) if (token.control) this.#control.add(token.id);
  }

  /** Ids of `text`; with `bos` (default {@link addBos}) preceded by BOS. Unpaired surrogates are U+FFFD. */
  encode(text: string, options: { readonly special?: boolean; readonly bos?: boolean } = {}): number[] {
    return this.encodeParts([{ text, special: options.special ?? false }], options);
  }

  /**
   * Ids of the parts read as one text, so that words and merges cross their borders; control tokens count only inside the
   * parts that are `special`. This is how chat templates are encoded.
   */
  encodeParts(parts: readonly TextPart[], options: { readonly bos?: boolean } = {}): number[] {
    const { encoder, spacePrefix, prefixSkipsSpace, normalize } = this.parts;
    const out: number[] = [];
    if (this.bos !== undefined && (options.bos ?? this.addBos)) out.push(this.bos);
    let prefix = spacePrefix !== "never";
    this.#whole.split(parts, (text) => {
      const plain = prefix && !(prefixSkipsSpace && text.startsWith(" ")) ? " " + text : text;
      encoder.encode(normalize === undefined ? plain : normalize(plain), out);
      prefix = false;
    }, (token) => {
      out.push(token.id);
      prefix = spacePrefix === "always";
    });
    return out;
  }

  /** A streaming decoder; `start` says that the ids begin a text, as those of `encode` do. */
  decoder(options: DecodeOptions = {}): TokenDecoder {
    const dropSpace = options.start === true && this.parts.spacePrefix !== "never";
    return new StreamDecoder(this, options.special ?? false, dropSpace);
  }

  /** The text of `tokens` as a whole, as if encoded from it: `decode(encode(x))` is `x`. */
  decode(tokens: Iterable<number>, options: DecodeOptions = {}): string {
    const decoder = this.decoder({ start: true, ...options });
    let text = "";
    for (const token of tokens) text += decoder.push(token);
    return text + decoder.flush();
  }

  bytes(token: number): Uint8Array {
    return this.parts.bytes(token);
  }

  /** Whether `token` steers the model and is hidden from text. */
  isControl(token: number): boolean {
    return this.#control.has(token);
  }

  /** The token that ends a text, where the file names one. */
  get mainEos(): number | undefined {
    return this.eos.values().next().value;
  }

  /** Texts of all control tokens. */
  controlTexts(): string[] {
    return this.parts.wholeTokens.filter((token) => token.control).map((token) => token.text);
  }

  /** The id of the control or added token with exactly this text. */
  special(text: string): number | undefined {
    return this.#whole.get(text)?.id;
  }
}
