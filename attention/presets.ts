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
    summary: "an unbiased sample of keys, as large as the wanted error takes; dense below 4096 tokens",
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
  flexgen: {
    summary:
      "exact, keys and values on the host with --backend hybrid:device=…,host=… (FlexGen, Sheng et al. 2023; Lamina)",
    policy: "full",
  },
  snapkv: {
    summary: "what the last prompt queries attended to, chosen once (Li et al. 2024)",
    policy: "retrieval:sinks=0,window=32,budget=2016,grow=false",
    index: "snap:observe=32,pool=5",
  },
  "pyramid-kv": {
    summary: "snapkv with budgets that fall from layer to layer (Cai et al. 2024)",
    policy: "retrieval:sinks=0,window=32,budget=2016,pyramid=20,grow=false",
    index: "snap:observe=32,pool=5,group=mean",
  },
  h2o: {
    summary: "a tenth of the prompt by accumulated attention, and the newest tenth (Zhang et al. 2023)",
    policy: "retrieval:sinks=0,window=64,budget=4096",
    index: "heavy",
  },
  quest: {
    summary: "pages of 16 keys by the largest logit they could hold (Tang et al. 2024)",
    policy: "retrieval:sinks=0,window=16,budget=1024,dense=2",
    index: "pages:size=16",
  },
  "inf-llm": {
    summary: "blocks of 128 keys by representative ones (Xiao et al. 2024)",
    policy: "retrieval:sinks=128,window=4096,budget=2048",
    index: "pages:size=128,score=representative,group=layer",
  },
  infinigen: {
    summary: "keys near the best in the columns that prompt queries use most (Lee et al. 2024)",
    policy: "retrieval:sinks=4,window=64,budget=4096,share=0.2",
    index: "skew",
  },
  pqcache: {
    summary: "a tenth of the keys, by product quantization (Zhang et al. 2024)",
    policy: "retrieval:sinks=32,window=512,budget=4096,share=0.1",
    index: "pq",
  },
  sparq: {
    summary: "128 keys by the query's largest channels, and the mean value for the rest (Ribar et al. 2024)",
    policy: "retrieval:sinks=4,window=64,budget=128,tail=surrogate",
    index: "channels:r=32",
  },
  loki: {
    summary: "a quarter of the keys, by a quarter of their principal coordinates (Singhania et al. 2024)",
    policy: "retrieval:sinks=4,window=64,budget=4096,share=0.25",
    index: "pca",
  },
  "squeezed-attention": {
    summary: "tokens of a fixed prefix whose cluster passes a calibrated threshold (Hooper et al. 2024)",
    policy: "retrieval:sinks=4,window=64,budget=4096,grow=false",
    index: "clusters:quantile=0.7",
  },
  retroinfer: {
    summary: "the best clusters of keys, and estimates for others (Chen et al. 2025)",
    policy: "retrieval:sinks=4,window=64,budget=4096,tail=surrogate",
    index: "wave",
  },
  magicpig: {
    summary: "keys that collide with the query in hash tables, weighted by how likely that was (Chen et al. 2024)",
    policy: "retrieval:sinks=4,window=64,budget=4096,tail=sample,grow=false,dense_every=16",
    index: "lsh",
  },
  mol: {
    summary: "100 keys a group, exact by a mixture of its heads' logits (Ding et al. 2024)",
    policy: "retrieval:sinks=4,window=512,budget=100",
    index: "mol",
  },
  "robust-vamana": {
    summary: "the 100 best keys that a graph of near keys finds, stitched by prompt queries (Jaiswal et al. 2022)",
    policy: "retrieval:sinks=128,window=512,budget=100",
    index: "vamana",
  },
  roargraph: {
    summary: "the 100 best keys that a graph projected from prompt queries finds (Chen et al. 2024)",
    policy: "retrieval:sinks=128,window=512,budget=100",
    index: "roar",
  },
  "softmax-lift": {
    summary: "a fixed number of sampled keys (priority sampling): unbiased",
    policy: "retrieval:sinks=4,window=512,budget=128,tail=sample",
    index: "flat",
  },
};
