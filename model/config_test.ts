import { assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ModelFileError } from "../core/errors.ts";
import {
  ggufFields,
  serialize,
  type TensorSpec,
  tinyConfig,
  tinyGemmaConfig,
  tinyMetadata,
  type Value,
} from "../test/fuzz_files_build.ts";
import { fromGguf, fromHf } from "./config.ts";
import { parseGguf } from "./gguf.ts";
import { MemorySource } from "./open_source.ts";

/** The tiny model's metadata with some keys changed (undefined: removed), moved to another architecture. */
function gguf(
  changes: Record<string, Value | undefined> = {},
  { architecture = "llama", tensors = [] as TensorSpec[], shape = [6, 4] } = {},
) {
  const table: TensorSpec = { name: "token_embd.weight", dtype: "f32", shape };
  const all = new Map(tinyMetadata().map(([key, value]) => [key.replace(/^llama/, architecture), value] as const));
  all.set("general.architecture", { text: architecture });
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) all.delete(key);
    else all.set(key, value);
  }
  return fromGguf(parseGguf(new MemorySource("x.gguf", serialize(ggufFields([...all], [table, ...tensors])))));
}

const ggufRefusal = (...args: Parameters<typeof gguf>) => assertThrows(() => gguf(...args), ModelFileError).message;
const hf = (changes: Record<string, unknown> = {}) => fromHf({ ...tinyConfig(), ...changes }, "m/config.json").config;
const hfRefusal = (changes: Record<string, unknown>) => assertThrows(() => hf(changes), ModelFileError).message;

