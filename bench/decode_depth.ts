/**
 * Decode speed at a depth, preset against exact attention over the same cache:
 *
 *     deno run -A bench/decode_depth.ts MODEL HEADS.kvqk|--text FILE [--depth 8192 --depth 32768] [--preset kvasir] [--error 0.05]
 *         [--policy SPEC --index SPEC] [--kv f16|i8] [--steps 24] [--backend cpu:threads=2] [--rope-freq-base B] [--profile]
 *
 * With `--text` the model reads so many tokens of it and goes on with those that follow. Depths that would take too long to read are
 * filled with keys and values that the same model once made (docs/recorded_heads.md), repeated from their 64th row
 * on as often as it takes, under the RoPE base that they were made with: how fast a step is depends on the cache only by how many
 * rows are retrieved, which is printed. What repeats, and tokens that no text goes on with, make rows more than a text would. The
 * preset and exact attention are forks of that cache and take turns, a step each; times are medians over steps, the ratio is the
 * median of the ratios of a turn. `--profile` also prints the milliseconds a step that native calls take, by name.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { parseArgs } from "node:util";
import type { Tensor } from "../core/tensor.ts";
import type { Backend } from "../backends/backend.ts";
import type { KvType } from "../attention/kv_cache.ts";
import { SequenceState } from "../attention/state.ts";
import { Ops } from "../backends/ops.ts";
import { Forward } from "../engine/forward.ts";
import { load } from "../engine/load.ts";
import { planAttention } from "../engine/plan.ts";
import { RecordedHeads } from "./recorded.ts";

/** Rows that are written at a time. */
const CHUNK = 1024;
/** Rows that repeat begin here: the first tokens of a text are like no others. */
const FIRST_REPEATED = 64;
/** Tokens of a text that are read at a time. */
const PROMPT_CHUNK = 512;
/** Steps that warm up. */
const WARMING = 4;

/** Milliseconds of native calls so far, by name. */
const phases = new Map<string, number>();

/** From now on libraries are loaded with clocks. */
function clockLibraries(): void {
  const dlopen = Deno.dlopen as (path: string, definitions: Record<string, unknown>) => {
    readonly symbols: Record<string, (...args: unknown[]) => unknown>;
    close(): void;
  };
  (Deno as { dlopen: unknown }).dlopen = (path: string, definitions: Record<string, unknown>) => {
    const library = dlopen(path, definitions);
    const symbols = Object.fromEntries(
      Object.entries(library.symbols).map(([name, call]) => [
        name,
        call && ((...args: unknown[]) => { // null: a library may lack it
          const start = performance.now();
          const result = call(...args);
          phases.set(name, (phases.get(name) ?? 0) + performance.now() - start);
          return result;
        }),
      ]),
    );
    return { symbols, close: () => library.close() };
  };
}

/** Fills all layers of an empty cache with `depth` rows. */
function fill(backend: Backend, state: SequenceState, heads: RecordedHeads, depth: number): void {
  state.cache.reserve(depth);
  const { tokens } = heads.header;
  for (const [i, kv] of state.cache.layers.entries()) {
    const { kvHeads, headDim } = kv.shape;
    const recorded = heads.layer(i % heads.entries.length);
    if (recorded.shape.kvHeads !== kvHeads || recorded.shape.headDim !== headDim) {
      throw new RangeError(`Cannot fill layer ${i}: the heads were recorded from another model`);
    }
    const chunks: (readonly [Tensor, Tensor])[] = [];
    const write = (from: Float16Array, start: number): Tensor => {
      const rows = new Float32Array(CHUNK * kvHeads * headDim);
      for (let h = 0; h < kvHeads; h++) {
        for (let r = 0; r < CHUNK; r++) {
          const at = (h * tokens + start + r) * headDim;
          rows.set(from.subarray(at, at + headDim), (r * kvHeads + h) * headDim);
        }
      }
      const tensor = backend.alloc([CHUNK, kvHeads, headDim], "f32", "sequence");
      backend.write(tensor, rows);
      return tensor;
    };
    for (let start = 0; start + CHUNK <= tokens && start < depth; start += CHUNK - FIRST_REPEATED) {
      chunks.push([write(recorded.keys, start), write(recorded.values, start)]);
    }
    for (let length = 0, n = 0; length < depth; n++) {
      const [k, v] = chunks[n % chunks.length] as readonly [Tensor, Tensor];
      const from = n === 0 ? 0 : FIRST_REPEATED, count = Math.min(CHUNK - from, depth - length);
      const rows = (x: Tensor) => backend.view(x, [count, kvHeads, headDim], from * kvHeads * headDim);
      state.cache.append(i, rows(k), rows(v));
      length += count;
      if (n % 4 === 3) backend.endStep();
    }
    for (const pair of chunks) for (const tensor of pair) backend.free(tensor);
  }
  backend.endStep();
}

