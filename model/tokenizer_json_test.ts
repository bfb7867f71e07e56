import { Tokenizer as Library } from "@huggingface/tokenizers";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { ModelFileError, Unsupported } from "../core/errors.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { alphabet } from "./tokenizer_tiny.ts";

type Json = Record<string, unknown>;

const LLAMA3 = String
  .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġ Ġ", "1 2", "' s"];
const SPECIAL = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

function added(content: string, id: number, changes: Json = {}): Json {
  return { ...SPECIAL, id, content, ...changes };
}

function template(token: string, id: number): Json {
  return {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}

/** As Llama 3 ships it, in small. */
function llama3(changes: Json = {}, model: Json = {}): Json {
  const tokens = [...alphabet(), ...MERGES.map((m) => m.replace(" ", "")), "world"];
  const n = tokens.length;
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    added_tokens: [
      added("<|begin_of_text|>", n),
      added("<|eot_id|>", n + 1),
      added("<tool>", n + 2, { special: false }),
    ],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Split", pattern: { Regex: LLAMA3 }, behavior: "Isolated", invert: false }, level],
    },
    post_processor: { type: "Sequence", processors: [level, template("<|begin_of_text|>", n)] },
    decoder: level,
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: MERGES,
      ignore_merges: true,
      ...model,
    },
    ...changes,
  };
}

/** As Llama 2 ships it, in small. */
function llama2(changes: Json = {}, model: Json = {}): Json {
  const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
  const tokens = [
    "<unk>",
    "<s>",
    "</s>",
    ...bytes,
    "▁",
    ..."helowrd",
    "he",
    "ll",
    "hell",
    "hello",
    "▁hello",
    "▁w",
    "▁wo",
  ];
  return {
    added_tokens: [added("<unk>", 0), added("<s>", 1), added("</s>", 2)],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "▁" }, { type: "Replace", pattern: { String: " " }, content: "▁" }],
    },
    pre_tokenizer: null,
    post_processor: template("<s>", 1),
    decoder: null,
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["▁", "hello"], ["▁", "w"], ["▁w", "o"]],
      ...model,
    },
    ...changes,
  };
}

function load(tokenizerJson: unknown, more: Json = {}) {
  return loadTokenizer({ kind: "hf", tokenizerJson, ...more });
}

// No U+FEFF and U+0085, which the library takes for what JavaScript does; no unpaired surrogates.
const text = fc.array(
  fc.oneof(
    fc.constantFrom("hello", "world", " ", "'s", "'S", "12", "\n", "<s>", "<|eot_id|>", "<tool>", "é", "😀"),
    fc.string(),
  ),
  { maxLength: 12 },
).map((parts) => parts.join(""));

