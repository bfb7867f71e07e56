/**
 * Ids back to text, as they are generated: text appears once its UTF-8 is whole.
 *
 * @module
 */
import type { TokenDecoder } from "./model.ts";

/** What a decoder needs to know of a tokenizer. */
export interface DecoderSource {
  /** One token's bytes; throws `RangeError` when there is no such token. */
  bytes(token: number): Uint8Array;
  /** Control tokens are hidden from text. */
  isControl(token: number): boolean;
}

/** How {@link StreamDecoder} writes text. */
export interface DecodeOptions {
  /** Show control tokens. Default false. */
  readonly special?: boolean;
  /**
   * The ids begin a text, not a continuation: the space that the encoder put before it is taken away again. Only tokenizers
   * that add one do so. Default false.
   */
  readonly start?: boolean;
}

/**
 * Streaming decoder. Bytes are held back until they form whole code points; bytes that no longer can become U+FFFD, one a
 * maximal ill-formed part as the WHATWG encoding standard has it.
 */
export class StreamDecoder implements TokenDecoder {
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  #dropSpace: boolean;
  /** Nothing is held back for sure: most tokens are ASCII, and need not pass through the runtime's decoder. */
  #isWhole = true;

  /** `dropSpace`: the text's first byte is dropped when it is a space. */
  constructor(readonly source: DecoderSource, readonly special: boolean, dropSpace: boolean) {
    this.#dropSpace = dropSpace;
  }

  push(token: number): string {
    let bytes = this.source.bytes(token);
    if (!this.special && this.source.isControl(token)) return "";
    if (this.#dropSpace && bytes.length > 0) {
      this.#dropSpace = false;
      if (bytes[0] === 0x20) bytes = bytes.subarray(1);
    }
    if (this.#isWhole && isAscii(bytes)) return String.fromCharCode(...bytes);
    // After ASCII nothing is held back.
    this.#isWhole = bytes.length > 0 ? (bytes[bytes.length - 1] as number) < 0x80 : this.#isWhole;
    return this.#utf8.decode(bytes, { stream: true });
  }

  flush(): string {
    this.#isWhole = true;
    return this.#utf8.decode();
  }
}

function isAscii(bytes: Uint8Array): boolean {
  // Longer ones are rare, and too long for an argument list.
  if (bytes.length > 32) return false;
  for (let i = 0; i < bytes.length; i++) if ((bytes[i] as number) >= 0x80) return false;
  return true;
}
