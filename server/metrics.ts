/**
 * Prometheus metrics: vLLM's names under our prefix, and our own.
 *
 * @module
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { ContextInfo } from "../engine/context_types.ts";
import type { Done } from "./answer.ts";
import { cachedTokens, keysOf, stepPhasesOf } from "./answer.ts";

const TTFT_BUCKETS = [
  0.001,
  0.005,
  0.01,
  0.02,
  0.04,
  0.06,
  0.08,
  0.1,
  0.25,
  0.5,
  0.75,
  1,
  2.5,
  5,
  7.5,
  10,
  20,
  40,
  80,
  160,
  640,
  2560,
];
const TOKEN_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10];
const REQUEST_BUCKETS = [0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 60, 120, 240, 480, 960, 1920, 3840];

/** What metrics ask for when they are read. */
export interface LiveFigures {
  /** Requests whose tokens are being drawn. */
  readonly running: number;
  /** Requests in the queue. */
  readonly waiting: number;
  /** Share of the cache in use, 0 to 1. */
  readonly usage: number;
}

/** See the module's head. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #prompt = this.#counter("prompt_tokens_total", "Prompt tokens");
  readonly #generated = this.#counter("generation_tokens_total", "Tokens drawn");
  readonly #queries = this.#counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache");
  readonly #hits = this.#counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache");
  readonly #success = this.#counter("request_success_total", "Requests answered", ["finished_reason"]);
  readonly #scanned = this.#counter("keys_scanned_total", "Keys that indexes scored, mean per head", ["index"]);
  readonly #attended = this.#counter("keys_attended_total", "Keys attended to, mean per head", ["index"]);
  readonly #exact = this.#counter(
    "exact_fallbacks_total",
    "Decode queries of a layer that attended to everything though its policy may leave something out",
    ["index"],
  );
  readonly #hostBytes = this.#counter("host_bytes_read_total", "Bytes that indexes read", ["index"]);
  readonly #build = this.#counter("index_build_seconds_total", "Spent on the structure of indexes, by all threads", [
    "index",
  ]);
  readonly #search = this.#counter("search_seconds_total", "Spent on searches, by one step of 64", ["index"]);
  readonly #mass = this.#histogram(
    "recall_estimate",
    "Share of exact attention that lay on the keys attended to, of answers with sampled telemetry",
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1],
    ["index"],
  );
  readonly #errors = this.#counter("request_errors_total", "Requests that ended in an error", ["type"]);
  readonly #ttft = this.#histogram("time_to_first_token_seconds", "Request to first token", TTFT_BUCKETS);
  readonly #itl = this.#histogram("inter_token_latency_seconds", "Token to token", TOKEN_BUCKETS);
  readonly #e2e = this.#histogram("e2e_request_latency_seconds", "Request to last token", REQUEST_BUCKETS);
  readonly #queue = this.#histogram("request_queue_time_seconds", "Request to first step", REQUEST_BUCKETS);
  readonly #prefill = this.#histogram("request_prefill_time_seconds", "First step to first token", REQUEST_BUCKETS);
  readonly #decode = this.#histogram("request_decode_time_seconds", "First to last token", REQUEST_BUCKETS);
  readonly #restores = this.#counter("context_restores_total", "Contexts that were asked for by name", ["result"]);
  readonly #errorSum = this.#histogram("output_error_estimate", "Estimated relative error of attention outputs", [
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
  ], ["index"]);
  readonly #model: string;

  /** `live` and `contexts` are asked at every reading. */
  constructor(
    model: string,
    live: () => LiveFigures,
    contexts: () => Promise<readonly Pick<ContextInfo, "bytes">[]>,
  ) {
    this.#model = model;
    const labels = { model_name: model };
    const gauge = (name: string, help: string, value: (figures: LiveFigures) => number) =>
      new Gauge({
        name: `kvasir:${name}`,
        help,
        labelNames: ["model_name"],
        registers: [this.#registry],
        collect() {
          this.set(labels, value(live()));
        },
      });
    const registers = [this.#registry];
    new Gauge({
      name: "kvasir:contexts",
      help: "Contexts there are",
      labelNames: ["model_name"],
      registers,
      async collect() {
        this.set(labels, (await contexts()).length);
      },
    });
    new Gauge({
      name: "kvasir:context_bytes",
      help: "Bytes of contexts",
      labelNames: ["model_name", "tier"],
      registers,
      async collect() {
        const all = await contexts();
        const sum = (tier: "memory" | "disk") => all.reduce((total, { bytes }) => total + bytes[tier], 0);
        this.set({ ...labels, tier: "memory" }, sum("memory"));
        this.set({ ...labels, tier: "disk" }, sum("disk"));
      },
    });
    gauge("num_requests_running", "Requests that take part in steps", (f) => f.running);
    gauge("num_requests_waiting", "Requests in the queue", (f) => f.waiting);
    gauge("kv_cache_usage_perc", "Share of the cache in use", (f) => f.usage);
  }

  /** Books a context that a generation wanted to begin with. */
  restore(result: "hit" | "miss"): void {
    this.#restores.inc({ model_name: this.#model, result });
  }

  /** Books a generation that ended. */
  book(done: Done, finishReason: string, index: string): void {
    const labels = { model_name: this.#model };
    const { timings: t, attended } = done;
    this.#prompt.inc(labels, t.promptTokens);
    this.#generated.inc(labels, t.predictedTokens);
    this.#queries.inc(labels, t.promptTokens);
    this.#hits.inc(labels, cachedTokens(t));
    this.#success.inc({ ...labels, finished_reason: finishReason });
    this.#queue.observe(labels, t.queueMs / 1000);
    if (t.predictedTokens > 0) {
      this.#ttft.observe(labels, t.firstTokenMs / 1000);
      this.#prefill.observe(labels, t.promptMs / 1000);
      this.#decode.observe(labels, t.predictedMs / 1000);
      this.#e2e.observe(labels, (t.firstTokenMs + t.predictedMs) / 1000);
    }
    if (t.predictedTokens > 1) this.#itl.observe(labels, t.predictedMs / 1000 / (t.predictedTokens - 1));
    const keys = keysOf(t, attended);
    const name = index === "" ? "none" : index.split(":", 1)[0] ?? "";
    const steps = Math.max(0, t.predictedTokens - 1);
    this.#scanned.inc({ ...labels, index: name }, keys.scanned * steps);
    this.#attended.inc({ ...labels, index: name }, keys.attended * steps);
    const { search_ms = 0, index_ms = 0 } = stepPhasesOf(done);
    this.#search.inc({ ...labels, index: name }, search_ms / 1000);
    this.#build.inc({ ...labels, index: name }, index_ms / 1000);
    if (attended !== undefined) this.#exact.inc({ ...labels, index: name }, attended.dense);
    if (attended === undefined || attended.queries === attended.dense) return;
    if (done.looked !== undefined) this.#mass.observe({ ...labels, index: name }, done.looked.attendedMass);
    this.#hostBytes.inc({ ...labels, index: name }, attended.indexBytes);
    this.#errorSum.observe({ ...labels, index: name }, attended.estimatedError / (attended.queries - attended.dense));
  }

  /** Books a request that failed. */
  fail(type: string): void {
    this.#errors.inc({ model_name: this.#model, type });
  }

  /** The text that Prometheus reads. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** Its content type. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  #counter(name: string, help: string, labels: readonly string[] = []): Counter {
    return new Counter({
      name: `kvasir:${name}`,
      help,
      labelNames: ["model_name", ...labels],
      registers: [this.#registry],
    });
  }

  #histogram(name: string, help: string, buckets: number[], labels: readonly string[] = []): Histogram {
    return new Histogram({
      name: `kvasir:${name}`,
      help,
      buckets,
      labelNames: ["model_name", ...labels],
      registers: [this.#registry],
    });
  }
}
