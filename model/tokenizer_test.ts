import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { ModelFileError, Unsupported } from "../core/errors.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { Merger, type Merges } from "./tokenizer_merge.ts";
import { PRE_TOKENIZERS, preTokenizer, splitWords, unicodePattern } from "./tokenizer_split.ts";
import { alphabet, strings, tinyMetadata, tinySentencePiece } from "./tokenizer_tiny.ts";

const G = "tokenizer.ggml.";
const gpt2 = loadTokenizer({ kind: "gguf", metadata: tinyMetadata() });
const llama = loadTokenizer({ kind: "gguf", metadata: tinySentencePiece() });

function words(text: string, name: string): string[] {
  const out: string[] = [];
  splitWords(text, preTokenizer(name).patterns, (word) => out.push(word));
  return out;
}

describe("TextTokenizer", () => {
  it("encode() merges by rank in byte-level vocabularies", () => {
    const text = (id: number) => new TextDecoder().decode(gpt2.bytes(id));
    assertEquals(gpt2.encode("hello  world").map(text), ["hello", " ", " w", "o", "r", "l", "d"]);
    assertEquals(gpt2.encode("hehell").map(text), ["he", "hell"]);
  });

  it("encode() merges by score in SentencePiece vocabularies, and falls back to bytes", () => {
    const text = (id: number) => new TextDecoder().decode(llama.bytes(id));
    assertEquals(llama.encode("hello world").map(text), ["<s>", " hello", " wo", "rl", "d"]);
    assertEquals(llama.encode("é", { bos: false }).slice(1), [3 + 0xc3, 3 + 0xa9]);
    assertEquals(llama.encode(""), [1]);
  });

  it("encode() leaves control tokens in text as text unless special is set", () => {
    const text = "<|im_start|>hi<|im_end|>";
    assertEquals(gpt2.encode(text).filter((id) => gpt2.isControl(id)), []);
    assertEquals(gpt2.decode(gpt2.encode(text)), text);
    assertEquals(gpt2.encode(text, { special: true }).filter((id) => gpt2.isControl(id)), [1, 2]);
    assertEquals(gpt2.encode("x<tool>y").includes(3), true);
  });

  it("encode() puts BOS before text where the model wants it, or the caller", () => {
    assertEquals([gpt2.addBos, llama.addBos], [false, true]);
    assertEquals(gpt2.encode("h", { bos: true })[0], gpt2.bos);
    assertEquals(llama.encode("h", { bos: false })[0] === llama.bos, false);
  });

  it("decode(encode(x)) is x", () => {
    const text = fc.string({ unit: "binary", maxLength: 60 });
    for (const tokenizer of [gpt2, llama]) {
      fc.assert(fc.property(text, (x) => assertEquals(tokenizer.decode(tokenizer.encode(x)), x.replaceAll("▁", " "))));
    }
  });

  it("encode() replaces unpaired surrogates by U+FFFD", () => {
    for (const tokenizer of [gpt2, llama]) assertEquals(tokenizer.decode(tokenizer.encode("a\ud800b")), "a\ufffdb");
  });

  it("encode() of parts equals encode() of the text when nothing is special", () => {
    const parts = fc.array(fc.string({ unit: fc.constantFrom("h", "e", "l", "o", " ", "w", "é"), maxLength: 8 }));
    fc.assert(fc.property(parts, (list) => {
      for (const tokenizer of [gpt2, llama]) {
        const ids = tokenizer.encodeParts(list.map((text, i) => ({ text, special: i % 2 === 0 })));
        assertEquals(ids, tokenizer.encode(list.join("")));
      }
    }));
  });

  it("encode() takes a megabyte without words in seconds", () => {
    for (const tokenizer of [gpt2, llama]) {
      for (const unit of ["l", " ", "\n", "h"]) {
        const text = unit.repeat(1_000_000), began = performance.now();
        const ids = tokenizer.encode(text);
        assert(performance.now() - began < 10_000);
        assertEquals(tokenizer.decode(ids), text);
      }
    }
  });

  it("knows what ends a generation", () => {
    assertEquals([...gpt2.eos], [2, 0]);
    const tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>", ...alphabet(), "a b"];
    const types = Int32Array.from(tokens, (_, i) => i < 2 ? 3 : i < 4 ? 4 : 1);
    const ends = loadTokenizer({
      kind: "gguf",
      metadata: tinyMetadata({
        [G + "tokens"]: strings(tokens),
        [G + "token_type"]: types,
        [G + "merges"]: strings([]),
        [G + "eos_token_id"]: undefined,
        [G + "eot_token_id"]: 1,
      }),
    });
    assertEquals(ends.eos, new Set([1, 0, 2]));
    assertEquals(ends.isControl(2), true);
    assertEquals(ends.isControl(3), false);
  });
});

