/**
 * Which tokens may come next under a grammar. The vocabulary is a tree in depth-first order, walked along the automaton: what
 * cannot go on is skipped with all that begins with it. A state's answer is kept with the state.
 *
 * @module
 */
import type { Tokenizer } from "../model/model.ts";
import { Automaton, type AutomatonState } from "./automaton.ts";
import { compileGrammar, type Grammar, type Network } from "./grammar.ts";

/** Grammars whose states are remembered. */
const MAX_GRAMMARS = 32;
/** Longer tokens are never drawn under a grammar. */
const MAX_TOKEN_BYTES = 1024;

/** A model's vocabulary, ready to be masked. */
export class TokenMasks {
  readonly #tokenizer: Tokenizer;
  readonly #automata = new Map<string, Automaton>();
  /** Of each node, depth first: its last byte, its depth, the node after its subtree, its tokens in `#ids`. */
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #depths: Uint16Array<ArrayBuffer>;
  readonly #skips: Int32Array<ArrayBuffer>;
  readonly #from: Int32Array<ArrayBuffer>;
  readonly #ids: Int32Array<ArrayBuffer>;
  /** Bytes of each token in `#ids`. */
  readonly #lengths: Uint16Array<ArrayBuffer>;
  readonly #singles = new Set<number>();
  /** What {@link Constraint.banned} returns lies here. */
  readonly #banned: Int32Array<ArrayBuffer>;
  readonly #stack: AutomatonState[] = [];

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    const { vocab, eos } = tokenizer;
    const texts: string[] = [];
    for (let id = 0; id < vocab; id++) {
      // Control tokens are no text.
      if (eos.has(id) || tokenizer.isControl(id)) continue;
      const bytes = tokenizer.bytes(id);
      if (bytes.length === 0 || bytes.length > MAX_TOKEN_BYTES) continue;
      if (bytes.length === 1) this.#singles.add(bytes[0] as number);
      texts.push(sortable(bytes, id));
    }
    texts.sort();
    const tree = new TreeBuilder(texts.length);
    for (const text of texts) tree.add(text);
    ({ bytes: this.#bytes, depths: this.#depths, skips: this.#skips, from: this.#from } = tree.finish());
    this.#ids = tree.ids;
    this.#lengths = tree.lengths;
    this.#banned = new Int32Array(vocab);
  }

  /** A new text under `grammar`. Throws `RangeError` for a grammar that is none, or that this vocabulary cannot write. */
  constrain(grammar: Grammar): Constraint {
    const key = JSON.stringify(grammar);
    let automaton = this.#automata.get(key);
    if (automaton === undefined) {
      const network = compileGrammar(grammar);
      this.#check(network);
      automaton = new Automaton(network);
      const oldest = this.#automata.keys().next();
      if (this.#automata.size >= MAX_GRAMMARS && !oldest.done) this.#automata.delete(oldest.value);
    } else {
      this.#automata.delete(key);
    }
    this.#automata.set(key, automaton);
    return new Constraint(automaton, this);
  }

  /** [banned] ids that may not come at `state`, in rising order; valid until the next call. */
  banned(automaton: Automaton, state: AutomatonState): Int32Array<ArrayBuffer> {
    const mask = state.mask ??= this.#walk(automaton, state);
    const { eos, vocab } = this.#tokenizer;
    const out = this.#banned;
    let n = 0;
    for (let word = 0; word < mask.length; word++) {
      const bits = mask[word] as number;
      if (bits === 0xffffffff) continue;
      const end = Math.min(vocab, 32 * word + 32);
      for (let id = 32 * word; id < end; id++) if ((bits >>> (id & 31) & 1) === 0) out[n++] = id;
    }
    if (!state.isEnd) return out.subarray(0, n);
    // The text may end: so may the generation.
    let kept = 0;
    for (let i = 0; i < n; i++) if (!eos.has(out[i] as number)) out[kept++] = out[i] as number;
    return out.subarray(0, kept);
  }

  /** Works out which tokens may come at `state`. Throws `RangeError` where none may, or where that takes too much work. */
  prepare(automaton: Automaton, state: AutomatonState): void {
    if (state.mask === undefined) {
      automaton.renew();
      state.mask = this.#walk(automaton, state);
    }
    if (state.isEnd || state.mask.some((bits) => bits !== 0)) return;
    throw new RangeError("Cannot use grammar: no token of the model goes on from here");
  }

  /** One token's bytes. */
  bytes(token: number): Uint8Array {
    return this.#tokenizer.bytes(token);
  }

  /** Whether it ends a generation. */
  isEnd(token: number): boolean {
    return this.#tokenizer.eos.has(token);
  }

  #walk(automaton: Automaton, start: AutomatonState): Uint32Array<ArrayBuffer> {
    const mask = new Uint32Array(Math.ceil(this.#tokenizer.vocab / 32));
    const stack = this.#stack;
    stack[0] = start;
    const [bytes, depths, skips, from, ids, lengths] = [
      this.#bytes,
      this.#depths,
      this.#skips,
      this.#from,
      this.#ids,
      this.#lengths,
    ];
    for (let node = 0; node < bytes.length;) {
      const depth = depths[node] as number;
      const next = automaton.step(stack[depth] as AutomatonState, bytes[node] as number);
      if (next === null) {
        node = skips[node] as number;
        continue;
      }
      stack[depth + 1] = next;
      for (let i = from[node] as number; i < ids.length && lengths[i] === depth + 1 && this.#endsAt(i, node); i++) {
        const id = ids[i] as number;
        mask[id >>> 5] = (mask[id >>> 5] as number) | (1 << (id & 31));
      }
      node++;
    }
    return mask;
  }

  /** Whether text `i` ends with `node`: it lies in its subtree, and has its length. */
  #endsAt(i: number, node: number): boolean {
    return i < (this.#from[this.#skips[node] as number] as number);
  }

  #check({ literals }: Network): void {
    for (const byte of literals) {
      if (this.#singles.has(byte)) continue;
      throw new RangeError(`Cannot use grammar: no token of the model is the byte 0x${byte.toString(16)} alone`);
    }
  }
}

/** Bytes above zero, then zero and the id: the runtime's plain order of texts puts a text before those that begin with it. */
function sortable(bytes: Uint8Array, id: number): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte + 1);
  return text + String.fromCharCode(0, id >>> 12, id & 4095);
}

/** Makes the tree of texts that come in order. */
class TreeBuilder {
  readonly ids: Int32Array<ArrayBuffer>;
  readonly lengths: Uint16Array<ArrayBuffer>;
  readonly #nodes: { bytes: number[]; depths: number[]; skips: number[]; from: number[] } = {
    bytes: [],
    depths: [],
    skips: [],
    from: [],
  };
  readonly #open: number[] = [];
  #last = "";
  #count = 0;

