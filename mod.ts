/**
 * Kvasir runs language models: from real weights, on backends that anyone can add.
 *
 * ```ts ignore
 * import { Engine } from "./mod.ts";
 *
 * if (import.meta.main) {
 *   await using engine = await Engine.open({ model: "smollm2-135m-instruct" });
 *   for await (const event of engine.generate([{ role: "user", content: "Why is the sky blue?" }])) {
 *     if (event.type === "token") Deno.stdout.writeSync(new TextEncoder().encode(event.text));
 *   }
 * }
 * ```
 *
 * @module
 */
export { Engine } from "./engine/engine.ts";
export { ContextError, type ContextErrorKind } from "./core/errors.ts";
export type {
  ContextChange,
  ContextInfo,
  ContextMatch,
  ContextOptions,
  ContextUse,
  EngineContexts,
  Fingerprint,
} from "./engine/context_types.ts";
export type { StepTimes } from "./attention/step_clock.ts";
export type { Grammar } from "./engine/grammar.ts";
export type { Prompt } from "./engine/protocol.ts";
export type {
  AttendedStats,
  EngineInfo,
  EngineLike,
  EngineOptions,
  EvaluateOptions,
  Evaluation,
  GenerateOptions,
  Progress,
  Sampling,
  Timings,
  TokenEvent,
  TokenLogprob,
} from "./engine/types.ts";
export { DoesNotFit, ModelFileError, NATIVE_STATUS, NativeError, Unsupported } from "./core/errors.ts";
export { type Backends, builtinBackends } from "./backends/mod.ts";
export type {
  Activation,
  AttentionPart,
  Backend,
  BackendType,
  Kernels,
  Lifetime,
  TensorFile,
  TensorFiles,
  TensorFileWriter,
} from "./backends/backend.ts";
export type { Fetched, HostMemory, NativePointer, Penalties, Recorded, SampleParams } from "./backends/backend.ts";
export type { BlockType, DType, PlainType, Shape, Tensor } from "./core/tensor.ts";
export type { KvChunk, KvLayer, KvQueries, KvSegment, LayerShape, Rope } from "./core/kv.ts";
export { architectures } from "./model/mod.ts";
export type {
  Architecture,
  Conversation,
  Message,
  Model,
  ModelConfig,
  Step,
  TokenDecoder,
  Tokenizer,
  Weights,
} from "./model/model.ts";
export { builtinIndexTypes, IndexRegistry, type IndexTypes } from "./index/mod.ts";
export type {
  Certificate,
  FileRange,
  Goal,
  Hits,
  IndexStats,
  IndexType,
  KvIndex,
  Params,
  SearchHits,
  SearchReport,
} from "./index/index.ts";
export type { AttentionPolicy, LayerPolicy, PolicyPlace, PolicyStats, PromptSink, Spans } from "./attention/policy.ts";
export type { Looked, LookOptions } from "./attention/look.ts";
export type { ResolvedAttention } from "./attention/mod.ts";
export { Ops } from "./backends/ops.ts";
export type { RopeOverride } from "./model/rope_override.ts";
export {
  type AttentionOptions,
  builtinPolicies,
  type Policies,
  type Preset,
  presets,
  resolveAttention,
} from "./attention/mod.ts";
export type { ParamValue } from "./core/spec.ts";