describe("loadTokenizer() of tokenizer.json", () => {
  it("equals the library, special tokens in text included", () => {
    for (const json of [llama3(), llama2()]) {
      const ours = load(json), library = new Library(json, {});
      fc.assert(fc.property(text, (x) => {
        // The library puts BOS before everything through the post-processor.
        const theirs = x === "" ? [ours.bos] : library.encode(x, { add_special_tokens: true }).ids;
        assertEquals(ours.encode(x, { special: true }), theirs);
      }));
    }
  });

  it("decode(encode(x)) is x", () => {
    for (const json of [llama3(), llama2()]) {
      const tokenizer = load(json);
      fc.assert(fc.property(text, (x) => assertEquals(tokenizer.decode(tokenizer.encode(x)), x.replaceAll("▁", " "))));
    }
  });

  it("finds BOS and the ends of a generation", () => {
    const tokenizer = load(llama3(), {
      generationConfig: { eos_token_id: [7, 8] },
      tokenizerConfig: { eos_token: "<|eot_id|>" },
    });
    const eot = tokenizer.special("<|eot_id|>") as number;
    assertEquals([tokenizer.bos, tokenizer.addBos], [tokenizer.special("<|begin_of_text|>"), true]);
    assertEquals([...tokenizer.eos], [eot, 7, 8]);
    const config = { add_bos_token: false, bos_token: { content: "<s>" } };
    assertEquals(load(llama2(), { tokenizerConfig: config }).addBos, false);
    assertEquals([
      ...load(llama2(), { specialTokensMap: { eos_token: "</s>" }, generationConfig: { eos_token_id: 2 } }).eos,
    ], [2]);
  });

  it("reads Qwen's pipeline: NFC, then the pattern", () => {
    const tokenizer = load(llama3({ normalizer: { type: "NFC" } }));
    assertEquals(tokenizer.encode("e\u0301"), tokenizer.encode("é"));
  });

  it("reads Mistral's: Metaspace, a space at the start unless there is one", () => {
    const metaspace = (scheme: string) =>
      load(llama2({
        normalizer: null,
        pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: scheme, split: false },
      }));
    const first = metaspace("first");
    const hello = first.encode(" hello", { bos: false });
    assertEquals(first.encode("hello", { bos: false }), hello);
    const always = metaspace("always").encode("<s>hello", { special: true, bos: false });
    assertEquals(always, [1, ...hello]);
    assert(first.encode("<s>hello", { special: true, bos: false }).length > 1);
    assertEquals(first.decode(first.encode("<s>hello", { special: true, bos: false })), "hello");
    assertEquals(metaspace("never").decode(metaspace("never").encode("hello")), "hello");
  });

  it("lets added tokens take the whitespace beside them", () => {
    const json = llama2({ added_tokens: [added("<s>", 1, { lstrip: true, rstrip: true })] });
    const ids = load(json).encode("he  <s>  he", { special: true });
    assertEquals(ids, load(json).encode("he<s>he", { special: true }));
  });

  const wrong: [string, unknown, string][] = [
    ["no object", 7, "tokenizer.json is no object"],
    ["no model", llama3({ model: undefined }), "model is no object"],
    ["no vocabulary", llama3({}, { vocab: [] }), "model.vocab is no object"],
    ["an id that is none", llama3({}, { vocab: { a: -1 } }), 'model.vocab entry "a" has id -1'],
    [
      "an id far out",
      llama3({ added_tokens: [] }, { vocab: { a: 1e9 }, merges: [] }),
      "model.vocab has id 1000000000 among 1",
    ],
    [
      "two tokens with an id",
      llama3({ added_tokens: [] }, { vocab: { a: 0, b: 0 }, merges: [] }),
      "model.vocab gives id 0 to",
    ],
    ["no merges", llama3({}, { merges: undefined }), "model.merges is missing"],
    ["merges of unknown tokens", llama3({}, { merges: ["x y"] }), "model.merges entry 0 has a result that is no token"],
    ["merges that are none", llama3({}, { merges: [["a"]] }), "model.merges entry 0 is no pair"],
    ["merges that are numbers", llama3({}, { merges: [1] }), "model.merges entry 0 is no pair"],
    ["added tokens without text", llama3({ added_tokens: [{ id: 1 }] }), "added_tokens entry 0 has no content"],
    ["added tokens without id", llama3({ added_tokens: [{ content: "x" }] }), "added_tokens entry 0 has id"],
    ["an unknown token that is none", llama2({}, { unk_token: "?" }), 'model.unk_token is "?"'],
    [
      "a long pattern",
      llama3({ pre_tokenizer: { type: "Split", behavior: "Isolated", pattern: { Regex: "a".repeat(5000) } } }),
      "5000",
    ],
  ];
  for (const [name, json, message] of wrong) {
    it(`throws for ${name}`, () => {
      assertThrows(() => load(json), ModelFileError, message);
    });
  }

  const unsupported: [string, unknown, string][] = [
    ["other models", llama3({}, { type: "Unigram" }), 'model.type is "Unigram"'],
    ["other normalizers", llama3({ normalizer: { type: "Lowercase" } }), "normalizer"],
    ["other pre-tokenizers", llama3({ pre_tokenizer: { type: "BertPreTokenizer" } }), "pre_tokenizer"],
    [
      "a space before everything",
      llama3({ pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }),
      "add_prefix_space",
    ],
    ["suffixes", llama3({}, { end_of_word_suffix: "</w>" }), "model.end_of_word_suffix"],
    [
      "patterns that JavaScript cannot",
      llama3({
        pre_tokenizer: { type: "Split", behavior: "Isolated", pattern: { Regex: "a++" } },
      }),
      "pre_tokenizer.pattern",
    ],
    ["characters without ▁", llama2({ normalizer: null }), 'no "ByteLevel"'],
    [
      "added tokens that are whole words",
      llama3({ added_tokens: [added("x", 1, { single_word: true })] }),
      "single_word",
    ],
  ];
  for (const [name, json, message] of unsupported) {
    it(`says that it does not do ${name}`, () => {
      assertThrows(() => load(json), Unsupported, message);
    });
  }

  it("names the field of the companions", () => {
    const bad = (more: Json, message: string) => assertThrows(() => load(llama2(), more), ModelFileError, message);
    bad({ tokenizerConfig: { bos_token: "<none>" } }, 'bos_token is "<none>"');
    bad({ generationConfig: { eos_token_id: [99999] } }, "eos_token_id of generation_config.json is 99999");
    bad({ generationConfig: 5 }, "generation_config.json is no object");
  });

  it("survives any change of one field", () => {
    const value = fc.oneof(fc.constant(null), fc.integer(), fc.string(), fc.boolean(), fc.jsonValue({ maxDepth: 3 }));
    const fields = ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model"];
    const inner = ["vocab", "merges", "unk_token", "byte_fallback", "type"];
    fc.assert(
      fc.property(
        fc.constantFrom(...fields),
        fc.constantFrom(...inner),
        value,
        fc.boolean(),
        (field, name, changed, deep) => {
          for (const make of [llama2, llama3]) {
            try {
              const tokenizer = load(deep ? make({}, { [name]: changed }) : make({ [field]: changed }));
              tokenizer.decode(tokenizer.encode("hello <s>", { special: true }));
            } catch (error) {
              assert(error instanceof ModelFileError || error instanceof Unsupported, String((error as Error).stack));
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
