/**
 * GBNF, llama.cpp's form of grammars, as a network: rules `name ::= …`, texts, character classes, `.`, groups, `|`, and the
 * repetitions `* + ? {m} {m,} {m,n}`. The text is a stranger's: its length, nesting and number of states are bounded, and a rule
 * that calls itself before it reads anything (left recursion) is refused, since no text would ever be begun.
 *
 * Not there: tokens by id or name (`<[123]>`, `<think>`).
 *
 * @module
 */
import type { Network, Part } from "./grammar.ts";
import { type CodeRange, complement, utf8Sequences } from "./utf8_ranges.ts";

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "set"; readonly ranges: readonly CodeRange[] }
  | { readonly kind: "call"; readonly name: string }
  | { readonly kind: "sequence" | "anyOf"; readonly items: readonly Node[] }
  | { readonly kind: "repeat"; readonly item: Node; readonly min: number; readonly max: number };

/** Characters of a grammar. */
const MAX_LENGTH = 65_536;
/** Groups in groups, and rules that begin with rules. */
const MAX_DEPTH = 200;
const MAX_REPEATS = 10_000;
/** Repetitions one behind the other, as `x+?`. */
const MAX_STACKED = 4;
const NAME = /[A-Za-z0-9_-]+/y;
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };
/** Digits behind `\x`, `\u` and `\U`. */
const HEX: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

/** What a grammar's `root` reads. Throws `RangeError` that tells line and remedy. */
export function gbnfPart(network: Network, text: string): Part {
  const rules = new Parser(text).rules();
  if (!rules.has("root")) throw refused("it has no rule named root");
  new Order(rules).check();
  const ids = new Map<string, number>();
  for (const name of rules.keys()) ids.set(name, network.rule());
  for (const [name, node] of rules) network.fill(ids.get(name) as number, partOf(network, ids, node));
  return network.call(ids.get("root") as number);
}

function partOf(network: Network, ids: ReadonlyMap<string, number>, node: Node): Part {
  switch (node.kind) {
    case "text":
      return network.text(node.text);
    case "set":
      return network.anyOf(
        ...utf8Sequences(node.ranges).map((bytes) => network.sequence(...bytes.map((range) => network.bytes(range)))),
      );
    case "call":
      return network.call(ids.get(node.name) as number);
    case "sequence":
      return network.sequence(...node.items.map((item) => partOf(network, ids, item)));
    case "anyOf":
      return network.anyOf(...node.items.map((item) => partOf(network, ids, item)));
    case "repeat":
      // A state each time: how many there may be is bounded, also of what reads nothing.
      return network.repeat(network.sequence(step(network), partOf(network, ids, node.item)), node.min, node.max);
  }
}

function step(network: Network): Part {
  return (from) => {
    const to = network.state();
    network.skip(from, to);
    return to;
  };
}

function refused(why: string): RangeError {
  return new RangeError(`Cannot use grammar: ${why}`);
}

