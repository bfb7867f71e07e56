/**
 * Tokens that are matched in text as a whole before anything else: control tokens (only in text that is trusted) and the
 * ones that a model's authors added to every text, such as Gemma's runs of newlines.
 *
 * @module
 */

/** A token matched as a whole. */
export interface WholeToken {
  /** The token. */
  readonly id: number;
  /** How it is written. */
  readonly text: string;
  /** Control tokens steer the model: matched in trusted text only, hidden from output. */
  readonly control: boolean;
  /** Whitespace before, or after it, belongs to it (tokenizer.json). */
  readonly stripLeft?: boolean;
  /** See `stripLeft`. */
  readonly stripRight?: boolean;
}

/** A stretch of text: whether control tokens in it count. */
export interface TextPart {
  /** The stretch. */
  readonly text: string;
  /** Control tokens are matched inside this part; never across its borders. */
  readonly special: boolean;
}

/** Finds whole tokens: leftmost first, the longest of those that begin there. */
export class WholeTokens {
  readonly #byText = new Map<string, WholeToken>();
  /** Lengths of tokens by their first UTF-16 unit, longest first. */
  readonly #lengths = new Map<number, number[]>();
  readonly #first = new Uint8Array(65536);

  /** Tokens with empty text never match; of two with the same text the first counts. */
  constructor(tokens: Iterable<WholeToken>) {
    for (const token of tokens) {
      if (token.text === "" || this.#byText.has(token.text)) continue;
      this.#byText.set(token.text, token);
      const unit = token.text.charCodeAt(0);
      this.#first[unit] = 1;
      const lengths = this.#lengths.get(unit) ?? [];
      if (!lengths.includes(token.text.length)) lengths.push(token.text.length);
      this.#lengths.set(unit, lengths);
    }
    for (const lengths of this.#lengths.values()) lengths.sort((a, b) => b - a);
  }

  /** The token whose text is exactly `text`. */
  get(text: string): WholeToken | undefined {
    return this.#byText.get(text);
  }

  /**
   * Cuts the parts, read as one text, into stretches of plain text and whole tokens, in order. Control tokens are only seen
   * where they lie inside one part that is `special`.
   */
  split(parts: readonly TextPart[], plain: (text: string) => void, whole: (token: WholeToken) => void): void {
    const text = parts.length === 1 ? (parts[0] as TextPart).text : parts.map((part) => part.text).join("");
    let done = 0, part = -1, partEnd = 0, special = false;
    for (let at = 0; at < text.length;) {
      while (at >= partEnd) {
        const entered = parts[++part] as TextPart;
        partEnd += entered.text.length;
        special = entered.special;
      }
      const token = this.#first[text.charCodeAt(at)] === 0 ? undefined : this.#at(text, at, special ? partEnd : 0);
      if (token === undefined) {
        at++;
        continue;
      }
      const before = text.slice(done, at);
      const kept = token.stripLeft === true ? before.trimEnd() : before;
      if (kept !== "") plain(kept);
      whole(token);
      at += token.text.length;
      if (token.stripRight === true) { while (at < text.length && text.slice(at, at + 1).trim() === "") at++; }
      done = at;
    }
    if (done < text.length) plain(text.slice(done));
  }

  /** The longest token at `at`; control tokens only when they end by `trustedEnd`. */
  #at(text: string, at: number, trustedEnd: number): WholeToken | undefined {
    for (const length of this.#lengths.get(text.charCodeAt(at)) ?? []) {
      if (at + length > text.length) continue;
      const token = this.#byText.get(text.slice(at, at + length));
      if (token !== undefined && (!token.control || at + length <= trustedEnd)) return token;
    }
    return undefined;
  }
}