describe("fromGguf()", () => {
  it("reads llama, whose converters pair neighbours", () => {
    const config = gguf();
    assertEquals({ ...config, layers: config.layers.length }, {
      architecture: "llama",
      name: "tiny",
      vocab: 6,
      width: 4,
      mlpWidth: 4,
      normEpsilon: Math.fround(1e-5),
      contextLength: 32,
      layers: 1,
    });
    const [layer] = config.layers;
    assertEquals([layer?.heads, layer?.kvHeads, layer?.headDim, layer?.slidingWindow], [2, 1, 2, undefined]);
    assertAlmostEquals(layer?.scale ?? 0, 1 / Math.sqrt(2));
    assertEquals(layer?.rope?.pairing, "neighbours");
    assertEquals(gguf({}, { architecture: "qwen2" }).layers[0]?.rope?.pairing, "halves");
  });

  it("takes heads layer by layer, and key lengths of their own", () => {
    const config = gguf({
      "llama.block_count": { u32: 3 },
      "llama.attention.head_count": { u32s: [2, 4, 6] },
      "llama.attention.head_count_kv": { u32s: [1, 2, 6] },
      "llama.attention.key_length": { u32: 6 },
      "llama.attention.value_length": { u32: 6 },
      "llama.rope.dimension_count": { u32: 4 },
    });
    assertEquals(config.layers.map((l) => [l.heads, l.kvHeads, l.headDim]), [[2, 1, 6], [4, 2, 6], [6, 6, 6]]);
    assertEquals(config.layers[0]?.rope?.dims, 4);
  });

  it("gives gemma3 five sliding layers for each global one, each with its rope", () => {
    const key = (name: string) => `gemma3.${name}`;
    const config = gguf({
      [key("block_count")]: { u32: 13 },
      [key("attention.sliding_window")]: { u32: 9 },
      [key("rope.freq_base")]: { f32: 1e6 },
      [key("rope.scaling.type")]: { text: "linear" },
      [key("rope.scaling.factor")]: { f32: 8 },
      [key("attention.key_length")]: { u32: 4 },
      [key("attention.value_length")]: { u32: 4 },
      [key("rope.dimension_count")]: undefined,
    }, { architecture: "gemma3" });
    assertEquals(config.layers.flatMap((l, i) => l.slidingWindow === undefined ? [i] : []), [5, 11]);
    assertEquals(config.layers[0]?.slidingWindow, 9);
    assertAlmostEquals(config.layers[0]?.rope?.frequencies[1] ?? 0, 1e-2);
    assertAlmostEquals(config.layers[5]?.rope?.frequencies[1] ?? 0, 1e-3 / 8);
    assertAlmostEquals(config.layers[0]?.scale ?? 0, 0.5);
  });

  it("scales the logits of 62 layers of gemma3 by width over heads", () => {
    const config = gguf({
      "gemma3.block_count": { u32: 62 },
      "gemma3.embedding_length": { u32: 16 },
      "gemma3.attention.key_length": { u32: 4 },
      "gemma3.attention.value_length": { u32: 4 },
    }, { architecture: "gemma3", shape: [6, 16] });
    assertAlmostEquals(config.layers[0]?.scale ?? 0, 1 / Math.sqrt(8));
  });

  it("reads rope scalings: factors of a tensor, linear, yarn", () => {
    const factors = new Uint8Array(new Float32Array([4]).buffer);
    const tensors: TensorSpec[] = [{ name: "rope_freqs.weight", dtype: "f32", shape: [1], data: factors }];
    assertEquals(gguf({}, { tensors }).layers[0]?.rope?.frequencies, new Float64Array([0.25]));
    const linear = gguf({ "llama.rope.scale_linear": { f32: 2 } });
    assertEquals(linear.layers[0]?.rope?.frequencies, new Float64Array([0.5]));
    const yarn = gguf({
      "llama.rope.scaling.type": { text: "yarn" },
      "llama.rope.scaling.factor": { f32: 4 },
      "llama.rope.scaling.original_context_length": { u32: 8 },
    });
    assertAlmostEquals(yarn.layers[0]?.rope?.magnitude ?? 0, 0.1 * Math.log(4) + 1);
    const wrong = ggufRefusal({}, { tensors: [{ name: "rope_freqs.weight", dtype: "f32", shape: [3] }] });
    assertStringIncludes(wrong, 'tensor "rope_freqs.weight" is f32 [3], f32 [1] needed');
    assertStringIncludes(
      ggufRefusal({ "llama.rope.scaling.type": { text: "longrope" } }),
      'rope.scaling.type is "longrope"',
    );
  });

  it("names the key and its value when one is wrong", () => {
    assertStringIncludes(
      ggufRefusal({ "general.architecture": { text: "mamba" } }),
      'architecture is "mamba", supported are llama',
    );
    assertStringIncludes(ggufRefusal({ "llama.block_count": undefined }), "llama.block_count is missing, an integer");
    assertStringIncludes(ggufRefusal({ "llama.block_count": { u32: 5000 } }), "llama.block_count is 5000");
    assertStringIncludes(ggufRefusal({ "llama.block_count": { text: "1" } }), 'llama.block_count is "1"');
    assertStringIncludes(ggufRefusal({ "llama.attention.head_count": { u32: 0 } }), "head_count is 0");
    assertStringIncludes(
      ggufRefusal({ "llama.attention.head_count": { u32s: [1, 1] } }),
      "a list of 2, 1 entries needed",
    );
    assertStringIncludes(
      ggufRefusal({ "llama.attention.head_count": { u32: 3 } }),
      "key_length is missing, and width 4 over 3",
    );
    assertStringIncludes(
      ggufRefusal({ "llama.attention.head_count": { u32: 2 }, "llama.attention.head_count_kv": { u32: 4 } }),
      "2 query heads for 4 key/value heads",
    );
    assertStringIncludes(ggufRefusal({ "llama.attention.layer_norm_rms_epsilon": { f32: NaN } }), "epsilon is NaN");
    assertStringIncludes(ggufRefusal({ "llama.rope.freq_base": { f32: -1 } }), "rope.freq_base is -1");
    assertStringIncludes(ggufRefusal({ "llama.rope.freq_base": { f32: 1 } }), "rotary embedding: base 1");
    assertStringIncludes(
      ggufRefusal({ "llama.rope.dimension_count": { u32: 4 } }),
      "4 rotated dimensions of heads of 2",
    );
    assertStringIncludes(ggufRefusal({ "llama.attention.value_length": { u32: 4 } }), "values of 4 and keys of 2");
    assertStringIncludes(ggufRefusal({ "llama.vocab_size": { u32: 7 } }), "vocab_size is 7");
    assertStringIncludes(
      ggufRefusal({ "llama.expert_count": { u32: 8 } }),
      "expert_count is 8, which is not supported",
    );
  });
});