/** Text to rules. */
class Parser {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    if (text.length > MAX_LENGTH) throw refused(`it has ${text.length} characters, at most ${MAX_LENGTH} are taken`);
    this.#text = text;
  }

  rules(): Map<string, Node> {
    const rules = new Map<string, Node>();
    for (this.#space(true); this.#at < this.#text.length; this.#space(true)) {
      const name = this.#name();
      this.#space(false);
      if (!this.#take("::=")) throw this.#error(`expected ::= behind ${name}`);
      if (rules.has(name)) throw this.#error(`rule ${name} is there twice`);
      this.#space(true);
      rules.set(name, this.#alternatives(false));
      if (this.#at < this.#text.length && !this.#newline()) throw this.#error("expected the end of the rule");
    }
    return rules;
  }

  #alternatives(nested: boolean): Node {
    const items = [this.#sequence(nested)];
    while (this.#take("|")) {
      this.#space(true);
      items.push(this.#sequence(nested));
    }
    return items.length === 1 ? items[0] as Node : { kind: "anyOf", items };
  }

  #sequence(nested: boolean): Node {
    const items: Node[] = [];
    for (;;) {
      const item = this.#item();
      if (item === undefined) break;
      this.#space(nested);
      items.push(this.#repeated(item, nested));
    }
    return items.length === 1 ? items[0] as Node : { kind: "sequence", items };
  }

  #item(): Node | undefined {
    const next = this.#text[this.#at];
    if (next === '"') return this.#literal();
    if (next === "[") return this.#class();
    if (next === ".") {
      this.#at++;
      return { kind: "set", ranges: complement([]) };
    }
    if (next === "(") return this.#group();
    if (next === "<" || next === "!") throw this.#error("tokens by id or name are not understood, write their text");
    NAME.lastIndex = this.#at;
    return NAME.test(this.#text) ? { kind: "call", name: this.#name() } : undefined;
  }

  #group(): Node {
    if (++this.#depth > MAX_DEPTH) throw this.#error(`more than ${MAX_DEPTH} groups in each other`);
    this.#at++;
    this.#space(true);
    const node = this.#alternatives(true);
    if (!this.#take(")")) throw this.#error("expected )");
    this.#depth--;
    return node;
  }

  #repeated(item: Node, nested: boolean): Node {
    for (let times = 0;; times++) {
      if (times > MAX_STACKED) throw this.#error(`more than ${MAX_STACKED} repetitions of one thing`);
      let bounds: readonly [number, number];
      if (this.#take("*")) bounds = [0, Infinity];
      else if (this.#take("+")) bounds = [1, Infinity];
      else if (this.#take("?")) bounds = [0, 1];
      else if (this.#take("{")) bounds = this.#bounds();
      else return item;
      item = { kind: "repeat", item, min: bounds[0], max: bounds[1] };
      this.#space(nested);
    }
  }

  /** Behind `{`. */
  #bounds(): readonly [number, number] {
    const match = /\s*(\d{1,9})\s*(,\s*(\d{1,9})?\s*)?\}/y;
    match.lastIndex = this.#at;
    const found = match.exec(this.#text);
    if (found === null) throw this.#error("expected {m}, {m,} or {m,n}");
    this.#at = match.lastIndex;
    const min = Number(found[1]);
    const max = found[2] === undefined ? min : found[3] === undefined ? Infinity : Number(found[3]);
    if (max < min) throw this.#error(`${min} to ${max} times is never`);
    if (min > MAX_REPEATS || (max > MAX_REPEATS && max !== Infinity)) {
      throw this.#error(`at most ${MAX_REPEATS} repetitions are taken`);
    }
    return [min, max];
  }

  #literal(): Node {
    this.#at++;
    let text = "";
    while (!this.#take('"')) text += String.fromCodePoint(this.#character());
    return { kind: "text", text };
  }

  #class(): Node {
    this.#at++;
    const isNegated = this.#take("^");
    const ranges: CodeRange[] = [];
    while (!this.#take("]")) {
      const low = this.#character();
      const isRange = this.#text[this.#at] === "-" && this.#text[this.#at + 1] !== "]";
      if (isRange) this.#at++;
      const high = isRange ? this.#character() : low;
      if (high < low) throw this.#error("a range of characters ends before it begins");
      ranges.push([low, high]);
    }
    const all = isNegated ? complement(ranges) : ranges;
    if (utf8Sequences(all).length === 0) throw this.#error("a character class holds nothing");
    return { kind: "set", ranges: all };
  }

  /** One code point, or what an escape stands for. */
  #character(): number {
    const code = this.#text.codePointAt(this.#at);
    if (code === undefined || code === 0x0a) throw this.#error("a text or character class does not end");
    this.#at += code > 0xffff ? 2 : 1;
    if (code !== 0x5c) return code;
    const escape = this.#text[this.#at++] ?? "";
    const digits = HEX[escape];
    if (digits === undefined) {
      if (!/[nrt"\\[\]\-^]/.test(escape)) throw this.#error(`\\${escape} stands for nothing`);
      return (ESCAPES[escape] ?? escape).codePointAt(0) as number;
    }
    const hex = this.#text.slice(this.#at, this.#at + digits);
    this.#at += digits;
    const value = /^[0-9a-fA-F]+$/.test(hex) && hex.length === digits ? parseInt(hex, 16) : NaN;
    if (!(value <= 0x10ffff) || (value >= 0xd800 && value <= 0xdfff)) {
      throw this.#error(`\\${escape}${hex} is no character`);
    }
    return value;
  }

  #name(): string {
    NAME.lastIndex = this.#at;
    const found = NAME.exec(this.#text);
    if (found === null) throw this.#error("expected the name of a rule");
    this.#at = NAME.lastIndex;
    return found[0];
  }

  #take(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #newline(): boolean {
    return this.#take("\r\n") || this.#take("\n") || this.#take("\r");
  }

  /** Goes over blanks and comments, and over ends of lines where rules may go on. */
  #space(lines: boolean): void {
    const blank = lines ? /(?:[ \t\r\n]|#[^\r\n]*)*/y : /(?:[ \t]|#[^\r\n]*)*/y;
    blank.lastIndex = this.#at;
    blank.test(this.#text);
    this.#at = blank.lastIndex;
  }

  #error(why: string): RangeError {
    const line = this.#text.slice(0, this.#at).split(/\r\n|\r|\n/).length;
    return refused(`line ${line}: ${why}`);
  }
}

/** Finds rules that are not there, and those that come to themselves before anything is read. */
class Order {
  readonly #rules: ReadonlyMap<string, Node>;
  /** Whether a rule may read nothing; undefined while that is being found out. */
  readonly #empties = new Map<string, boolean | undefined>();

  constructor(rules: ReadonlyMap<string, Node>) {
    this.#rules = rules;
  }

  check(): void {
    for (const node of this.#rules.values()) this.#names(node);
    for (const name of this.#rules.keys()) this.#rule(name, 0);
  }

  #names(node: Node): void {
    if (node.kind === "call" && !this.#rules.has(node.name)) throw refused(`there is no rule named ${node.name}`);
    if ("items" in node) { for (const item of node.items) this.#names(item); }
    if ("item" in node) this.#names(node.item);
  }

  #rule(name: string, depth: number): boolean {
    if (this.#empties.has(name)) {
      const known = this.#empties.get(name);
      if (known !== undefined) return known;
      throw refused(`rule ${name} comes to itself before it reads anything (left recursion), write it as a repetition`);
    }
    if (depth > MAX_DEPTH) throw refused(`more than ${MAX_DEPTH} rules begin with each other`);
    this.#empties.set(name, undefined);
    const empty = this.#node(this.#rules.get(name) as Node, depth + 1);
    this.#empties.set(name, empty);
    return empty;
  }

  /** Whether it may read nothing; looks at what can come first in it. */
  #node(node: Node, depth: number): boolean {
    switch (node.kind) {
      case "text":
        return node.text === "";
      case "set":
        return false;
      case "call":
        return this.#rule(node.name, depth);
      case "sequence":
        return node.items.every((item) => this.#node(item, depth));
      case "anyOf":
        return node.items.map((item) => this.#node(item, depth)).some((empty) => empty);
      case "repeat":
        return (node.max > 0 && this.#node(node.item, depth)) || node.min === 0;
    }
  }
}
