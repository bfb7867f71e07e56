/**
 * What the golden files of tokenizers hold, and where Kvasir's ids are decided to differ from others' (docs/tokenizers.md).
 *
 * @module
 */

/** English text for the corpus. */
export const PROSE: URL = new URL("golden/genesis.txt", import.meta.url);

/** Texts beside the corpus: each a decision or a border. */
export const CASES: readonly string[] = [
  "Hello world",
  " Hello",
  "a▁b ▁ ▁▁",
  "</s> <s> <bos> <eos> <unk> <pad>",
  "<|im_end|><|im_start|><|endoftext|><end_of_turn>",
  "<0x41><0x0A>",
  "<b>x</b> <h1>y</h1> </code>",
  "[multimodal]<start_of_image>",
  "\u0000a\u0001\u007f",
  "\u0085 \ufeff x\u200b",
  "\u00f1 \u{f1234}\u{100000}\u{10ffff}",
  ...[1, 2, 3, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 128].flatMap((n) => [" ".repeat(n), "x" + " ".repeat(n) + "y"]),
  ...[1, 2, 3, 30, 31, 32, 33, 64].flatMap((n) => ["\n".repeat(n), "\t".repeat(n), "a" + "\r\n".repeat(n)]),
  "1234567890 3.14159 1,000,000 ²³ ٣٤٥ ①②③ Ⅳ 𝟘𝟙",
  "I'm you'll THEY'VE don'T 'tis rock'n'roll ’s 's'S",
];

/** What is known of one model's tokenizer. */
export interface ModelRules {
  /** The model's name in the hub. */
  readonly name: string;
  readonly vocab: number;
  /** Texts that cannot come back. */
  lossy(text: string): boolean;
  /** Texts that llama.cpp may tokenize otherwise. */
  llamaCppDiffers(text: string): boolean;
  /** Texts that Hugging Face's `tokenizers` may tokenize otherwise. */
  libraryDiffers(text: string): boolean;
}

/** Bytes that SmolLM2 has no token for: some control characters, and lead bytes of rare or no characters. */
function smollm2Lacks(text: string): boolean {
  return ["\x04", "\x06", "\x13", "\x14", "\x16", "\x1d"].some((c) => text.includes(c)) ||
    /[\u{40000}-\u{bffff}]/u.test(text);
}

/** The models with golden files. */
export const MODELS: readonly ModelRules[] = [
  {
    name: "smollm2-135m-instruct",
    vocab: 49152,
    lossy: smollm2Lacks,
    llamaCppDiffers: () => false,
    // The library leaves out a byte without token before it merges, so that its neighbours may merge across the gap.
    libraryDiffers: smollm2Lacks,
  },
  {
    name: "gemma3-270m",
    vocab: 262144,
    // Its space is written ▁, so a ▁ is a space.
    lossy: (text) => text.includes("▁"),
    // llama.cpp takes HTML's </s> for the end of a text, and does not see it in text.
    llamaCppDiffers: (text) => text.includes("</s>"),
    libraryDiffers: () => false,
  },
];

/** Ids of the corpus and the cases, packed: hashes of all, and a sample to look at when one differs. */
export interface TokenizerGolden {
  /** SHA-256 of the ids of 100 texts each, as little-endian int32 with −1 after every text. */
  readonly sha256: readonly string[];
  /** Ids of every 40th text of the corpus and of every case, by number. */
  readonly ids: Readonly<Record<string, readonly number[]>>;
}

const BLOCK = 100, SAMPLE = 40;

/** Packs `ids`, one list a text of `texts`. */
export async function goldenOf(
  texts: readonly string[],
  ids: readonly (readonly number[])[],
): Promise<TokenizerGolden> {
  const sha256: string[] = [];
  for (let at = 0; at < ids.length; at += BLOCK) {
    const flat = Int32Array.from(ids.slice(at, at + BLOCK).flatMap((list) => [...list, -1]));
    sha256.push(new Uint8Array(await crypto.subtle.digest("SHA-256", flat)).toHex());
  }
  const first = texts.length - CASES.length;
  const sample = ids.map((list, i) => [i, list] as const).filter(([i]) => i >= first || i % SAMPLE === 0);
  return { sha256, ids: Object.fromEntries(sample) };
}
