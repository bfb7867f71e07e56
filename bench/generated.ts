/**
 * Generated heads of any length, in the format of recorded ones (docs/recorded_heads.md), equal for equal seeds.
 *
 *     deno run -A bench/generated.ts --tokens 131072 --dim 128 --kv-heads 4 --group 4 --seed 1 --out HEADS.kvqk
 *
 * Recipe, after what real heads show (`deno run -A bench/head_stats.ts FILE` measures both):
 * - The text is sections of one topic each; topics and words recur by Zipf's law. A key's content is topic + word + noise.
 * - Content lies in the slowly turning quarter of the dimensions, as in trained models; decode queries therefore want, turned a
 *   little, what prompt queries of their topic wanted.
 * - Queries are off the keys' distribution: where keys vary much queries are small, and the reverse; both have means that are
 *   large beside their spread, and the query's mean gives some keys an advantage with every query.
 * - The faster three quarters hold a pattern that favours near tokens: the window. The first four keys are sinks.
 * - Sharpness, the standard deviation of the logits in nats, differs by KV head: from diffuse (1.8) to peaked (3.6).
 *
 * @module
 */
import { parseArgs } from "node:util";
import type { LayerShape } from "../core/kv.ts";
import { encodeTables, numPromptQueries, planFile, type RecordedHeader } from "./recorded_format.ts";

/** What to generate: one layer. */
export interface GeneratedOptions {
  /** Tokens, at least 1024. */
  readonly tokens: number;
  /** Dimensions of a head: a multiple of 16. */
  readonly dim: number;
  /** KV heads. */
  readonly kvHeads: number;
  /** Query heads a KV head. */
  readonly group: number;
  /** Equal seeds give equal files. */
  readonly seed: number;
  /** Queries at the end, one a position. */
  readonly decoded: number;
  /** Every so-manieth prompt query. */
  readonly stride: number;
}

const SHARPNESS = [2.6, 1.8, 3.2, 2.2, 3.6];
const WINDOW = 512;
const SINKS = 4;
const WORDS = 8192;
const SECTION = 192;
/** Rows generated between two writes. */
const BLOCK = 4096;
/** Shares of a content vector's variance. */
const [TOPIC, WORD, NOISE] = [0.35, 0.35, 0.3].map(Math.sqrt) as [number, number, number];
/** Share of a query's variance that all queries have in common. */
const COMMON = Math.sqrt(0.2);

/** Mulberry32 (Ettinger): one 32-bit word of state, seeded by mixing what a stream is for. */
class Stream {
  #state: number;

  constructor(...ids: number[]) {
    let h = 0x9e3779b9;
    for (const id of ids) {
      h = Math.imul(h ^ id, 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      h ^= h >>> 16;
    }
    this.#state = h;
  }

  bits(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  uniform(): number {
    return this.bits() / 4294967296;
  }

  /** Sum of four uniform numbers: close enough to a normal one, and quick. */
  normal(): number {
    const [a, b] = [this.bits(), this.bits()];
    return ((a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16) - 131070) * (Math.sqrt(3) / 65536);
  }

  normals(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.normal());
  }
}

/** Which topic and word each position has: the same for all heads, as in a text. */
function makeText(tokens: number, seed: number): { topics: Uint32Array; words: Uint32Array; numTopics: number } {
  const random = new Stream(seed, 1);
  const numTopics = 32 + Math.ceil(tokens / 4096);
  const zipf = (n: number) => Math.min(n - 1, Math.floor(Math.pow(n, random.uniform())) - 1);
  const topics = new Uint32Array(tokens);
  const words = new Uint32Array(tokens);
  for (let i = 0, end = 0, topic = 0; i < tokens; i++) {
    if (i === end) {
      topic = zipf(numTopics);
      end += SECTION / 2 + Math.floor(random.uniform() * SECTION);
    }
    topics[i] = topic;
    words[i] = zipf(WORDS);
  }
  return { topics, words, numTopics };
}

type Text = ReturnType<typeof makeText>;

/** Where content and position live in a head, and the rotation of both. */
class Geometry {
  /** As in models of longer contexts it grows: the fastest pair of content turns by one radian over all tokens. */
  readonly base: number;
  readonly frequencies: Float64Array;
  /** Dimensions of content: both of each slow pair. */
  readonly content: number[] = [];
  /** Pairs whose waves are of the window's size. */
  readonly near: number[] = [];

  constructor(readonly dim: number, tokens: number) {
    const half = dim / 2;
    this.base = Math.pow(tokens, 4 / 3);
    this.frequencies = Float64Array.from({ length: half }, (_, i) => Math.pow(this.base, -i / half));
    for (let i = 0; i < half; i++) {
      if (i >= 3 * half / 4) this.content.push(i, i + half);
      else if ((this.frequencies[i] as number) < 0.2 && (this.frequencies[i] as number) > 1 / (4 * WINDOW)) {
        this.near.push(i);
      }
    }
  }

