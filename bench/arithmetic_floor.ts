/**
 * What a decode step of several sequences takes where nothing waits for memory, nor for another thread: every kernel over data that one
 * core's cache holds, on one thread, and two threads taking half of it.
 *
 * @module
 */
import { KvCache, type KvType } from "../attention/kv_cache.ts";
import type { Backend } from "../backends/backend.ts";
import { openBackend } from "../backends/mod.ts";
import type { KvLayer } from "../core/kv.ts";
import { median } from "../core/median.ts";
import type { Tensor } from "../core/tensor.ts";
import type { ModelConfig } from "../model/model.ts";

/** Of SmolLM2's file: matrices of layers, and of the output. */
const LAYER_TYPE = "q4_1";
const OUTPUT_TYPE = "q8_0";
const BLOCK_BYTES = { q4_1: 20, q8_0: 34 };
/** Rows of the output matrix that are worked on, so that they stay in the cache. */
const OUTPUT_ROWS = 512;

/** Milliseconds of `rows` rows with `length` keys each, on a backend whose canonical spec says how many threads there are. */
export function arithmeticMs(
  spec: string,
  config: ModelConfig,
  kvType: KvType,
  rows: number,
  length: number,
): number {
  const threads = Number(/threads=(\d+)/.exec(spec)?.[1] ?? 1);
  using memory = openBackend(spec.replace(/threads=\d+/, "threads=1"), {});
  const { width, mlpWidth, layers, vocab } = config;
  const [shape] = layers;
  if (shape === undefined) return 0;
  const floats = (...dims: number[]) => filled(memory, dims);
  const weight = (m: number, k: number, type: keyof typeof BLOCK_BYTES = LAYER_TYPE) => quantized(memory, m, k, type);
  const { heads, kvHeads, headDim } = shape;
  const [x, mlp, out, down] = [floats(rows, width), floats(rows, mlpWidth), floats(rows, width), floats(rows, width)];
  const q = floats(rows, heads, headDim);
  const [k, v] = [floats(rows, kvHeads, headDim), floats(rows, kvHeads, headDim)];
  const [wq, wk, wv] = [
    weight(heads * headDim, width),
    weight(kvHeads * headDim, width),
    weight(kvHeads * headDim, width),
  ];
  const [wo, wGate, wUp, wDown] = [
    weight(width, heads * headDim),
    weight(mlpWidth, width),
    weight(mlpWidth, width),
    weight(width, mlpWidth),
  ];
  const [logits, wLogits] = [floats(rows, OUTPUT_ROWS), weight(OUTPUT_ROWS, width, OUTPUT_TYPE)];
  const { kernels } = memory;
  const layer = hotMs(() => kernels.matmul([q, k, v], x, [wq, wk, wv])) + hotMs(() => kernels.matmul([out], q, [wo])) +
    hotMs(() => kernels.matmulGlu(mlp, x, wGate, wUp, "silu")) + hotMs(() => kernels.matmul([down], mlp, [wDown]));

  using cache = new KvCache(memory, [shape], kvType, length);
  cache.reserve(length);
  cache.append(0, floats(length, kvHeads, headDim), floats(length, kvHeads, headDim));
  const [one, seen] = [floats(1, heads, headDim), floats(1, heads, headDim)];
  const attention = hotMs(() => kernels.attendCausal(seen, one, cache.layers[0] as KvLayer));
  const output = hotMs(() => kernels.matmul([logits], x, [wLogits])) * vocab / OUTPUT_ROWS;
  return (layers.length * (layer + rows * attention) + output) / threads;
}

/** Of one call, the median of some. */
function hotMs(run: () => void): number {
  const times: number[] = [];
  for (let i = 0; i < 12; i++) {
    const start = performance.now();
    for (let j = 0; j < 20; j++) run();
    times.push((performance.now() - start) / 20);
  }
  return median(times.slice(2));
}

function filled(backend: Backend, shape: readonly number[]): Tensor {
  const tensor = backend.alloc(shape, "f32", "sequence");
  const count = shape.reduce((a, b) => a * b, 1);
  backend.write(tensor, Float32Array.from({ length: count }, (_, i) => (i * 7919 % 1000) / 500 - 1));
  return tensor;
}

/** Small values of all codes. */
function quantized(backend: Backend, m: number, k: number, type: keyof typeof BLOCK_BYTES): Tensor {
  const tensor = backend.alloc([m, k], type, "model");
  const block = BLOCK_BYTES[type];
  const bytes = Uint8Array.from({ length: m * k / 32 * block }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += block) {
    view.setUint16(at, 0x1400, true);
    if (type === "q4_1") view.setUint16(at + 2, 0x1400, true);
  }
  backend.write(tensor, bytes);
  return tensor;
}