/** Reads a text into an empty cache, attending to everything. */
function read(
  backend: Backend,
  forward: Forward,
  state: SequenceState,
  tokens: ArrayLike<number>,
  depth: number,
): void {
  for (let start = 0; start < depth; start += PROMPT_CHUNK) {
    const numTokens = Math.min(PROMPT_CHUNK, depth - start);
    forward.run([{ state, tokens, start, numTokens, numLogits: 0, isPrompt: true }]);
    backend.endStep();
  }
}

/** What one depth gave. */
interface DepthLine {
  readonly depth: number;
  readonly kv: KvType;
  readonly exactMs: number;
  readonly presetMs: number;
  /** Exact over preset. */
  readonly faster: number;
  /** Retrieved per KV head and query, mean over layers. */
  readonly rows: number;
  readonly phases?: Readonly<Record<string, readonly [exactMs: number, presetMs: number]>>;
}

async function main(): Promise<void> {
  const { values, positionals: [file, recorded] } = parseArgs({
    allowPositionals: true,
    options: {
      depth: { type: "string", multiple: true, default: ["8192"] },
      preset: { type: "string", default: "kvasir" },
      error: { type: "string" },
      policy: { type: "string" },
      index: { type: "string" },
      kv: { type: "string", default: "f16" },
      steps: { type: "string", default: "24" },
      backend: { type: "string", default: "cpu" },
      text: { type: "string" },
      "rope-freq-base": { type: "string" },
      profile: { type: "boolean", default: false },
    },
  });
  if (file === undefined || (recorded === undefined) === (values.text === undefined)) {
    throw new RangeError("Cannot measure: give a model, and recorded heads or a text");
  }
  if (values.profile) clockLibraries();
  const depths = values.depth.map(Number), steps = Number(values.steps), kv = values.kv as KvType;
  const hooks = { backends: {}, progress: () => {}, notice: console.error, signal: { aborted: false } };
  using heads = recorded === undefined ? undefined : new RecordedHeads(recorded);
  const freqBase = Number(values["rope-freq-base"] ?? heads?.header.ropeBase ?? 0);
  const rope = freqBase === 0 ? {} : { rope: { freqBase } };
  using loaded = await load({ model: file, backend: values.backend, ...rope }, hooks);
  const { model, backend, tokenizer } = loaded;
  const text = values.text === undefined ? undefined : tokenizer.encode(Deno.readTextFileSync(values.text));
  const options = {
    preset: values.preset,
    ...(values.error === undefined ? {} : { error: Number(values.error) }),
    ...(values.policy === undefined ? {} : { policy: values.policy }),
    ...(values.index === undefined ? {} : { index: values.index }),
  };
  const { plan } = planAttention(options, backend);
  const forward = new Forward(model, new Ops(backend), PROMPT_CHUNK);
  for (const depth of depths) {
    const room = depth + steps + WARMING + 1;
    using base = new SequenceState(backend, model.config.layers, kv, room, undefined);
    if (text !== undefined && text.length < room) {
      throw new RangeError(
        `Cannot measure a depth of ${depth}: the text has ${text.length} tokens, ${room} are needed`,
      );
    }
    const tokens = text ?? Int32Array.from({ length: room }, (_, i) => 100 + (i * 7919) % 500);
    if (heads === undefined) read(backend, forward, base, tokens, depth);
    else fill(backend, base, heads, depth);
    using exact = base.fork(depth, room);
    using preset = base.fork(depth, room, { plan });
    const ms: [number[], number[]] = [[], []];
    const spent: [Record<string, number>, Record<string, number>] = [{}, {}];
    for (let step = 0; step < steps + WARMING; step++) {
      for (const [which, state] of [exact, preset].entries()) {
        phases.clear();
        const start = performance.now();
        const part = { state, tokens, start: depth + step, numTokens: 1, numLogits: 1, isPrompt: false };
        const logits = forward.run([part]) as Tensor;
        backend.read(logits);
        backend.endStep();
        if (step < WARMING) continue;
        (ms[which] as number[]).push(performance.now() - start);
        const sums = spent[which] as Record<string, number>;
        for (const [name, time] of phases) sums[name] = (sums[name] ?? 0) + time / steps;
      }
    }
    const stats = preset.stats();
    const line: DepthLine = {
      depth,
      kv,
      exactMs: median(ms[0]),
      presetMs: median(ms[1]),
      faster: median(ms[0].map((time, i) => time / (ms[1][i] as number))),
      rows: stats.retrieved / Math.max(1, stats.queries - stats.dense),
      ...(values.profile
        ? {
          phases: Object.fromEntries(
            [...new Set([...Object.keys(spent[0]), ...Object.keys(spent[1])])]
              .map((name) =>
                [name.replace("kvasir_", ""), [spent[0][name] ?? 0, spent[1][name] ?? 0] as const] as const
              )
              .filter(([, pair]) => Math.max(...pair) > 0.02),
          ),
        }
        : {}),
    };
    console.log(JSON.stringify(line, (_, x) => typeof x === "number" ? Number(x.toPrecision(4)) : x));
  }
}

if (import.meta.main) await main();
