import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { StreamDecoder } from "./decoder.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { tinyMetadata, tinySentencePiece } from "./tokenizer_tiny.ts";

/** Token = byte; 256 is a control token. */
const bytes = {
  bytes: (token: number) => token === 256 ? new TextEncoder().encode("<end>") : Uint8Array.of(token),
  isControl: (token: number) => token === 256,
};

function decode(tokens: readonly number[], special = false): string[] {
  const decoder = new StreamDecoder(bytes, special, false);
  return [...tokens.map((token) => decoder.push(token)), decoder.flush()];
}

describe("StreamDecoder", () => {
  it("push() holds bytes back until a character is whole", () => {
    assertEquals(decode([0x41, 0xe2, 0x82, 0xac, 0x42]), ["A", "", "", "€", "B", ""]);
    assertEquals(decode([0xf0, 0x9f, 0x98, 0x80]), ["", "", "", "😀", ""]);
  });

  it("push() gives U+FFFD as soon as bytes cannot become a character, flush() for what is left", () => {
    assertEquals(decode([0xe2, 0x41]), ["", "�A", ""]);
    assertEquals(decode([0xff, 0xc0]), ["�", "�", ""]);
    assertEquals(decode([0xf0, 0x9f]), ["", "", "�"]);
    assertEquals(decode([0xef, 0xbb, 0xbf, 0x41]).join(""), "\ufeffA");
  });

  it("push() hides control tokens unless special is set, and they do not break characters apart", () => {
    assertEquals(decode([0xe2, 256, 0x82, 0xac]), ["", "", "", "€", ""]);
    assertEquals(decode([0x41, 256], true), ["A", "<end>", ""]);
  });

  it("equals decoding all bytes at once", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (data) => {
      assertEquals(decode([...data]).join(""), new TextDecoder("utf-8", { ignoreBOM: true }).decode(data));
    }));
  });
});

describe("TextTokenizer.decoder()", () => {
  it("drops the space that encode() adds, at the start only", () => {
    const tokenizer = loadTokenizer({ kind: "gguf", metadata: tinySentencePiece() });
    const ids = tokenizer.encode("hello hello", { bos: false });
    assertEquals(tokenizer.decode(ids), "hello hello");
    assertEquals(tokenizer.decode(ids, { start: false }), " hello hello");
    assertEquals(tokenizer.decode(tokenizer.encode("  hello")), "  hello");
  });

  it("shows user-defined tokens, hides control tokens", () => {
    const tokenizer = loadTokenizer({ kind: "gguf", metadata: tinyMetadata() });
    const ids = [1, ...tokenizer.encode("a<tool>"), 2];
    assertEquals(tokenizer.decode(ids), "a<tool>");
    assertEquals(tokenizer.decode(ids, { special: true }), "<|im_start|>a<tool><|im_end|>");
  });

  it("throws for ids outside the vocabulary", () => {
    const tokenizer = loadTokenizer({ kind: "gguf", metadata: tinyMetadata() });
    for (const id of [-1, tokenizer.vocab, 1.5, NaN]) {
      assertThrows(() => tokenizer.decoder().push(id), RangeError, "Cannot read token");
    }
  });
});
