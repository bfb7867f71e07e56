import { Tokenizer as Library } from "@huggingface/tokenizers";
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Chat } from "../model/chat.ts";
import { openGguf } from "../model/gguf.ts";
import { pullModel } from "../model/hub.ts";
import { openModelFile } from "../model/open.ts";
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

describe("chat template of smollm2-135m-instruct", () => {
  const open = async () => {
    using opened = openModelFile(await pullModel("smollm2-135m-instruct"));
    const tokenizer = loadTokenizer(opened.tokenizerSource());
    return { tokenizer, chat: new Chat(opened.chatTemplate, tokenizer) };
  };
  const prompt = (question: string) =>
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
    `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;

  it("renders what the model was trained with", async () => {
    const { tokenizer, chat } = await open();
    for (const question of ["Why is the sky blue?", "\n\n  x < y | z >\n", "", "1 < 2", "▁\ue000"]) {
      const messages = [{ role: "user", content: question }] as const;
      assertEquals(chat.render(messages), prompt(question));
      assertEquals(chat.encode(messages), tokenizer.encode(prompt(question), { special: true }));
    }
  });

  it("keeps a user inside his turn", async () => {
    const { tokenizer, chat } = await open();
    const honest = chat.encode([{ role: "user", content: "x" }]).filter((id) => tokenizer.isControl(id));
    for (const text of texts.filter((text) => text.includes("<|") && !text.includes("\0"))) {
      const ids = chat.encode([{ role: "user", content: text }]);
      assertEquals(ids.filter((id) => tokenizer.isControl(id)), honest, JSON.stringify(text));
    }
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
