/**
 * Reads recorded heads: docs/recorded_heads.md.
 *
 *     deno run -A bench/recorded.ts check FILE…     attends in float64 and compares with what the model's attention returned
 *
 * @module
 */
import { scoreAll, widen } from "./exact.ts";
import {
  decodeEntry,
  decodeHeader,
  HEADER_BYTES,
  LAYER_BYTES,
  type RecordedEntry,
  type RecordedHeader,
} from "./recorded_format.ts";

/** One layer's arrays, in memory. Halves are kept as they are; `new Float32Array(keys)` widens them. */
export interface RecordedLayer extends RecordedEntry {
  /** [kvHeads, tokens, headDim] */
  readonly keys: Float16Array<ArrayBuffer>;
  /** As keys. */
  readonly values: Float16Array<ArrayBuffer>;
  /** [numPrompt], ascending */
  readonly promptPositions: Int32Array<ArrayBuffer>;
  /** [numPrompt, heads, headDim] */
  readonly promptQueries: Float16Array<ArrayBuffer>;
  /** [decoded, heads, headDim]; row i is position tokens − decoded + i. */
  readonly decodeQueries: Float16Array<ArrayBuffer>;
  /** [decoded, heads, headDim]: what the model's attention returned. */
  readonly outputs: Float16Array<ArrayBuffer>;
}

/** An open file; layers are read as they are asked for. */
export class RecordedHeads implements Disposable {
  /** What the header says. */
  readonly header: RecordedHeader;
  /** The layer table. */
  readonly entries: readonly RecordedEntry[];
  readonly #file: Deno.FsFile;

  /** Throws `RangeError` for a file of another kind, cut off or damaged. */
  constructor(path: string) {
    this.#file = Deno.openSync(path);
    try {
      const { size } = this.#file.statSync();
      const { header, numLayers } = decodeHeader(this.#read(0, Math.min(size, HEADER_BYTES)), size);
      this.header = header;
      const table = new DataView(this.#read(HEADER_BYTES, LAYER_BYTES * numLayers).buffer);
      const frequencies = (at: number, count: number) => new Float64Array(this.#read(at, 8 * count).buffer);
      this.entries = Array.from({ length: numLayers }, (_, i) => decodeEntry(table, i, header, size, frequencies));
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** Entry `i` of the table with its arrays. */
  layer(i: number): RecordedLayer {
    const entry = this.entries[i];
    if (entry === undefined) throw new RangeError(`Cannot read layer ${i}: the file has ${this.entries.length}`);
    const { shape: { heads, kvHeads, headDim }, numPrompt, at } = entry;
    const { tokens, decoded } = this.header;
    const halves = (offset: number, count: number) => new Float16Array(this.#read(offset, 2 * count).buffer);
    return {
      ...entry,
      keys: halves(at.keys, kvHeads * tokens * headDim),
      values: halves(at.values, kvHeads * tokens * headDim),
      promptPositions: new Int32Array(this.#read(at.promptPositions, 4 * numPrompt).buffer),
      promptQueries: halves(at.promptQueries, numPrompt * heads * headDim),
      decodeQueries: halves(at.decodeQueries, decoded * heads * headDim),
      outputs: halves(at.outputs, decoded * heads * headDim),
    };
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }

  #read(at: number, count: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(count);
    this.#file.seekSync(at, Deno.SeekMode.Start);
    for (let done = 0; done < count;) {
      const read = this.#file.readSync(bytes.subarray(done));
      if (read === null) throw new RangeError(`Cannot read recorded heads: the file ends at byte ${at + done}`);
      done += read;
    }
    return bytes;
  }
}

/** Attention of one decode query over all keys up to its own, in float64: the output [headDim]. */
export function attendRecorded(
  header: RecordedHeader,
  layer: RecordedLayer,
  query: number,
  head: number,
): Float64Array {
  const { heads, kvHeads, headDim: d } = layer.shape;
  const seen = header.tokens - header.decoded + query + 1;
  const scores = scoreAll(layer, header.tokens, seen, head, layer.decodeQueries, query);
  const max = scores.reduce((a, x) => Math.max(a, x), -Infinity);
  const at = Math.floor(head / (heads / kvHeads)) * header.tokens * d;
  const values = widen(layer.values.subarray(at, at + seen * d));
  const out = new Float64Array(d);
  let sum = 0;
  for (let i = 0; i < seen; i++) {
    const weight = Math.exp((scores[i] as number) - max);
    sum += weight;
    for (let j = 0; j < d; j++) out[j] = (out[j] as number) + weight * (values[i * d + j] as number);
  }
  return out.map((x) => x / sum);
}

/** Relative L2 distance of a decode query's recorded output from {@link attendRecorded}. */
export function outputError(header: RecordedHeader, layer: RecordedLayer, query: number, head: number): number {
  const { heads, headDim: d } = layer.shape;
  const expected = attendRecorded(header, layer, query, head);
  const at = (query * heads + head) * d;
  let [difference, norm] = [0, 0];
  for (let j = 0; j < d; j++) {
    difference += ((layer.outputs[at + j] as number) - (expected[j] as number)) ** 2;
    norm += (expected[j] as number) ** 2;
  }
  return Math.sqrt(difference / norm);
}

function check(path: string): void {
  using file = new RecordedHeads(path);
  const { header, entries } = file;
  let worst = { error: 0, where: "" };
  let [sum, count] = [0, 0];
  for (let i = 0; i < entries.length; i++) {
    const layer = file.layer(i);
    for (const query of [0, header.decoded - 1]) {
      for (let head = 0; head < layer.shape.heads; head++) {
        const error = outputError(header, layer, query, head);
        if (error > worst.error) worst = { error, where: `layer ${layer.layer}, head ${head}, decode query ${query}` };
        sum += error;
        count++;
      }
    }
  }
  const mean = (sum / count).toExponential(1);
  console.log(`${path}: ${header.name}, ${header.tokens} tokens, ${entries.length} layers`);
  console.log(
    `relative error of recorded outputs: mean ${mean}, worst ${worst.error.toExponential(1)} (${worst.where})`,
  );
}

if (import.meta.main) {
  const [command, ...paths] = Deno.args;
  if (command !== "check" || paths.length === 0) throw new RangeError("Cannot run: use check FILE…");
  for (const path of paths) check(path);
}
