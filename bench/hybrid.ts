/**
 * Memory of each side of a hybrid at a length:
 *
 *     deno run -A bench/hybrid.ts MODEL [--length 32768] [--codes host|device] [--keep 768] [--batch 512] [--method kvasir]
 *
 * All but the last 1024 tokens of the prompt are random rows that are appended as a model would; those, and 16 answers, run.
 * What the device holds at most is counted behind every step: weights, windows, buffers of the step, codes where they are its.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { HybridBackend } from "../backends/hybrid.ts";
import { NativeBackend } from "../backends/native.ts";
import { parseMethod } from "../attention/method.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "../engine/forward.ts";
import { load } from "../engine/load.ts";
import { planAttention } from "../engine/plan.ts";
import { uniform } from "../engine/sampler.ts";

const RUN = 1024;
const ANSWERS = 16;

const { positionals: [model], values } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    length: { type: "string", default: "32768" },
    codes: { type: "string", default: "host" },
    keep: { type: "string", default: "768" },
    batch: { type: "string", default: "512" },
    method: { type: "string", default: "kvasir" },
  },
});
if (model === undefined) {
  console.error("Usage: bench/hybrid.ts MODEL [--length N] [--codes host|device] [--keep ROWS] [--batch TOKENS]");
  Deno.exit(2);
}
const length = Number(values.length);
const chunk = Number(values.batch);
const spec = `hybrid:device=cpu,host=cpu,codes=${values.codes},keep=${values.keep}`;
using loaded = await load({ model, backend: spec, rope: { freqBase: 1e6 } }, {
  backends: {},
  progress: () => {},
  notice: (text) => console.error(text),
  signal: { aborted: false },
});
const backend = loaded.backend;
if (!(backend instanceof HybridBackend) || !(backend.sides.device instanceof NativeBackend)) {
  throw new TypeError(`Cannot count memory of "${backend.spec}"`);
}
const { device, host } = backend.sides;
const weights = device.bytes;
const { plan } = planAttention(parseMethod(values.method).options, backend);
using state = new SequenceState(backend, loaded.model.config.layers, "f16", length + ANSWERS, plan);
const forward = new Forward(loaded.model, new Ops(backend), chunk);
/** Where the device held most, in bytes beside its weights. */
let most = { rows: 0, step: 0, codes: 0 };
const sum = ({ rows, step, codes }: typeof most): number => rows + step + codes;
const count = (): void => {
  const codes = values.codes === "device" ? state.stats().indexMemory : 0;
  const now = { rows: device.bytes - weights, step: (device as NativeBackend).stepBytes, codes };
  if (sum(now) > sum(most)) most = now;
};

const noise = Float32Array.from({ length: 1 << 16 }, (_, i) => uniform(1, i) - 0.5);
for (let start = 0; start < length - RUN; start += chunk) {
  const n = Math.min(chunk, length - RUN - start);
  state.cache.reserve(start + n, length + ANSWERS);
  for (const [layer, shape] of loaded.model.config.layers.entries()) {
    const mark = backend.mark();
    const rows = backend.alloc([n, shape.kvHeads, shape.headDim], "f32", "step");
    const size = n * shape.kvHeads * shape.headDim;
    const values = Float32Array.from({ length: size }, (_, i) => noise[(i * 7 + start + layer) & 0xffff] as number);
    backend.write(rows, values);
    state.cache.append(layer, rows, rows);
    backend.release(mark);
  }
  state.advance();
  backend.endStep();
}
const tokens = { length: length + ANSWERS } as { length: number; [i: number]: number };
for (let i = 0; i < tokens.length; i++) tokens[i] = 100 + i % 1000;
for (let start = length - RUN; start < length + ANSWERS;) {
  const numTokens = start < length ? Math.min(chunk, length - start) : 1;
  forward.run([{ state, tokens, start, numTokens, numLogits: numTokens === 1 ? 1 : 0 }]);
  backend.endStep();
  count();
  start += numTokens;
}
const rows = loaded.model.config.layers.reduce((sum, { kvHeads, headDim }) => sum + 4 * kvHeads * headDim, 0);
const cache = rows * length;
const near = rows * Number(values.keep);
const allowed = values.codes === "device" ? cache / 6 : near + 64e6;
console.log(JSON.stringify({
  spec: backend.spec,
  length,
  weights,
  cache,
  hostBytes: host.bytes,
  indexBytes: state.stats().indexMemory,
  most,
  beyondWeights: sum(most),
  allowedBeyondWeights: allowed,
  ok: sum(most) <= allowed,
}));
