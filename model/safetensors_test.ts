import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ModelFileError } from "../core/errors.ts";
import { safetensorsBytes, serialize } from "../test/fuzz_files_build.ts";
import { MemorySource } from "./open_source.ts";
import { parseSafetensors } from "./safetensors.ts";
import { mapName } from "./safetensors_names.ts";

const parse = (bytes: Uint8Array) => parseSafetensors(new MemorySource("m.safetensors", bytes));
const refusal = (header: unknown, dataBytes: number) =>
  assertThrows(() => parse(safetensorsBytes(header, dataBytes)), ModelFileError).message;
const tensor = (shape: unknown, begin: unknown, end: unknown, dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

describe("parseSafetensors()", () => {
  it("reads shapes, types and places", () => {
    const bytes = safetensorsBytes({
      __metadata__: { format: "pt" },
      a: tensor([3, 5], 0, 30, "BF16"),
      b: tensor([7], 30, 58),
      s: tensor([], 58, 60, "F16"),
    }, 60);
    const found = parse(bytes);
    const start = bytes.length - 60;
    const a = found.get("a"), b = found.get("b");
    assertEquals([a?.dtype, a?.shape, a?.offset, a?.bytes], ["bf16", [3, 5], start, 30]);
    assertEquals([b?.dtype, b?.shape, b?.offset, b?.bytes], ["f32", [7], start + 30, 28]);
    assertEquals([...found.keys()], ["a", "b", "s"]);
  });

  it("refuses headers that lie", () => {
    assertThrows(() => parse(new Uint8Array(5)), ModelFileError, "5 bytes");
    const claim = (length: bigint) =>
      serialize([{ kind: "u64", value: length }, { kind: "bytes", value: new Uint8Array(9) }]);
    assertThrows(() => parse(claim(2n ** 63n)), ModelFileError, "header claims 9223372036854775808");
    assertThrows(() => parse(claim(10n)), ModelFileError, "header claims 10 bytes, at most 9");
    assertThrows(() => parse(claim(9n)), ModelFileError, "not valid JSON");
    assertStringIncludes(refusal([1], 0), "no JSON object");
    assertStringIncludes(refusal({ w: 1 }, 0), '"w" is no JSON object');
    assertStringIncludes(refusal({ w: tensor([4], 0, 16) }, 15), 'tensor "w" needs');
    assertStringIncludes(refusal({ w: tensor([4], 0, 12) }, 16), "has 12 bytes");
    assertStringIncludes(refusal({ w: tensor([4], 16, 0) }, 16), "data_offsets");
    assertStringIncludes(refusal({ w: tensor([4], -16, 0) }, 16), "data_offsets");
    assertStringIncludes(refusal({ w: tensor([4], 0.5, 16.5) }, 32), "data_offsets");
    assertStringIncludes(refusal({ w: tensor([2 ** 30, 2 ** 30], 0, 16) }, 16), "too large");
    assertStringIncludes(refusal({ w: tensor([0], 0, 0) }, 0), "no valid shape");
    assertStringIncludes(refusal({ w: tensor([4], 0, 16), v: tensor([4], 8, 24) }, 32), "overlap");
    assertStringIncludes(
      refusal({ w: tensor([4], 0, 4, "I8") }, 4),
      'type "I8", which is not supported; supported are F32',
    );
  });

  it("keeps hostile JSON within its memory", () => {
    const deep = new TextEncoder().encode('{"w":' + "[".repeat(3_000_000));
    const bytes = serialize([{ kind: "u64", value: BigInt(deep.length) }, { kind: "bytes", value: deep }]);
    assertThrows(() => parse(bytes), ModelFileError, "bytes of memory");
  });
});

describe("mapName()", () => {
  const of = (name: string, architecture = "llama") => mapName(name, architecture);

  it("gives canonical names", () => {
    assertEquals(of("model.embed_tokens.weight")?.name, "token_embd.weight");
    assertEquals(of("lm_head.weight")?.name, "output.weight");
    assertEquals(of("model.layers.12.self_attn.q_proj.bias", "qwen2")?.name, "blk.12.attn_q.bias");
    assertEquals(of("model.layers.0.post_attention_layernorm.weight")?.name, "blk.0.ffn_norm.weight");
    assertEquals(of("language_model.model.layers.3.mlp.up_proj.weight")?.name, "blk.3.ffn_up.weight");
    assertEquals(of("model.language_model.norm.weight")?.name, "output_norm.weight");
  });

  it("knows Gemma's norms", () => {
    const name = "model.layers.0.post_attention_layernorm.weight";
    assertEquals(of(name, "gemma3"), { name: "blk.0.post_attention_norm.weight", addOne: true });
    assertEquals(of(name, "qwen3"), { name: "blk.0.ffn_norm.weight", addOne: false });
    assertEquals(of("model.norm.weight", "gemma3"), { name: "output_norm.weight", addOne: true });
    assertEquals(of("model.embed_tokens.weight", "gemma3")?.addOne, false);
  });

  it("leaves out what text does not need, and keeps unknown names to be reported", () => {
    assertEquals(of("vision_tower.layers.0.weight"), undefined);
    assertEquals(of("model.layers.0.self_attn.rotary_emb.inv_freq"), undefined);
    assertEquals(of("model.layers.0.constructor.weight")?.name, "model.layers.0.constructor.weight");
    assertEquals(of("model.layers.0.mlp.experts.weight")?.name, "model.layers.0.mlp.experts.weight");
  });
});
