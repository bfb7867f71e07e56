/**
 * What a model would take before it is loaded: memory, time to build its indexes, time a token.
 *
 * A shadow of the model is run on the machine it is asked about: the file's header says what there is, weights are blank,
 * the cache is filled with random rows, which cost what real ones do. Of a model that does not fit, two shadows of few
 * layers are run, and the rest is more of the same. Long contexts are told from two shorter ones (`cost_model.ts`).
 *
 * @module
 */
import { median } from "../core/median.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Backend } from "../backends/backend.ts";
import type { Model, ModelConfig } from "../model/model.ts";
import type { AttentionOptions } from "../attention/mod.ts";
import { type KvType, rowBytes } from "../attention/kv_cache.ts";
import type { OpenedModel } from "../model/open.ts";
import { HybridBackend } from "../backends/hybrid.ts";
import { Ops } from "../backends/ops.ts";
import { loadModel } from "../model/mod.ts";
import { SequenceState } from "../attention/state.ts";
import { CostModel } from "./cost_model.ts";
import { Forward } from "./forward.ts";
import { type AttentionNames, attentionNames, planAttention } from "./plan.ts";
import { NO_PLUGINS } from "./plugins.ts";
import { uniform } from "./sampler.ts";

/** What is asked. */
export interface ForecastQuestion {
  /** Tokens of the prompt. */
  readonly length: number;
  /** How it attends. */
  readonly attention: AttentionOptions;
  /** Type of cached keys and values. */
  readonly kvType: KvType;
}

/** The answer; bytes and milliseconds. */
export interface Forecast {
  /** Weights, and windows or all of the cache where there is no host beside the device. */
  readonly deviceBytes: number;
  /** Caches and indexes of a hybrid; 0 otherwise. */
  readonly hostBytes: number;
  /** Of that, the indexes. */
  readonly indexBytes: number;
  /** A saved context: rows and indexes. */
  readonly diskBytes: number;
  /** Indexing the prompt, building what is built behind included. */
  readonly buildMs: number;
  /** Of an answer. */
  readonly msPerToken: number;
}

const CHUNK = 512;
/** Steps that are timed; the median counts. */
const STEPS = 24;
/** Lengths beyond the second are told from what these two take: rows of both are far more than caches hold. */
const ANCHORS = [8192, 16384] as const;
/** Layers of shadows: whole periods of models that alternate local and global attention. */
const SHALLOW = [6, 12] as const;

/** Runs shadows of one model. Dispose frees them. */
export class Forecaster implements Disposable {
  readonly #opened: OpenedModel;
  readonly #backend: Backend;
  readonly #mostBytes: number;
  readonly #names: AttentionNames;
  readonly #noise = Float32Array.from({ length: 1 << 18 }, (_, i) => 2 * uniform(7, i) - 1);

  /** Both stay the caller's, as do the names of methods. Shadows hold at most about `mostBytes`. */
  constructor(
    opened: OpenedModel,
    backend: Backend,
    mostBytes: number,
    names: AttentionNames = attentionNames(NO_PLUGINS),
  ) {
    this.#opened = opened;
    this.#backend = backend;
    this.#mostBytes = mostBytes;
    this.#names = names;
  }

  /** Answers them all, each a few seconds at most. */
  answer(questions: readonly ForecastQuestion[]): Forecast[] {
    const asked: ForecastQuestion[] = [];
    const places = questions.map((question) => {
      const lengths = this.#isTold(question) ? ANCHORS : [question.length];
      return lengths.map((length) => {
        const known = asked.findIndex((other) => isSame(other, { ...question, length }));
        return known >= 0 ? known : asked.push({ ...question, length }) - 1;
      });
    });
    const answers = this.#answerMeasured(asked);
    return questions.map((question, i) => {
      const own = (places[i] as number[]).map((place) => answers[place] as Forecast);
      return own.length === 1 ? own[0] as Forecast : tell(question.length, own);
    });
  }

  /** Whether a length can be told from the anchors: the method must do there what it does at the length. */
  #isTold({ length, attention }: ForecastQuestion): boolean {
    if (length <= ANCHORS[1]) return false;
    const from = planAttention(attention, this.#backend, this.#names).plan?.attention.params.min_length;
    return from === undefined || Number(from) <= ANCHORS[0];
  }

  #answerMeasured(questions: readonly ForecastQuestion[]): Forecast[] {
    const { config, bytes } = this.#opened;
    const longest = Math.max(...questions.map((q) => rowBytes(config.layers, q.kvType) * q.length));
    if (1.5 * (bytes + longest) <= this.#mostBytes || config.layers.length <= SHALLOW[1]) {
      return this.#measure(config.layers.length, questions);
    }
    const [few, more] = SHALLOW.map((layers) => this.#measure(layers, questions)) as [Forecast[], Forecast[]];
    const factor = (config.layers.length - SHALLOW[0]) / (SHALLOW[1] - SHALLOW[0]);
    return few.map((a, i) => extrapolate(a, more[i] as Forecast, factor));
  }

