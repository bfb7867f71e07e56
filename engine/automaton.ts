/**
 * A network run byte by byte. Sets of places become states as they are met, so that each set's transitions are worked out
 * once; a place is a state of the network and the rules to return to.
 *
 * @module
 */
import type { Edge, Network, Rule } from "./grammar.ts";

/** Where to go on when a rule is over: a stack, shared by all that have the same. */
interface Frame {
  readonly id: number;
  readonly to: number;
  readonly parent: Frame | undefined;
  readonly children: Map<number, Frame>;
}

interface Place {
  readonly state: number;
  readonly frame: Frame | undefined;
}

/** All places that one text may have led to. */
export interface AutomatonState {
  /** Places from which a byte is read. */
  readonly places: readonly Place[];
  /** Whether the text may end here. */
  readonly isEnd: boolean;
  /** Undefined: not worked out yet; null: no text goes on so. */
  readonly next: (AutomatonState | null | undefined)[];
  /** For who uses the automaton to keep something with the state. */
  mask?: Uint32Array<ArrayBuffer>;
}

/** Most places that a text may be at. */
const MAX_PLACES = 10_000;
/** Ways looked at for one token: what a hostile grammar may take of everyone's time, half a second. JSON takes a tenth of it at most. */
const MAX_WORK = 4_000_000;
/** When so many states are known, those that nobody stands on are forgotten. */
const MAX_STATES = 20_000;

/** See the module's head. */
export class Automaton {
  readonly #network: Network;
  readonly #ends: ReadonlyMap<number, boolean>;
  readonly #states = new Map<string, AutomatonState>();
  readonly #roots = new Map<number, Frame>();
  #numFrames = 0;
  #work = 0;

  constructor(network: Network) {
    this.#network = network;
    this.#ends = new Map(network.rules.map(({ end }) => [end, true]));
  }

  /** A token is over: the next may take as much work as the last. Throws `RangeError` in {@link step} where one takes too much. */
  renew(): void {
    this.#work = 0;
  }

  /** Before the first byte. */
  start(): AutomatonState {
    const { start } = this.#network.rules[0] as Rule;
    return this.#state([{ state: start, frame: undefined }]) as AutomatonState;
  }

  /** After one more byte; null when no text goes on so. */
  step(from: AutomatonState, byte: number): AutomatonState | null {
    const known = from.next[byte];
    if (known !== undefined) return known;
    const reached: Place[] = [];
    for (const { state, frame } of from.places) {
      this.#spend((this.#network.edges[state] as Edge[]).length);
      for (const { bytes, to } of this.#network.edges[state] as Edge[]) {
        if (bytes?.[byte] === 1) reached.push({ state: to, frame });
      }
    }
    return from.next[byte] = this.#state(reached);
  }

  /** The state of all places that are reached without reading. */
  #state(places: Place[]): AutomatonState | null {
    const seen = new Set<number>();
    const reading: Place[] = [];
    const size = this.#network.edges.length;
    let isEnd = false;
    for (let place = places.pop(); place !== undefined; place = places.pop()) {
      const { state, frame } = place;
      const key = (frame?.id ?? 0) * size + state;
      if (seen.has(key)) continue;
      seen.add(key);
      if (seen.size > MAX_PLACES) throw new RangeError("Cannot use grammar: it has too many ways at once");
      this.#spend((this.#network.edges[state] as Edge[]).length);
      if (this.#ends.has(state)) {
        if (frame === undefined) isEnd = true;
        else places.push({ state: frame.to, frame: frame.parent });
      }
      let reads = false;
      for (const { bytes, rule, to } of this.#network.edges[state] as Edge[]) {
        if (bytes !== undefined) reads = true;
        else if (rule === undefined) places.push({ state: to, frame });
        else places.push({ state: (this.#network.rules[rule] as Rule).start, frame: this.#frame(to, frame) });
      }
      if (reads) reading.push(place);
    }
    if (reading.length === 0 && !isEnd) return null;
    return this.#intern(reading, isEnd, size);
  }

  #spend(work: number): void {
    this.#work += 1 + work;
    if (this.#work > MAX_WORK) throw new RangeError("Cannot use grammar: it has too many ways to go on");
  }

  #intern(places: Place[], isEnd: boolean, size: number): AutomatonState {
    const ids = places.map(({ state, frame }) => (frame?.id ?? 0) * size + state).sort((a, b) => a - b);
    const key = `${isEnd ? "e" : ""}${ids.join(",")}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      // Who stands on a forgotten state goes on from it as before.
      if (this.#states.size >= MAX_STATES) this.#states.clear();
      this.#states.set(key, state = { places, isEnd, next: new Array(256) });
    }
    return state;
  }

  #frame(to: number, parent: Frame | undefined): Frame {
    const siblings = parent?.children ?? this.#roots;
    let frame = siblings.get(to);
    if (frame === undefined) siblings.set(to, frame = { id: ++this.#numFrames, to, parent, children: new Map() });
    return frame;
  }
}