describe("loadTokenizer() of GGUF metadata", () => {
  const wrong: [string, Record<string, unknown>, string][] = [
    ["no model", { [G + "model"]: undefined }, "tokenizer.ggml.model is missing"],
    ["no tokens", { [G + "tokens"]: undefined }, "tokenizer.ggml.tokens is missing"],
    ["tokens of a wrong type", { [G + "tokens"]: 7 }, "tokenizer.ggml.tokens is no array of strings"],
    ["no tokens at all", { [G + "tokens"]: strings([]) }, "tokenizer.ggml.tokens has 0 entries"],
    ["types of a wrong length", { [G + "token_type"]: new Int32Array(3) }, "tokenizer.ggml.token_type has 3 entries"],
    ["types of a wrong type", { [G + "token_type"]: "x" }, "tokenizer.ggml.token_type is no array of 32-bit integers"],
    ["types out of range", { [G + "token_type"]: new Int32Array(266).fill(7) }, "entry 0 is 7"],
    ["no merges", { [G + "merges"]: undefined }, "tokenizer.ggml.merges is missing"],
    [
      "merges of unknown tokens",
      { [G + "merges"]: strings(["h e", "q q"]) },
      "tokenizer.ggml.merges entry 1 has a result",
    ],
    ["merges that are none", { [G + "merges"]: strings(["he"]) }, "tokenizer.ggml.merges entry 0 is no pair"],
    ["merges outside the alphabet", { [G + "merges"]: strings(["h 語"]) }, "tokenizer.ggml.merges entry 0 is no pair"],
    ["an id out of range", { [G + "eos_token_id"]: 266 }, "tokenizer.ggml.eos_token_id is 266"],
    ["an id of a wrong type", { [G + "bos_token_id"]: "0" }, "tokenizer.ggml.bos_token_id is 0"],
    [
      "BOS wanted but not given",
      { [G + "bos_token_id"]: undefined, [G + "add_bos_token"]: true },
      "bos_token_id is missing",
    ],
    ["a flag that is none", { [G + "add_bos_token"]: 1 }, "tokenizer.ggml.add_bos_token is no boolean"],
    ["a pre-tokenizer of a wrong type", { [G + "pre"]: 1 }, "tokenizer.ggml.pre is no string"],
  ];
  for (const [name, changes, message] of wrong) {
    it(`throws for ${name}`, () => {
      assertThrows(() => loadTokenizer({ kind: "gguf", metadata: tinyMetadata(changes) }), ModelFileError, message);
    });
  }

  it("throws for the same token twice", () => {
    const tokens = ["<a>", "<a>", "b", "b"];
    const twice = (type: number) =>
      tinyMetadata({
        [G + "tokens"]: strings(tokens),
        [G + "token_type"]: new Int32Array(4).fill(type),
        [G + "merges"]: strings([]),
      });
    assertThrows(
      () => loadTokenizer({ kind: "gguf", metadata: twice(3) }),
      ModelFileError,
      "the same token at 0 and 1",
    );
    assertThrows(
      () => loadTokenizer({ kind: "gguf", metadata: twice(1) }),
      ModelFileError,
      "the same token at 0 and 1",
    );
  });

  const wrongScores: [string, Record<string, unknown>, string][] = [
    ["no scores", { [G + "scores"]: undefined }, "tokenizer.ggml.scores is missing"],
    ["scores of a wrong length", { [G + "scores"]: new Float32Array(5) }, "tokenizer.ggml.scores has 5 entries"],
    [
      "scores of a wrong type",
      { [G + "scores"]: new Int32Array(5) },
      "tokenizer.ggml.scores is no array of 32-bit floats",
    ],
    ["scores that are none", { [G + "scores"]: new Float32Array(276).fill(NaN) }, "entry 0 is not a number"],
    [
      "byte tokens that are none",
      { [G + "token_type"]: new Int32Array(276).fill(6) },
      "is a byte token but not of the form",
    ],
  ];
  for (const [name, changes, message] of wrongScores) {
    it(`throws for ${name}`, () => {
      const metadata = tinySentencePiece(changes);
      assertThrows(() => loadTokenizer({ kind: "gguf", metadata }), ModelFileError, message);
    });
  }

  it("lists what it knows when a name is unknown", () => {
    const pre = tinyMetadata({ [G + "pre"]: "klingon" }), model = tinyMetadata({ [G + "model"]: "bert" });
    assertThrows(() => loadTokenizer({ kind: "gguf", metadata: pre }), Unsupported, '"klingon" (tokenizer.ggml.pre)');
    assertThrows(() => loadTokenizer({ kind: "gguf", metadata: pre }), Unsupported, "smollm");
    assertThrows(
      () => loadTokenizer({ kind: "gguf", metadata: model }),
      Unsupported,
      '"gpt2" and "llama" are supported',
    );
  });

  it("survives any metadata", () => {
    const value = fc.oneof(
      fc.integer(),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.array(fc.string({ maxLength: 3 }), { maxLength: 300 }).map((list) => strings(list)),
      fc.int32Array({ max: 7, maxLength: 300 }),
      fc.float32Array({ maxLength: 300 }),
    );
    const keys = [
      "model",
      "pre",
      "tokens",
      "token_type",
      "scores",
      "merges",
      "bos_token_id",
      "eos_token_id",
      "add_bos_token",
    ];
    const changes = fc.dictionary(fc.constantFrom(...keys.map((key) => G + key)), value, { maxKeys: 3 });
    fc.assert(
      fc.property(changes, fc.boolean(), (some, spm) => {
        try {
          const metadata = spm ? tinySentencePiece(some) : tinyMetadata(some);
          const tokenizer = loadTokenizer({ kind: "gguf", metadata });
          tokenizer.decode(tokenizer.encode("hello <|im_end|> wörld", { special: true }), { special: true });
        } catch (error) {
          assert(error instanceof ModelFileError || error instanceof Unsupported, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("pre-tokenizers", () => {
  it("lose no character", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 80 }), fc.constantFrom(...PRE_TOKENIZERS), (text, name) => {
        assertEquals(words(text, name).join(""), text);
      }),
    );
  });

  it("cut as the models' own do", () => {
    assertEquals(words("It's 1234 years!", "gpt-2"), ["It", "'s", " 1234", " years", "!"]);
    assertEquals(words("It's 12 years", "smollm"), ["It", "'s", " ", "1", "2", " years"]);
    assertEquals(words("IT'S 12345\n\n x", "llama-bpe"), ["IT", "'S", " ", "123", "45", "\n\n", " x"]);
    assertEquals(words("IT'S 123\n", "qwen2"), ["IT", "'S", " ", "1", "2", "3", "\n"]);
    assertEquals(words("helloWorld don't 12 a/\n", "tekken"), [
      "hello",
      "World",
      " don",
      "'t",
      " ",
      "1",
      "2",
      " a",
      "/\n",
    ]);
    assertEquals(words("HTTPServer's 1234", "gpt-4o"), ["HTTPServer's", " ", "123", "4"]);
    assertEquals(words("foo.bar 12", "deepseek-coder"), ["foo", ".", "bar", " ", "1", "2"]);
    assertEquals(words("a   b\u0085c\ufeffd", "gpt-2"), ["a", "  ", " b", "\u0085", "c", "\ufeff", "d"]);
  });

  it("unicodePattern() says what it cannot translate", () => {
    assertThrows(() => unicodePattern("\\w+"), SyntaxError, "\\w");
    assertEquals("a\u0085b".replace(unicodePattern("[^\\S\\n]"), "_"), "a_b");
    assertEquals("漢a'".replace(unicodePattern("\\p{Han}|\\'"), "_"), "_a_".replace("_a_", "_a_"));
  });
});

describe("Merger", () => {
  it("equals merging the best pair by scanning", () => {
    const letters = "abcd";
    const merges = fc.uniqueArray(fc.tuple(fc.nat({ max: 9 }), fc.nat({ max: 9 })), {
      maxLength: 30,
      selector: String,
    });
    fc.assert(fc.property(fc.array(fc.nat({ max: letters.length - 1 }), { maxLength: 40 }), merges, (ids, list) => {
      // Merge i of (a, b) gives id 4 + i % 6, so that ids repeat and ranks tie in nothing but position.
      const rankOf = (a: number, b: number) => list.findIndex(([x, y]) => x === a && y === b);
      const table: Merges & { merged: number } = {
        merged: -1,
        rank(a, b) {
          const rank = rankOf(a, b);
          this.merged = 4 + rank % 6;
          return rank < 0 ? Infinity : rank;
        },
      };
      const merger = new Merger();
      ids.forEach((id, i) => merger.add(id, i, i + 1));
      const out: number[] = [];
      merger.run(new Uint8Array(ids.length), table, (id) => out.push(id));
      const slow = [...ids];
      for (;;) {
        const ranks = slow.slice(1).map((id, i) => rankOf(slow[i] as number, id));
        const known = ranks.filter((rank) => rank >= 0);
        if (known.length === 0) break;
        const best = Math.min(...known), at = ranks.indexOf(best);
        slow.splice(at, 2, 4 + best % 6);
      }
      assertEquals(out, slow);
    }));
  });
});
