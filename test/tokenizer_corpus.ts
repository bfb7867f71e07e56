/**
 * Ten thousand lines of what people and programs write, and of what they should not: prose, code, scripts of the world, emoji,
 * digits that are not ASCII, runs of whitespace, special tokens as text, broken UTF-8, any code point. Seeded: every run and
 * every machine makes the same lines.
 *
 * @module
 */

/** Lines of {@link corpus}. */
export const CORPUS_LINES = 10_000;

/** Mulberry32: 32 bits of state are enough for a list of lines. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** 0 … n − 1. */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 4294967296 * n);
  }

  pick<T>(from: ArrayLike<T>): T {
    return from[this.below(from.length)] as T;
  }

  /** `low` … `high` results of `make`, joined. */
  many(low: number, high: number, make: () => string, between = ""): string {
    return Array.from({ length: low + this.below(high - low + 1) }, make).join(between);
  }

  /** A code point of one of the ranges `[first, last]`. */
  point(ranges: readonly (readonly [number, number])[]): string {
    const [first, last] = this.pick(ranges);
    return String.fromCodePoint(first + this.below(last - first + 1));
  }
}

const CODE = [
  "for (let i = 0; i < n; i++) {\n\tsum += xs[i] ** 2;\n}",
  "    def forward(self, x: torch.Tensor) -> torch.Tensor:\n        return self.w2(F.silu(self.w1(x)) * self.w3(x))",
  "#include <vector>\nint main(int argc, char** argv) { return argc > 1 ? 0x1F : ~0u; }",
  "SELECT id, COUNT(*) FROM events WHERE ts >= '2024-01-01' GROUP BY 1 HAVING COUNT(*) > 10;",
  "const re = /^(?:\\d{1,3}\\.){3}\\d{1,3}$/u; // IPv4",
  "<div class=\"row\"><a href='/x?y=1&z=2'>link</a></div><!-- <b>old</b> -->",
  'if err != nil {\n\t\treturn fmt.Errorf("open %q: %w", path, err)\n\t}',
  "fn max<T: PartialOrd>(a: T, b: T) -> T { if a > b { a } else { b } }",
  '{"id": 42, "name": "O\'Brien", "tags": [], "score": -1.5e-7, "ok": null}',
  'git commit -m "fix: don\'t" && rm -rf ./build || echo $? >&2',
  "\\begin{equation} e^{i\\pi} + 1 = 0 \\end{equation} % Euler",
  "| a | b |\n|---|---|\n| `1` | **2** |\n\n> quote\n- [x] done",
  "mov\trax, [rbp-0x18]\n\tcall\t_ZNSt6vectorIiE9push_backEOi@PLT",
  "x=$(awk -F, '{ s += $3 } END { print s / NR }' <<< \"$csv\")",
  "\t\t\t\treturn λ => λ?.[0] ?? '\\u{1F600}';\r\n\t\t\t}\r\n",
];

const PHRASES = [
  "天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。",
  "吾輩は猫である。名前はまだ無い。カタカナも、ｶﾅも。",
  "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
  "الحمد لله رب العالمين، والصلاة والسلام على أشرف المرسلين.",
  "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ",
  "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
  "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์",
  "Все люди рождаются свободными и равными в своём достоинстве и правах.",
  "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
  "Ĉiuj homoj estas denaske liberaj; Příliš žluťoučký kůň úpěl ďábelské ódy; İstanbul'da ılık ığdır ẞß.",
  "Sphinx of black quartz, judge my vow! It's 'tis, they'LL, we'Ve I'M you'd DON'T rock'n'roll o'clock's",
  "https://example.org/a_b/c-d?q=%E2%9C%93&n=1,234.56#frag — “quotes” ‘single’ … §4.2 ±3 µm ½ ℃ №7 ™",
];

const EMOJI = [
  ..."😀 🤖 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 🇺🇳 1️⃣ #️⃣ ❤️‍🔥 ☃️ ☃ 🧑🏿‍🚀 👁️‍🗨️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 ♟︎ 🫠 🪿 ✅".split(" "),
  "🇩",
  "\u200d",
  "\ufe0f",
];

const SPECIAL = [
  ..."<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <|eot_id|> <|begin_of_text|>".split(" "),
  ..."<bos> <eos> <pad> <unk> <mask> <start_of_turn> <end_of_turn> <start_of_image> <unused7> [multimodal]".split(" "),
  ..."<s> </s> <0x41> <0x0A> [INST] [/INST] <|im_end <|im_ end|> <|IM_END|> im_end|> <| |> <h1> </code>".split(" "),
  "<|im_start|>system\nObey.<|im_end|>\n<|im_start|>assistant\n",
  "<start_of_turn>model\n",
  "<|im_end|><|im_end|>",
];

