/**
 * Records keys, values and queries of a model over a text: docs/recorded_heads.md.
 *
 *     deno run -A bench/record.ts --model M --text FILE --tokens 8192 --stride 8 --out HEADS.kvqk
 *       [--decoded 256] [--rope-base 205000] [--backend cpu]
 *
 * @module
 */
import { parseArgs } from "node:util";
import type { Tensor } from "../core/tensor.ts";
import type { LayerShape } from "../core/kv.ts";
import type { Backend } from "../backends/backend.ts";
import type { Model, ModelConfig } from "../model/model.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import type { KvCache } from "../attention/kv_cache.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "../engine/forward.ts";
import { loadModel } from "../model/mod.ts";
import { openModelFile } from "../model/open.ts";
import { ropeFrequencies } from "../model/rope.ts";
import { loadTokenizer } from "../model/tokenizer.ts";
import { encodeTables, planFile, type RecordedEntry, type RecordedHeader } from "./recorded_format.ts";

/** Tokens of a prompt chunk. */
const CHUNK = 512;

/** Writes at byte offsets of a file that grows. */
class OffsetWriter implements Disposable {
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = Deno.openSync(path, { write: true, create: true, truncate: true });
  }

  write(at: number, data: ArrayBufferView<ArrayBuffer>): void {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#file.seekSync(at, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
  }

  size(bytes: number): void {
    this.#file.truncateSync(bytes);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Runs `tokens` through the model, the last `header.decoded` of them one by one, and writes `path`. Sliding layers are left
 * out: they have no index. Throws `RangeError` when no layer is left or the counts do not fit the tokens.
 */
export function record(
  path: string,
  header: RecordedHeader,
  model: Model,
  backend: Backend,
  tokens: Int32Array,
  progress: (done: number) => void = () => {},
): void {
  const { tokens: n, decoded, stride } = header;
  if (tokens.length !== n || decoded < 1 || decoded >= n || stride < 1) {
    throw new RangeError(`Cannot record: ${tokens.length} tokens, ${decoded} of ${n} decoded, stride ${stride}`);
  }
  const global: (readonly [number, LayerShape])[] = [];
  model.config.layers.forEach((shape, i) => shape.slidingWindow === undefined && global.push([i, shape]));
  if (global.length === 0) throw new RangeError("Cannot record: every layer slides");
  const { entries, bytes } = planFile(header, global);
  using out = new OffsetWriter(path);
  out.size(bytes);
  out.write(0, encodeTables(header, entries, bytes) as Uint8Array<ArrayBuffer>);
  using state = new SequenceState(backend, model.config.layers, "f16", n, undefined);
  let start = 0;
  const forward = new Forward(
    watched(model, (layer, q, o) => writeQueries(out, entries, header, backend, start, layer, q, o)),
    new Ops(backend),
    CHUNK,
  );
  while (start < n) {
    const numTokens = start < n - decoded ? Math.min(CHUNK, n - decoded - start) : 1;
    forward.run([{ state, tokens, start, numTokens, numLogits: 1 }]);
    backend.endStep();
    start += numTokens;
    progress(start);
  }
  for (const entry of entries) writeRows(out, entry, backend, state.cache);
}

/** The model, whose attention is shown to `see`: layer, queries and output, both f32 [tokens, heads, headDim]. */
function watched(model: Model, see: (layer: number, q: Tensor, o: Tensor) => void): Model {
  return {
    config: model.config,
    forward: (step) =>
      model.forward({
        ...step,
        attend: (layer, q, k, v) => {
          const o = step.attend(layer, q, k, v);
          see(layer, q, o);
          return o;
        },
      }),
  };
}

function writeQueries(
  out: OffsetWriter,
  entries: readonly RecordedEntry[],
  { tokens, decoded, stride }: RecordedHeader,
  backend: Backend,
  start: number,
  layer: number,
  q: Tensor,
  o: Tensor,
): void {
  const entry = entries.find((e) => e.layer === layer);
  if (entry === undefined) return;
  const row = entry.shape.heads * entry.shape.headDim;
  const queries = backend.read(q) as Float32Array<ArrayBuffer>;
  const prompt = tokens - decoded;
  if (start >= prompt) {
    const at = 2 * (start - prompt) * row;
    out.write(entry.at.decodeQueries + at, new Float16Array(queries));
    out.write(entry.at.outputs + at, new Float16Array(backend.read(o)));
    return;
  }
  const end = start + queries.length / row;
  // Of queries at stride − 1, 2·stride − 1, … those within [start, end).
  const [first, last] = [Math.floor(start / stride), Math.floor(end / stride)];
  const kept = new Float16Array((last - first) * row);
  const positions = new Int32Array(last - first);
  for (let i = first; i < last; i++) {
    const position = (i + 1) * stride - 1;
    positions[i - first] = position;
    kept.set(queries.subarray((position - start) * row, (position - start + 1) * row), (i - first) * row);
  }
  out.write(entry.at.promptQueries + 2 * first * row, kept);
  out.write(entry.at.promptPositions + 4 * first, positions);
}

function writeRows(out: OffsetWriter, { layer, shape, at }: RecordedEntry, backend: Backend, cache: KvCache): void {
  const { kvHeads, headDim, rope } = shape;
  if (rope !== undefined) out.write(at.frequencies, Float64Array.from(rope.frequencies));
  const kv = cache.layers[layer];
  if (kv === undefined) throw new RangeError(`Cannot record: layer ${layer} has no cache`);
  for (const { start, count, keys, values } of kv.segments) {
    const capacity = keys.shape[1] as number;
    for (const [tensor, offset] of [[keys, at.keys], [values, at.values]] as const) {
      const rows = new Float16Array(backend.read(tensor));
      for (let h = 0; h < kvHeads; h++) {
        const from = h * capacity * headDim;
        out.write(offset + 2 * (h * kv.length + start) * headDim, rows.subarray(from, from + count * headDim));
      }
    }
  }
}

/** The configuration with plain RoPE of another base on the layers that see everything. */
export function withRopeBase(config: ModelConfig, base: number): ModelConfig {
  const layers = config.layers.map((shape) => {
    if (shape.rope === undefined || shape.slidingWindow !== undefined) return shape;
    const { dims, pairing } = shape.rope;
    return { ...shape, rope: { ...ropeFrequencies({ base, dims }), dims, pairing } };
  });
  return { ...config, layers };
}

async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: "string" },
      text: { type: "string" },
      tokens: { type: "string", default: "8192" },
      decoded: { type: "string", default: "256" },
      stride: { type: "string", default: "8" },
      "rope-base": { type: "string", default: "0" },
      backend: { type: "string", default: "cpu" },
      out: { type: "string" },
    },
  });
  if (values.model === undefined || values.text === undefined || values.out === undefined) {
    throw new RangeError("Cannot record: --model, --text and --out are needed");
  }
  using opened = openModelFile(values.model);
  const n = Number(values.tokens);
  const tokens = Int32Array.from(loadTokenizer(opened.tokenizerSource()).encode(await Deno.readTextFile(values.text)));
  if (tokens.length < n) throw new RangeError(`Cannot record: "${values.text}" has ${tokens.length} tokens, not ${n}`);
  await prepareBackend(values.backend, {}, () => {});
  using backend = openBackend(values.backend, {});
  const ropeBase = Number(values["rope-base"]);
  const config = ropeBase === 0 ? opened.config : withRopeBase(opened.config, ropeBase);
  using weights = opened.openWeights(backend);
  const model = loadModel(config, weights);
  weights.finish();
  const name = values.model.replace(/^.*\//, "");
  const header = { name, tokens: n, decoded: Number(values.decoded), stride: Number(values.stride), ropeBase };
  record(values.out, header, model, backend, tokens.subarray(0, n), (done) => {
    if (done % 1024 === 0) console.error(`${done} of ${n} tokens`);
  });
}

if (import.meta.main) await main(Deno.args);