  /** Turns rows[at …] to `position`, halves pairing. */
  rotate(rows: Float32Array, at: number, position: number): void {
    const half = this.dim / 2;
    for (let i = 0; i < half; i++) {
      const angle = position * (this.frequencies[i] as number);
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      const [a, b] = [rows[at + i] as number, rows[at + half + i] as number];
      rows[at + i] = a * cos - b * sin;
      rows[at + half + i] = a * sin + b * cos;
    }
  }
}

/** One KV head: makes unrotated rows, then turns them. */
class Head {
  readonly #topics: Float32Array;
  readonly #words: Float32Array;
  readonly #valueMix: Float32Array;
  readonly #keyMean: Float32Array;
  readonly #valueMean: Float32Array;
  readonly #common: Float32Array;
  readonly #gain: Float32Array;
  readonly #sharpness: number;
  readonly #latent: Float32Array;

  constructor(
    readonly geometry: Geometry,
    readonly text: Text,
    readonly options: GeneratedOptions,
    readonly head: number,
  ) {
    const { seed, dim } = options;
    const random = new Stream(seed, 2, head);
    const r = geometry.content.length;
    this.#topics = random.normals(text.numTopics * r);
    this.#words = random.normals(WORDS * r);
    this.#valueMix = random.normals(r * dim);
    this.#keyMean = random.normals(dim).map((x) => 3 * x);
    this.#valueMean = random.normals(dim).map((x) => 0.3 * x);
    this.#common = random.normals(r);
    // Keys vary most where queries are small; both dimensions of a pair alike, since turning mixes them.
    this.#gain = new Float32Array(r).map((_, j) => Math.pow(6, (j >> 1) / (r / 2 - 1) - 0.5));
    this.#sharpness = SHARPNESS[head % SHARPNESS.length] as number;
    this.#latent = new Float32Array(r);
  }

  /** Topic + word + noise of a position, unit variance. */
  #content(position: number, word: number, random: Stream): Float32Array {
    const r = this.#latent.length;
    const topic = this.text.topics[position] as number;
    for (let j = 0; j < r; j++) {
      this.#latent[j] = TOPIC * (this.#topics[topic * r + j] as number) + WORD * (this.#words[word * r + j] as number) +
        NOISE * random.normal();
    }
    return this.#latent;
  }

