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

/** A step into the texts of tokens, one UTF-16 unit deeper each. */
interface Node {
  token?: WholeToken;
  next?: Map<number, Node>;
}

/** Finds whole tokens: leftmost first, the longest of those that begin there. */
export class WholeTokens {
  readonly #byText = new Map<string, WholeToken>();
  /** By first unit: most positions of a text are ruled out by one look. */
  readonly #first: (Node | undefined)[] = new Array(65536);

  /** Tokens with empty text never match; of two with the same text the first counts. */
  constructor(tokens: Iterable<WholeToken>) {
    for (const token of tokens) {
      const { text } = token;
      if (text === "" || this.#byText.has(text)) continue;
      this.#byText.set(text, token);
      let node = this.#first[text.charCodeAt(0)] ??= {};
      for (let i = 1; i < text.length; i++) {
        const next: Map<number, Node> = node.next ??= new Map(), unit = text.charCodeAt(i);
        let deeper = next.get(unit);
        if (deeper === undefined) next.set(unit, deeper = {});
        node = deeper;
      }
      node.token = token;
    }
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
      const node = this.#first[text.charCodeAt(at)];
      const token = node === undefined ? undefined : longest(node, text, at, special ? partEnd : 0);
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
}

/** The longest token that begins at `at`, where `node` is its first unit's; control tokens only when they end by `trustedEnd`. */
function longest(node: Node, text: string, at: number, trustedEnd: number): WholeToken | undefined {
  let found: WholeToken | undefined;
  for (let end = at + 1, here: Node | undefined = node; here !== undefined; end++) {
    const { token, next } = here as Node;
    if (token !== undefined && (!token.control || end <= trustedEnd)) found = token;
    here = end < text.length ? next?.get(text.charCodeAt(end)) : undefined;
  }
  return found;
}
