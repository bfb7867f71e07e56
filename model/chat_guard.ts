/**
 * Keeps what people write in a conversation from becoming control tokens.
 *
 * A chat template mixes its own control tokens with message texts into one string, and may trim, split or join the texts on the
 * way. So the texts are marked before rendering: a mark, a private-use character that occurs nowhere else, goes inside
 * everything in a text that is a control token or could become one together with its neighbours. Both ends of a text stay as
 * they are where that is whitespace, so `| trim` works. After rendering the marks become borders between parts, and no control
 * token is seen across a border ({@link TextPart}); plain text is tokenized as if they had never been there.
 *
 * Not covered: a template that itself changes letters within messages (`| upper`, `| replace`) so that a control token comes
 * out. A template that looks for a control token in a message (`'</think>' in content`, where that is one) does not find it.
 *
 * @module
 */
import type { TextPart } from "./tokenizer_special.ts";

const FIRST_MARK = 0xe000, LAST_MARK = 0xf8ff;
const MAX_DEPTH = 64;

/** Marks texts for one rendering. */
export class ChatGuard {
  readonly #controls: ReadonlySet<string>;
  /** Lengths of control tokens by first UTF-16 unit. */
  readonly #lengths = new Map<number, Set<number>>();
  readonly #longest: number;
  /** Last UTF-16 units of control tokens. */
  readonly #last = new Set<number>();

  /** `controls`: the texts of all control tokens. */
  constructor(controls: Iterable<string>) {
    this.#controls = new Set(controls);
    let longest = 0;
    for (const text of this.#controls) {
      const unit = text.charCodeAt(0);
      const lengths = this.#lengths.get(unit) ?? new Set();
      lengths.add(text.length);
      this.#lengths.set(unit, lengths);
      this.#last.add(text.charCodeAt(text.length - 1));
      longest = Math.max(longest, text.length);
    }
    this.#longest = longest;
  }

  /** A character that none of `texts` contains, for marks. Throws `RangeError` when they contain all of them. */
  mark(texts: Iterable<string>): string {
    const taken = new Set<string>();
    for (const text of texts) for (const [used] of text.matchAll(/[\ue000-\uf8ff]/g)) taken.add(used);
    for (let code = FIRST_MARK; code <= LAST_MARK; code++) {
      const mark = String.fromCharCode(code);
      if (!taken.has(mark)) return mark;
    }
    throw new RangeError("Cannot render conversation: it uses all 6400 private-use characters, leave one out");
  }

  /** `text` with `mark` wherever a control token could come out of it. */
  protect(text: string, mark: string): string {
    const cuts = new Set<number>();
    for (let at = 0; at < text.length; at++) {
      for (const length of this.#lengths.get(text.charCodeAt(at)) ?? []) {
        if (!this.#controls.has(text.slice(at, at + length))) continue;
        cuts.add(at + 1);
        // A token of one character cannot be cut, so it is cut out.
        if (length === 1) cuts.add(at);
      }
    }
    this.#cutEdges(text, cuts);
    if (cuts.size === 0) return text;
    let out = "", done = 0;
    for (const cut of [...cuts].sort((a, b) => a - b)) {
      out += text.slice(done, cut) + mark;
      done = cut;
    }
    return out + text.slice(done);
  }

  /** {@link protect} for every string inside a JSON value, keys of objects included. */
  protectAll(value: unknown, mark: string, depth = 0): unknown {
    if (typeof value === "string") return this.protect(value, mark);
    if (typeof value !== "object" || value === null) return value;
    if (depth > MAX_DEPTH) throw new RangeError(`Cannot render conversation: values nest deeper than ${MAX_DEPTH}`);
    if (Array.isArray(value)) return value.map((inner) => this.protectAll(inner, mark, depth + 1));
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [this.protect(key, mark), this.protectAll(inner, mark, depth + 1)]),
    );
  }

  /** The rendered text as parts, cut at the marks; all trusted, as what is left whole is the template's. */
  parts(rendered: string, mark: string): TextPart[] {
    return rendered.split(mark)
      .filter((text) => text !== "")
      .map((text) => ({ text, special: !(text.length === 1 && this.#controls.has(text)) }));
  }

  /** A text may complete a control token that its neighbour begins, begin one, or be the inside of one. */
  #cutEdges(text: string, cuts: Set<number>): void {
    const start = text.length - text.trimStart().length, end = text.trimEnd().length;
    for (const [from, to] of [[0, text.length], [start, end]] as const) {
      const length = to - from;
      for (let n = Math.min(this.#longest - 1, length); n > 0; n--) {
        // Few characters begin or end a control token, and Gemma has 6249 of them.
        const mayComplete = this.#last.has(text.charCodeAt(from + n - 1));
        const mayBegin = this.#lengths.has(text.charCodeAt(to - n));
        if (!mayComplete && !mayBegin && n < length) continue;
        const head = text.slice(from, from + n), tail = text.slice(to - n, to);
        for (const token of this.#controls) {
          if (token.length <= n) continue;
          if (mayComplete && token.endsWith(head)) cuts.add(from + n - 1);
          if (mayBegin && token.startsWith(tail)) cuts.add(to - n + 1);
          if (n === length && token.includes(head)) cuts.add(from + 1);
        }
      }
    }
  }
}
