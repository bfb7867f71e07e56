/**
 * What a generation's text must look like, as data, and as a network of states that read bytes.
 *
 * A network is a recursive transition network (Woods 1970): rules may call each other, so that values nest to any depth.
 *
 * @module
 */
import { gbnfPart } from "./gbnf.ts";
import { jsonValue } from "./json_grammar.ts";
import { SchemaCompiler } from "./json_schema.ts";

/** A text's form; can be posted. */
export type Grammar =
  /** Exactly this. */
  | { readonly text: string }
  /** A JSON value, or one of a JSON schema. */
  | { readonly json: unknown }
  /** What the rule `root` of a grammar in llama.cpp's notation reads. */
  | { readonly gbnf: string }
  /** One after the other. */
  | { readonly sequence: readonly Grammar[] }
  /** Any of them. */
  | { readonly anyOf: readonly Grammar[] }
  /** At least one, with `separator` between them. */
  | { readonly many: Grammar; readonly separator: string };

/** Adds states that read something, from a state on; returns the state after it. */
export type Part = (from: number) => number;

/** A range of bytes, both included. */
export type Range = readonly [number, number];

/** A way out of a state: over a byte, over none, or through another rule. */
export interface Edge {
  /** 256 entries, 1 where the byte is read; absent: none is read. */
  readonly bytes?: Uint8Array;
  /** The rule that comes between. */
  readonly rule?: number;
  /** Where it leads. */
  readonly to: number;
}

/** A rule's ends. */
export interface Rule {
  /** First state. */
  readonly start: number;
  /** Last state; -1 while it is being built. */
  end: number;
}

const MAX_STATES = 200_000;

/** See the module's head. Building blocks of grammars. */
export class Network {
  /** Ways out of each state. */
  readonly edges: Edge[][] = [];
  /** Rule 0 is the whole text. */
  readonly rules: Rule[] = [];
  /** Bytes that texts cannot do without. */
  readonly literals = new Set<number>();
  readonly #sets = new Map<string, Uint8Array>();
  readonly #texts = new TextEncoder();

  /** A new state. Throws `RangeError` when there are too many. */
  state(): number {
    if (this.edges.length >= MAX_STATES) throw new RangeError("Cannot use grammar: it is too large");
    this.edges.push([]);
    return this.edges.length - 1;
  }

  /** A new rule, to be filled in by {@link fill}: it may call itself. */
  rule(): number {
    this.rules.push({ start: this.state(), end: -1 });
    return this.rules.length - 1;
  }

  /** Says what rule `id` reads. */
  fill(id: number, part: Part): void {
    const rule = this.rules[id] as Rule;
    rule.end = part(rule.start);
  }

  /** Goes through a rule. */
  call(rule: number): Part {
    return (from) => this.#link(from, { rule, to: this.state() });
  }

  /** Exactly `text`, as UTF-8. */
  text(text: string): Part {
    return (from) => {
      for (const byte of this.#texts.encode(text)) {
        this.literals.add(byte);
        from = this.bytes([byte, byte])(from);
      }
      return from;
    };
  }

  /** One byte of some ranges. */
  bytes(...ranges: readonly Range[]): Part {
    const key = ranges.join(";");
    let set = this.#sets.get(key);
    if (set === undefined) {
      set = new Uint8Array(256);
      for (const [low, high] of ranges) set.fill(1, low, high + 1);
      this.#sets.set(key, set);
    }
    const bytes = set;
    return (from) => this.#link(from, { bytes, to: this.state() });
  }

  /** One after the other. */
  sequence(...parts: readonly Part[]): Part {
    return (from) => parts.reduce((at, part) => part(at), from);
  }

  /** Any of them. */
  anyOf(...parts: readonly Part[]): Part {
    return (from) => {
      const end = this.state();
      for (const part of parts) this.#link(part(this.#link(from, { to: this.state() })), { to: end });
      return end;
    };
  }

  /** It, or nothing. */
  optional(part: Part): Part {
    return this.anyOf(part, (from) => from);
  }

  /** Any number of times, none included. */
  star(part: Part): Part {
    return (from) => {
      const loop = this.#link(from, { to: this.state() });
      this.#link(part(loop), { to: loop });
      return this.#link(loop, { to: this.state() });
    };
  }

  /** `min` to `max` times, with `separator` in between. */
  repeat(part: Part, min: number, max: number, separator: Part = (from) => from): Part {
    return (from) => {
      const end = this.state();
      if (min === 0) this.#link(from, { to: end });
      for (let i = 1; i <= Math.min(max, Math.max(min, 1) + (max === Infinity ? 0 : max)); i++) {
        from = part(i === 1 ? from : separator(from));
        if (i >= min) this.#link(from, { to: end });
        if (max === Infinity && i >= min) {
          this.#link(this.star(this.sequence(separator, part))(from), { to: end });
          break;
        }
      }
      return end;
    };
  }

  /** Continues at `to` without reading. */
  skip(from: number, to: number): void {
    this.#link(from, { to });
  }

  #link(from: number, edge: Edge): number {
    (this.edges[from] as Edge[]).push(edge);
    return edge.to;
  }
}

/** The network of a grammar. Throws `RangeError` naming the keyword of a schema, or the line of a grammar, that is not understood. */
export function compileGrammar(grammar: Grammar): Network {
  const network = new Network();
  const root = network.rule();
  network.fill(root, partOf(network, grammar));
  return network;
}

function partOf(network: Network, grammar: Grammar): Part {
  if ("gbnf" in grammar) return gbnfPart(network, grammar.gbnf);
  if ("text" in grammar) return network.text(grammar.text);
  if ("sequence" in grammar) return network.sequence(...grammar.sequence.map((inner) => partOf(network, inner)));
  if ("anyOf" in grammar) return network.anyOf(...grammar.anyOf.map((inner) => partOf(network, inner)));
  if ("many" in grammar) {
    const rule = network.rule();
    network.fill(rule, partOf(network, grammar.many));
    return network.repeat(network.call(rule), 1, Infinity, network.text(grammar.separator));
  }
  if (grammar.json === true) return jsonValue(network);
  return new SchemaCompiler(network, grammar.json).part();
}
