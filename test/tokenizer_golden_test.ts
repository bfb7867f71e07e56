import { Tokenizer as Library } from "@huggingface/tokenizers";
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { openGguf } from "../model/gguf.ts";
import { pullModel } from "../model/hub.ts";
import { loadTokenizer, type TextTokenizer } from "../model/tokenizer.ts";
import { corpus, CORPUS_LINES } from "./tokenizer_corpus.ts";
import { CASES, goldenOf, MODELS, PROSE, type TokenizerGolden } from "./tokenizer_golden.ts";
import { tokenizerJsonOf } from "./tokenizer_json_of.ts";

const lines = corpus(Deno.readTextFileSync(PROSE));
const texts = [...lines, ...CASES];

/** Where JavaScript's `\s` and Unicode's White_Space part; the library takes JavaScript's, its original in Rust does not. */
const JAVASCRIPT_SPACES = /[\u0085\ufeff]/;

function encodeAll(tokenizer: TextTokenizer, list: readonly string[]): number[][] {
  return list.map((text) => tokenizer.encode(text, { bos: false }));
}

describe("tokenizer corpus", () => {
  it("has 10,000 lines, the same every time", () => {
    assertEquals(lines.length, CORPUS_LINES);
    assertEquals(lines, corpus(Deno.readTextFileSync(PROSE)));
  });
});

for (const rules of MODELS) {
  describe(`tokenizer of ${rules.name}`, () => {
    const golden: TokenizerGolden = JSON.parse(
      Deno.readTextFileSync(new URL(`golden/tokenizer_${rules.name}.json`, import.meta.url)),
    );
    const open = async () => {
      using file = openGguf(await pullModel(rules.name));
      return file.metadata;
    };

    it("gives llama.cpp's ids, and the text comes back", async () => {
      const tokenizer = loadTokenizer({ kind: "gguf", metadata: await open() });
      const ids = encodeAll(tokenizer, texts);
      const ours = await goldenOf(texts, ids);
      for (const [i, list] of Object.entries(golden.ids)) {
        assertEquals(ours.ids[i], list, JSON.stringify(texts[Number(i)]));
      }
      assertEquals(ours.sha256, golden.sha256);
      const lost = texts.filter((text, i) => tokenizer.decode(ids[i] as number[]) !== text);
      assertEquals(lost.filter((text) => !rules.lossy(text)), []);
    });

    it("gives the same ids from tokenizer.json, and the library does where no token is special", async () => {
      const metadata = await open();
      const tokenizerJson = tokenizerJsonOf(metadata);
      const json = loadTokenizer({ kind: "hf", tokenizerJson });
      const gguf = loadTokenizer({ kind: "gguf", metadata });
      const sample = texts.filter((_, i) => i % 4 === 0 || i >= CORPUS_LINES);
      assertEquals(encodeAll(json, sample), encodeAll(gguf, sample));
      // The library has no switch that leaves special tokens in text as text.
      const added_tokens = tokenizerJson.added_tokens.filter((token) => !token.special);
      const library = new Library({ ...tokenizerJson, added_tokens }, {});
      const plain = sample.filter((text, i) =>
        i % 8 < 2 && !rules.libraryDiffers(text) && !JAVASCRIPT_SPACES.test(text)
      );
      assert(plain.length > 400);
      for (const text of plain) {
        const theirs = library.encode(text, { add_special_tokens: false }).ids;
        assertEquals(json.encode(text, { bos: false }), theirs, JSON.stringify(text));
      }
    });
  });
}