  constructor(count: number) {
    this.ids = new Int32Array(count);
    this.lengths = new Uint16Array(count);
  }

  add(text: string): void {
    const { bytes, depths, skips, from } = this.#nodes;
    const length = text.length - 3;
    const most = Math.min(length, this.#last.length - 3);
    let common = 0;
    while (common < most && this.#last.charCodeAt(common) === text.charCodeAt(common)) common++;
    this.#close(common);
    for (let depth = common; depth < length; depth++) {
      this.#open.push(bytes.length);
      bytes.push(text.charCodeAt(depth) - 1);
      depths.push(depth);
      skips.push(0);
      from.push(this.#count);
    }
    this.ids[this.#count] = text.charCodeAt(length + 1) << 12 | text.charCodeAt(length + 2);
    this.lengths[this.#count++] = length;
    this.#last = text;
  }

  finish() {
    this.#close(0);
    const { bytes, depths, skips, from } = this.#nodes;
    from.push(this.#count);
    return {
      bytes: Uint8Array.from(bytes),
      depths: Uint16Array.from(depths),
      skips: Int32Array.from(skips),
      from: Int32Array.from(from),
    };
  }

  #close(depth: number): void {
    while (this.#open.length > depth) this.#nodes.skips[this.#open.pop() as number] = this.#nodes.bytes.length;
  }
}

/** One text that is being written under a grammar. */
export class Constraint {
  readonly #automaton: Automaton;
  readonly #masks: TokenMasks;
  #state: AutomatonState;

  constructor(automaton: Automaton, masks: TokenMasks) {
    this.#automaton = automaton;
    this.#masks = masks;
    this.#state = automaton.start();
  }

  /** [banned] ids that may not come next, in rising order; valid until the next call on any constraint of the model. */
  get banned(): Int32Array<ArrayBuffer> {
    return this.#masks.banned(this.#automaton, this.#state);
  }

  /** Whether the text is whole and nothing can follow. */
  get isFinished(): boolean {
    return this.#state.isEnd && this.#state.places.length === 0;
  }

  /**
   * Works out what may come next, so that {@link banned} and {@link accept} only look it up: a grammar's errors are its own sequence's, not
   * the step's. Throws `RangeError` where no token may come, or where too many ways lead on.
   */
  prepare(): void {
    if (!this.isFinished) this.#masks.prepare(this.#automaton, this.#state);
  }

  /** Books the next token; one that ends a generation changes nothing. Throws `RangeError` for one that may not come. */
  accept(token: number): void {
    if (this.#masks.isEnd(token)) return;
    for (const byte of this.#masks.bytes(token)) {
      const next = this.#automaton.step(this.#state, byte);
      if (next === null) throw new RangeError(`Cannot go on: token ${token} breaks the grammar`);
      this.#state = next;
    }
  }
}