  #measure(layers: number, questions: readonly ForecastQuestion[]): Forecast[] {
    const { config } = this.#opened;
    const shadow = { ...config, layers: config.layers.slice(0, layers) };
    using weights = this.#opened.openWeights(this.#backend, { isBlank: true });
    const model = loadModel(shadow, weights);
    return questions.map((question) => this.#run(model, question));
  }

  #run(model: Model, { length, attention, kvType }: ForecastQuestion): Forecast {
    const backend = this.#backend;
    const { plan } = planAttention(attention, backend, this.#names);
    using state = new SequenceState(backend, model.config.layers, kvType, length + STEPS + 1, plan);
    const forward = new Forward(model, new Ops(backend), 1);
    state.cache.reserve(length, length);
    let buildMs = this.#fill(state, model.config, length);
    const tokens = new Int32Array(length + STEPS + 1);
    const times: number[] = [];
    for (let start = length; start < length + STEPS; start++) {
      const before = performance.now();
      const logits = forward.run([{ state, tokens, start, numTokens: 1, numLogits: 1 }]) as Tensor;
      const drawn = backend.alloc([1], "i32", "step");
      backend.kernels.sample(drawn, logits, [{ temperature: 0, topK: 0, typicalP: 1, topP: 1, minP: 0, uniform: 0 }]);
      backend.read(drawn);
      backend.endStep();
      times.push(performance.now() - before);
      if (start > length) continue;
      // The first search commits; what is built behind it would compete with the steps that are timed.
      const settling = performance.now();
      for (const policy of state.policies) policy?.index?.settle();
      buildMs += performance.now() - settling;
    }
    const indexBytes = state.stats().indexMemory;
    return {
      ...this.#bytes(indexBytes),
      diskBytes: rowBytes(model.config.layers, kvType) * length + indexBytes,
      buildMs,
      msPerToken: median(times),
    };
  }

  /** Rows as a prompt's; returns the milliseconds that indexing them took. */
  #fill(state: SequenceState, { layers }: ModelConfig, length: number): number {
    const backend = this.#backend;
    let ms = 0;
    for (let start = 0; start < length; start += CHUNK) {
      const n = Math.min(CHUNK, length - start);
      for (const [layer, { heads, kvHeads, headDim }] of layers.entries()) {
        const mark = backend.mark();
        const rows = backend.alloc([n, kvHeads, headDim], "f32", "step");
        this.#write(rows, n * kvHeads * headDim, start + layer * 31);
        state.cache.append(layer, rows, rows);
        const policy = state.policies[layer];
        if (policy?.observe !== undefined) {
          const q = backend.alloc([n, heads, headDim], "f32", "step");
          this.#write(q, n * heads * headDim, start * 3 + layer);
          policy.observe({ start, count: n, q }, true);
        }
        backend.release(mark);
      }
      const before = performance.now();
      state.advance();
      ms += performance.now() - before;
      backend.endStep();
    }
    return ms;
  }

  #write(to: Tensor, count: number, seed: number): void {
    const { length } = this.#noise;
    const rows = new Float32Array(count);
    for (let at = 0, from = (seed * 977) % length; at < count; from = (from * 3 + 1) % length) {
      const piece = this.#noise.subarray(from, from + count - at);
      rows.set(piece, at);
      at += piece.length;
    }
    this.#backend.write(to, rows);
  }

  #bytes(indexBytes: number): Pick<Forecast, "deviceBytes" | "hostBytes" | "indexBytes"> {
    const backend = this.#backend;
    if (!(backend instanceof HybridBackend)) {
      return { deviceBytes: backend.bytes + indexBytes, hostBytes: 0, indexBytes };
    }
    const { device, host } = backend.sides;
    const isNear = backend.indexSide === "device";
    return {
      deviceBytes: device.bytes + (isNear ? indexBytes : 0),
      hostBytes: host.bytes + (isNear ? 0 : indexBytes),
      indexBytes,
    };
  }

  /** Lets go of what it keeps. */
  [Symbol.dispose](): void {
    this.#backend.endStep();
  }
}

function isSame(a: ForecastQuestion, b: ForecastQuestion): boolean {
  return a.length === b.length && a.kvType === b.kvType && JSON.stringify(a.attention) === JSON.stringify(b.attention);
}

/** A forecast for `length` from those for {@link ANCHORS}. */
function tell(length: number, anchors: readonly Forecast[]): Forecast {
  const { msPerToken, buildMs } = new CostModel(
    anchors.map((forecast, i) => ({ length: ANCHORS[i] as number, ...forecast })),
  ).at(length);
  const [few, more] = anchors as [Forecast, Forecast];
  return { ...extrapolate(few, more, (length - ANCHORS[0]) / (ANCHORS[1] - ANCHORS[0])), msPerToken, buildMs };
}

function extrapolate(few: Forecast, more: Forecast, factor: number): Forecast {
  const on = (key: keyof Forecast) => few[key] + factor * (more[key] - few[key]);
  return {
    deviceBytes: on("deviceBytes"),
    hostBytes: on("hostBytes"),
    indexBytes: on("indexBytes"),
    diskBytes: on("diskBytes"),
    buildMs: on("buildMs"),
    msPerToken: on("msPerToken"),
  };
}
