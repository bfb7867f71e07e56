/**
 * Kinds of tokens as GGUF numbers them, and what they stand for in text.
 *
 * @module
 */

/** Values of `tokenizer.ggml.token_type`. */
export const TYPE = {
  UNDEFINED: 0,
  NORMAL: 1,
  UNKNOWN: 2,
  /** Steers the model; never part of text. */
  CONTROL: 3,
  /** Matched whole in every text. */
  USER_DEFINED: 4,
  UNUSED: 5,
  /** `<0xNN>`: one byte. */
  BYTE: 6,
} as const;

/** The bytes that a SentencePiece piece of this type stands for: `▁` is a space, `<0xNN>` a byte. */
export function pieceBytes(piece: Uint8Array<ArrayBuffer>, type: number): Uint8Array<ArrayBuffer> {
  if (type === TYPE.BYTE) return Uint8Array.of(16 * hexDigit(piece[3] as number) + hexDigit(piece[4] as number));
  if (type === TYPE.CONTROL || type === TYPE.USER_DEFINED || type === TYPE.UNKNOWN) return piece;
  let at = piece.indexOf(0xe2);
  if (at < 0) return piece;
  const out = piece.slice();
  let n = at;
  for (; at < piece.length; n++) {
    if (piece[at] === 0xe2 && piece[at + 1] === 0x96 && piece[at + 2] === 0x81) {
      out[n] = 0x20;
      at += 3;
    } else {
      out[n] = piece[at++] as number;
    }
  }
  return out.subarray(0, n);
}

/** Value of an ASCII hexadecimal digit. */
function hexDigit(code: number): number {
  return code <= 0x39 ? code - 0x30 : (code | 0x20) - 0x61 + 10;
}
