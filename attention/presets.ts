/**
 * Published methods by name: a policy, and the index it asks.
 *
 * @module
 */

/** Specs of one method. */
export interface Preset {
  /** One sentence for `--help`. */
  readonly summary: string;
  /** Spec of the policy. */
  readonly policy: string;
  /** Spec of the index; policies without one ignore it. */
  readonly index?: string;
}

/** What is used where nothing is asked for. */
export const DEFAULT_PRESET = "kvasir";

/** Names as users give them. */
export const presets: Readonly<Record<string, Preset>> = {
  full: { summary: "exact attention to everything", policy: "full" },
  kvasir: {
    summary: "an unbiased sample of keys, as large as the wanted error takes; dense below 3072 tokens",
    policy: "retrieval:sinks=4,window=512,error=0.05",
    index: "flat:codes=int4",
  },
  "streaming-llm": {
    summary: "sinks and a sliding window (Xiao et al. 2023)",
    policy: "window:sinks=4,window=2000",
  },
  "exact-topk": {
    summary: "the 100 best keys of each head beside sinks and window: what an index can at best find",
    policy: "retrieval:sinks=128,window=512,budget=100",
    index: "flat",
  },
  ivf: {
    summary: "the 100 best keys that an inverted file finds beside sinks and window",
    policy: "retrieval:sinks=128,window=512,budget=100",
    index: "ivf",
  },
  "retrieval-attention": {
    summary: "the 100 best keys that a graph made for prompt queries finds (Liu et al. 2024)",
    policy: "retrieval:sinks=128,window=512,budget=100",
    index: "graph",
  },
  "softmax-lift": {
    summary: "a fixed number of sampled keys (priority sampling): unbiased",
    policy: "retrieval:sinks=4,window=512,budget=128,tail=sample",
    index: "flat",
  },
};