  /** Key and value of a position into rows at `at`. */
  fill(keys: Float32Array, values: Float32Array, at: number, position: number): void {
    const { geometry: { content, near }, options: { seed, dim, tokens } } = this;
    const random = new Stream(seed, 3, this.head, position);
    const latent = this.#content(position, this.text.words[position] as number, random);
    for (let j = 0; j < dim; j++) {
      keys[at + j] = 0.5 * random.normal();
      values[at + j] = (this.#valueMean[j] as number) + 0.5 * random.normal();
    }
    const spread = 1 / Math.sqrt(content.length);
    for (let l = 0; l < content.length; l++) {
      const x = latent[l] as number;
      const j = content[l] as number;
      keys[at + j] = (this.#keyMean[j] as number) + (this.#gain[l] as number) * x;
      for (let c = 0; c < dim; c++) {
        values[at + c] = (values[at + c] as number) + spread * x * (this.#valueMix[l * dim + c] as number);
      }
    }
    for (const i of near) keys[at + i] = (keys[at + i] as number) + 3;
    if (position < SINKS) {
      // As much above the mean logit as gives the sinks a fifth of the mass, through the query's common direction.
      const lift = Math.log(tokens) + this.#sharpness ** 2 / 2 - Math.log(1.5 * SINKS);
      const norm = this.#common.reduce((sum, x) => sum + x * x, 0);
      const factor = lift / (COMMON * this.#sharpness) * Math.sqrt(content.length) / norm;
      content.forEach((j, l) => {
        keys[at + j] = (this.#keyMean[j] as number) + (this.#gain[l] as number) * factor * (this.#common[l] as number);
        values[at + j] = 0;
      });
    }
    this.geometry.rotate(keys, at, position);
  }

  /** Query of a position and a head of the group into `rows` at `at`. */
  query(rows: Float32Array, at: number, position: number, member: number): void {
    const { geometry: { content, near }, options: { seed, dim, tokens } } = this;
    const random = new Stream(seed, 4, this.head, position, member);
    // It asks for a word of its own choice, in the topic it stands in.
    const word = this.text.words[Math.floor(random.uniform() * position)] as number;
    const latent = this.#content(position, word, random);
    const sharpness = this.#sharpness * (0.9 + 0.2 * (member + 0.5) / this.options.group);
    const factor = sharpness * Math.sqrt(dim / content.length);
    for (let j = 0; j < dim; j++) rows[at + j] = 0.3 * random.normal();
    content.forEach((j, l) => {
      const y = COMMON * (this.#common[l] as number) + Math.sqrt(1 - COMMON ** 2) * (latent[l] as number);
      rows[at + j] = factor * y / (this.#gain[l] as number);
    });
    const lift = Math.log(tokens / WINDOW) + sharpness ** 2 / 2 - 2.25;
    for (const i of near) rows[at + i] = (rows[at + i] as number) + lift * Math.sqrt(dim) / (3 * near.length);
    this.geometry.rotate(rows, at, position);
  }
}

/** Writes a file of one generated layer. Throws `RangeError` for sizes it cannot make. */
export function generate(path: string, options: GeneratedOptions): void {
  const { tokens, dim, kvHeads, group, decoded, stride } = options;
  if (tokens < 1024 || dim < 32 || dim % 16 !== 0 || kvHeads < 1 || group < 1 || decoded >= tokens || stride < 1) {
    throw new RangeError(`Cannot generate ${tokens} tokens of ${kvHeads} × ${group} heads of ${dim} dimensions`);
  }
  const geometry = new Geometry(dim, tokens);
  const shape: LayerShape = {
    heads: kvHeads * group,
    kvHeads,
    headDim: dim,
    scale: 1 / Math.sqrt(dim),
    rope: { frequencies: geometry.frequencies, dims: dim, pairing: "halves", magnitude: 1 },
  };
  const name = `generated seed ${options.seed}`;
  const header: RecordedHeader = { name, tokens, decoded, stride, ropeBase: geometry.base };
  const { entries, bytes } = planFile(header, [[0, shape]]);
  const at = entries[0]?.at as (typeof entries)[number]["at"];
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  file.truncateSync(bytes);
  const write = (offset: number, data: ArrayBufferView<ArrayBufferLike>) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    const left = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    for (let done = 0; done < left.length;) done += file.writeSync(left.subarray(done));
  };
  write(0, encodeTables(header, entries, bytes));
  write(at.frequencies, geometry.frequencies);
  const text = makeText(tokens, options.seed);
  const heads = Array.from({ length: kvHeads }, (_, h) => new Head(geometry, text, options, h));
  const keys = new Float32Array(BLOCK * dim);
  const values = new Float32Array(BLOCK * dim);
  for (const [h, head] of heads.entries()) {
    for (let from = 0; from < tokens; from += BLOCK) {
      const count = Math.min(BLOCK, tokens - from);
      for (let i = 0; i < count; i++) head.fill(keys, values, i * dim, from + i);
      const place = 2 * (h * tokens + from) * dim;
      write(at.keys + place, new Float16Array(keys.subarray(0, count * dim)));
      write(at.values + place, new Float16Array(values.subarray(0, count * dim)));
    }
  }
  const numPrompt = numPromptQueries(header);
  const positions = Int32Array.from({ length: numPrompt }, (_, i) => (i + 1) * stride - 1);
  const decode = Int32Array.from({ length: decoded }, (_, i) => tokens - decoded + i);
  write(at.promptPositions, positions);
  const row = new Float32Array(kvHeads * group * dim);
  for (const [list, offset] of [[positions, at.promptQueries], [decode, at.decodeQueries]] as const) {
    list.forEach((position, i) => {
      heads.forEach((head, h) => {
        for (let m = 0; m < group; m++) head.query(row, (h * group + m) * dim, Math.max(1, position), m);
      });
      write(offset + 2 * i * row.length, new Float16Array(row));
    });
  }
}

function main(args: string[]): void {
  const { values } = parseArgs({
    args,
    options: {
      tokens: { type: "string", default: "131072" },
      dim: { type: "string", default: "128" },
      "kv-heads": { type: "string", default: "4" },
      group: { type: "string", default: "4" },
      seed: { type: "string", default: "1" },
      decoded: { type: "string", default: "256" },
      stride: { type: "string", default: "16" },
      out: { type: "string" },
    },
  });
  if (values.out === undefined) throw new RangeError("Cannot generate: --out is missing");
  generate(values.out, {
    tokens: Number(values.tokens),
    dim: Number(values.dim),
    kvHeads: Number(values["kv-heads"]),
    group: Number(values.group),
    seed: Number(values.seed),
    decoded: Number(values.decoded),
    stride: Number(values.stride),
  });
}

if (import.meta.main) main(Deno.args);
