/**
 * JSON (RFC 8259) as parts of a network. White space is bounded and numbers stay within what a double can hold, so that no
 * text goes on for ever without saying anything.
 *
 * @module
 */
import type { Network, Part, Range } from "./grammar.ts";

const DIGITS: Range = [0x30, 0x39];
const MAX_INDENT = 20;

/** Parts of JSON that many schemas share; one of each a network. */
export class JsonParts {
  readonly #network: Network;
  readonly #rules = new Map<string, number>();

  constructor(network: Network) {
    this.#network = network;
  }

  /** Nothing, a space, or a new line with its indentation. */
  get space(): Part {
    return this.#shared("space", (n) =>
      n.optional(n.anyOf(
        n.bytes([0x20, 0x20]),
        n.sequence(n.bytes([0x0a, 0x0a]), n.repeat(n.bytes([0x20, 0x20], [0x09, 0x09]), 0, MAX_INDENT)),
      )));
  }

  /** A string: whole UTF-8, escapes in pairs where they must be. */
  get string(): Part {
    return this.#shared("string", (n) => {
      const tail = n.bytes([0x80, 0xbf]);
      const hex: readonly Range[] = [DIGITS, [0x41, 0x46], [0x61, 0x66]];
      const character = n.anyOf(
        n.bytes([0x20, 0x21], [0x23, 0x5b], [0x5d, 0x7f]),
        n.sequence(n.bytes([0xc2, 0xdf]), tail),
        n.sequence(n.bytes([0xe0, 0xe0]), n.bytes([0xa0, 0xbf]), tail),
        n.sequence(n.bytes([0xe1, 0xec], [0xee, 0xef]), tail, tail),
        n.sequence(n.bytes([0xed, 0xed]), n.bytes([0x80, 0x9f]), tail),
        n.sequence(n.bytes([0xf0, 0xf0]), n.bytes([0x90, 0xbf]), tail, tail),
        n.sequence(n.bytes([0xf1, 0xf3]), tail, tail, tail),
        n.sequence(n.bytes([0xf4, 0xf4]), n.bytes([0x80, 0x8f]), tail, tail),
      );
      // No half of a surrogate pair: not every reader takes one.
      const code = n.anyOf(
        n.sequence(n.bytes(DIGITS, [0x41, 0x43], [0x61, 0x63], [0x45, 0x46], [0x65, 0x66]), n.bytes(...hex)),
        n.sequence(n.bytes([0x44, 0x44], [0x64, 0x64]), n.bytes([0x30, 0x37])),
      );
      const unicode = n.sequence(n.bytes([0x75, 0x75]), code, n.bytes(...hex), n.bytes(...hex));
      const simple = n.bytes(...[...'"\\/bfnrt'].map((c): Range => [c.charCodeAt(0), c.charCodeAt(0)]));
      const escape = n.sequence(n.bytes([0x5c, 0x5c]), n.anyOf(simple, unicode));
      return n.sequence(n.text('"'), n.star(n.anyOf(character, escape)), n.text('"'));
    });
  }

  /** A whole number of at most 15 digits: doubles hold all of them. */
  get integer(): Part {
    return this.#shared("integer", (n) => {
      const digits = n.sequence(n.bytes([0x31, 0x39]), n.repeat(n.bytes(DIGITS), 0, 14));
      return n.sequence(n.optional(n.bytes([0x2d, 0x2d])), n.anyOf(n.bytes([0x30, 0x30]), digits));
    });
  }

  /** A number. */
  get number(): Part {
    return this.#shared("number", (n) => {
      const fraction = n.sequence(n.bytes([0x2e, 0x2e]), n.repeat(n.bytes(DIGITS), 1, 16));
      const sign = n.optional(n.bytes([0x2b, 0x2b], [0x2d, 0x2d]));
      const exponent = n.sequence(n.bytes([0x45, 0x45], [0x65, 0x65]), sign, n.repeat(n.bytes(DIGITS), 1, 2));
      return n.sequence(this.integer, n.optional(fraction), n.optional(exponent));
    });
  }

  /** `true` or `false`. */
  get boolean(): Part {
    return this.#shared("boolean", (n) => n.anyOf(n.text("true"), n.text("false")));
  }

  /** Anything. */
  get any(): Part {
    return this.#shared(
      "any",
      (n) => n.anyOf(this.object, this.anyArray, this.string, this.number, this.boolean, n.text("null")),
    );
  }

  /** An object of anything. */
  get object(): Part {
    return this.#shared(
      "object",
      (n) => this.braces(n.repeat(this.pair(this.string, this.any), 0, Infinity, this.comma)),
    );
  }

  /** An array of anything. */
  get anyArray(): Part {
    return this.#shared("array", () => this.array(this.any, 0, Infinity));
  }

  /** An array of some items. */
  array(item: Part, min: number, max: number): Part {
    const n = this.#network;
    const items = n.repeat(item, min, max, this.comma);
    return n.sequence(n.text("["), this.space, items, this.space, n.text("]"));
  }

  /** An object around its pairs. */
  braces(pairs: Part): Part {
    const n = this.#network;
    return n.sequence(n.text("{"), this.space, pairs, this.space, n.text("}"));
  }

  /** A name and its value. */
  pair(name: Part, value: Part): Part {
    return this.#network.sequence(name, this.#network.text(":"), this.space, value);
  }

  /** Between items. */
  get comma(): Part {
    return this.#network.sequence(this.#network.text(","), this.space);
  }

  /** A rule that is made when it is first asked for, and may then call itself. */
  #shared(name: string, make: (network: Network) => Part): Part {
    const network = this.#network;
    let rule = this.#rules.get(name);
    if (rule === undefined) {
      this.#rules.set(name, rule = network.rule());
      network.fill(rule, make(network));
    }
    return network.call(rule);
  }
}

/** An object, for `response_format` `json_object`. */
export function jsonValue(network: Network): Part {
  return new JsonParts(network).object;
}