describe("fromHf()", () => {
  it("reads llama 3.1's config, pairs as halves", () => {
    const { config, tied } = fromHf(tinyConfig(), "m/config.json");
    assertEquals([config.architecture, config.name, config.vocab, config.layers.length, tied], [
      "llama",
      "m",
      6,
      1,
      true,
    ]);
    assertEquals(config.layers[0]?.rope?.pairing, "halves");
  });

  it("reads both generations of rope settings alike", () => {
    const old = hf({ rope_theta: 500, head_dim: 8, rope_scaling: { type: "linear", factor: 4 } });
    const now = hf({
      rope_theta: undefined,
      rope_scaling: undefined,
      head_dim: 8,
      rope_parameters: { rope_type: "linear", rope_theta: 500, factor: 4 },
    });
    assertEquals(old, now);
    assertAlmostEquals(old.layers[0]?.rope?.frequencies[1] ?? 0, 500 ** -0.25 / 4);
    const gemma = { ...tinyGemmaConfig()["text_config"] as Record<string, unknown> };
    const before = fromHf(gemma, "m/config.json").config;
    const { rope_theta: _1, rope_local_base_freq: _2, rope_scaling: _3, ...rest } = gemma;
    const after = fromHf({
      ...rest,
      rope_parameters: {
        full_attention: { rope_type: "linear", factor: 8, rope_theta: 1000000 },
        sliding_attention: { rope_type: "default", rope_theta: 10000 },
      },
    }, "m/config.json").config;
    assertEquals(before, after);
    assertAlmostEquals(after.layers[2]?.rope?.frequencies[1] ?? 0, 1e-3 / 8);
    assertAlmostEquals(after.layers[0]?.rope?.frequencies[1] ?? 0, 1e-2);
  });

  it("finds gemma3 inside a model that sees, with the library's defaults", () => {
    const { config, tied } = fromHf({
      model_type: "gemma3",
      text_config: { hidden_size: 16, intermediate_size: 16, num_hidden_layers: 7, sliding_window: 5, head_dim: 4 },
    }, "m/config.json");
    assertEquals([config.architecture, config.vocab, config.contextLength, tied], ["gemma3", 262208, 131072, true]);
    assertEquals(config.layers.flatMap((l, i) => l.slidingWindow === undefined ? [i] : []), [5]);
    assertEquals(config.layers[0]?.scale, 1 / 16);
  });

  it("gives mistral, qwen2 and layer_types their windows", () => {
    const windows = (changes: Record<string, unknown>) =>
      hf({ num_hidden_layers: 3, ...changes }).layers.map((l) => l.slidingWindow);
    const none = [undefined, undefined, undefined];
    assertEquals(windows({ sliding_window: 9 }), none);
    assertEquals(windows({ model_type: "mistral", sliding_window: 9 }), [9, 9, 9]);
    assertEquals(windows({ model_type: "mistral", sliding_window: null }), none);
    assertEquals(windows({ model_type: "qwen2", sliding_window: 9, max_window_layers: 1 }), none);
    assertEquals(
      windows({ model_type: "qwen2", sliding_window: 9, max_window_layers: 1, use_sliding_window: true }),
      [undefined, 9, 9],
    );
    const layer_types = ["sliding_attention", "full_attention", "sliding_attention"];
    assertEquals(windows({ model_type: "qwen3", sliding_window: 9, use_sliding_window: true, layer_types }), [
      9,
      undefined,
      9,
    ]);
  });

  it("defaults the head size of qwen3 to 128", () => {
    assertEquals(hf({ model_type: "qwen3" }).layers[0]?.headDim, 128);
  });

  it("names the field and its value when one is wrong", () => {
    assertStringIncludes(hfRefusal({ model_type: "phi3" }), 'model_type is "phi3", supported are llama, mistral');
    assertStringIncludes(hfRefusal({ model_type: "constructor" }), 'model_type is "constructor"');
    assertStringIncludes(hfRefusal({ hidden_size: 1.5 }), "hidden_size is 1.5");
    assertStringIncludes(hfRefusal({ num_hidden_layers: 1e9 }), "num_hidden_layers is 1000000000");
    assertStringIncludes(
      hfRefusal({ rope_scaling: { type: "dynamic", factor: 2 } }),
      'type is "dynamic", supported are default',
    );
    assertStringIncludes(hfRefusal({ rope_scaling: [] }), "rope_scaling is no JSON object");
    assertStringIncludes(
      hfRefusal({ quantization_config: { bits: 4 } }),
      "quantization_config is an object, which is not supported",
    );
    assertStringIncludes(hfRefusal({ hidden_act: "gelu" }), 'hidden_act is "gelu", silu needed');
    assertStringIncludes(hfRefusal({ tie_word_embeddings: 1 }), "tie_word_embeddings is 1, true or false needed");
    assertThrows(() => fromHf([], "m/config.json"), ModelFileError, "no JSON object");
    assertThrows(
      () => fromHf({ model_type: "gemma3" }, "m/config.json"),
      ModelFileError,
      "text_config is no JSON object",
    );
  });
});