const LETTERS = [
  [0x4e00, 0x9fff],
  [0x3041, 0x30ff],
  [0xac00, 0xd7a3],
  [0x0621, 0x064a],
  [0x0905, 0x0939],
  [0x0e01, 0x0e30],
  [0x10d0, 0x10f0],
  [0x1200, 0x1248],
  [0x00c0, 0x024f],
  [0x0391, 0x03c9],
  [0x0410, 0x044f],
  [0x1d400, 0x1d7cb],
  [0x20000, 0x2a6d6],
  [0xff21, 0xff5a],
] as const;

const DIGITS = [
  [0x0660, 0x0669],
  [0x06f0, 0x06f9],
  [0x0966, 0x096f],
  [0x0e50, 0x0e59],
  [0xff10, 0xff19],
  [0x2070, 0x2079],
  [0x2080, 0x2089],
  [0x00bc, 0x00be],
  [0x2150, 0x2188],
  [0x2460, 0x249b],
  [0x3021, 0x3029],
  [0x1d7ce, 0x1d7ff],
  [0x10107, 0x10110],
  [0x1ee0, 0x1ee9],
] as const;

const MARKS = [[0x0300, 0x036f], [0x0483, 0x0489], [0x064b, 0x065f], [0x093e, 0x094d], [0x20d0, 0x20f0], [
  0xfe20,
  0xfe2f,
]] as const;

const SPACES = [
  ..." \t\n\r",
  "\r\n",
  "\u00a0",
  "\u0085",
  "\u1680",
  "\u2003",
  "\u2009",
  "\u2028",
  "\u2029",
  "\u202f",
  "\u3000",
  "\u200b",
  "\ufeff",
  "\v",
  "\f",
];

const UNICODE = [[0, 0x7f], [0x80, 0x2ff], [0x300, 0x2580], [0x2582, 0xd7ff], [0xe000, 0xffff], [
  0x10000,
  0x10ffff,
]] as const;

/** The lines. A "line" may hold newlines; `prose` is any long English text. */
export function corpus(prose: string, seed = 20260): string[] {
  const r = new Random(seed);
  const utf8 = new TextDecoder();
  const words = prose.split(/\s+/);
  const some = (n: number) => {
    const at = r.below(words.length - n);
    return words.slice(at, at + n).join(" ");
  };
  const letters = () => r.point(LETTERS);
  const digits = () => r.many(1, 6, () => r.point(DIGITS));
  const spaces = () => r.below(3) === 0 ? r.pick(SPACES).repeat(1 + r.below(70)) : r.many(1, 6, () => r.pick(SPACES));
  const marks = () => r.pick("aeionöжא가") + r.many(1, 4, () => r.point(MARKS));
  const emoji = () => r.pick(EMOJI);
  const number = () =>
    r.pick(["", "-", "$", "v", "0x"]) + r.many(1, 9, () => r.pick("0123456789")) +
    r.pick(["", ".5", ",000", "%", "e10", "th"]);
  const word = () =>
    r.pick([() => some(1), () => r.many(1, 6, letters), number, emoji, marks, digits, () => r.pick(SPECIAL)])();
  const broken = () => {
    const bytes = new TextEncoder().encode(some(3) + r.pick(PHRASES) + emoji());
    for (let i = 0; i < 4; i++) bytes[r.below(bytes.length)] = r.below(256);
    return utf8.decode(bytes.subarray(r.below(4), bytes.length - r.below(4)));
  };
  const kinds: (() => string)[] = [
    () => some(5 + r.below(40)),
    () => r.pick(CODE).replaceAll("    ", r.below(2) === 0 ? "    " : " ".repeat(r.below(9))),
    () => r.pick(CODE) + spaces() + r.pick(CODE),
    () => r.pick(PHRASES).slice(r.below(20)),
    () => r.many(1, 12, emoji, r.pick(["", " "])),
    () => r.many(2, 12, () => r.many(1, 8, letters), r.pick(["", " "])),
    () => r.many(1, 10, marks, r.pick(["", " "])),
    () => r.many(1, 6, () => r.pick([digits, number])(), r.pick(["", " ", "/"])),
    () => some(2) + " ".repeat(1 + r.below(130)) + some(2) + spaces() + some(1) + spaces(),
    () => spaces() + r.many(0, 3, () => word() + spaces()),
    () => r.many(1, 5, () => r.pick(SPECIAL), r.pick(["", " ", " x", "\n"])),
    broken,
    () => utf8.decode(Uint8Array.from({ length: 1 + r.below(40) }, () => r.below(256))),
    () => r.many(1, 30, () => r.point(UNICODE)),
    () => r.many(1, 12, word, r.pick(["", " ", "  ", "\n", "."])),
    () => r.pick("aA .=-_*#\n\t嗚é0").repeat(1 + r.below(150)),
  ];
  return Array.from({ length: CORPUS_LINES }, (_, i) => {
    const line = (kinds[i % kinds.length] as () => string)();
    // Empty lines tell nothing; ▁ means a space to Gemma and is tested apart.
    return line === "" ? "x" : line.replaceAll("▁", "_");
  });
}
