import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ModelFileError } from "../core/errors.ts";
import { openBackend } from "../backends/mod.ts";
import {
  ggufFields,
  safetensorsBytes,
  serialize,
  tinyConfig,
  tinyHfHeader,
  tinyMetadata,
  tinyTensors,
  tinyTokenizer,
  tinyTokenizerConfig,
} from "../test/fuzz_files_build.ts";
import { loadModel } from "./mod.ts";
import { openModelFile } from "./open.ts";
import { readIndex } from "./open_folder.ts";

/** Runs `body` with a fresh folder of files: bytes, texts, or values as JSON. */
function withFolder(files: Record<string, unknown>, body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    for (const [name, content] of Object.entries(files)) {
      if (content instanceof Uint8Array) Deno.writeFileSync(`${folder}/${name}`, content);
      else Deno.writeTextFileSync(`${folder}/${name}`, typeof content === "string" ? content : JSON.stringify(content));
    }
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const refusal = (path: string) => assertThrows(() => openModelFile(path), ModelFileError).message;

function hfFiles(): Record<string, unknown> {
  const { header, dataBytes } = tinyHfHeader();
  return {
    "config.json": tinyConfig(),
    "model.safetensors": safetensorsBytes(header, dataBytes),
    "tokenizer.json": tinyTokenizer(),
    "tokenizer_config.json": tinyTokenizerConfig(),
  };
}

/** The tiny folder with its tensors spread over two files. */
function shardedFiles(): Record<string, unknown> {
  const { header } = tinyHfHeader();
  const files: Record<string, unknown> = hfFiles();
  delete files["model.safetensors"];
  const weight_map: Record<string, string> = {};
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  const halves = [names.slice(0, 4), names.slice(4)];
  halves.forEach((half, i) => {
    const file = `model-0000${i + 1}-of-00002.safetensors`;
    const part: Record<string, unknown> = {};
    let at = 0;
    for (const name of half) {
      const info = header[name] as { data_offsets: [number, number] };
      const bytes = info.data_offsets[1] - info.data_offsets[0];
      part[name] = { ...info, data_offsets: [at, at + bytes] };
      weight_map[name] = file;
      at += bytes;
    }
    files[file] = safetensorsBytes(part, at);
  });
  files["model.safetensors.index.json"] = { metadata: { total_size: 0 }, weight_map };
  return files;
}

describe("openModelFile()", () => {
  it("opens GGUF: configuration, template, recommendations, tokenizer, weights", () => {
    const metadata = [...tinyMetadata(), ["general.sampling.temp", { f32: 0.5 }] as ReturnType<typeof tinyMetadata>[0]];
    withFolder({ "tiny.gguf": serialize(ggufFields(metadata, tinyTensors())) }, (folder) => {
      using opened = openModelFile(`${folder}/tiny.gguf`);
      assertEquals([opened.kind, opened.config.name, opened.chatTemplate], [
        "gguf",
        "tiny",
        "{{ messages[0].content }}",
      ]);
      assertEquals(opened.generationDefaults, { temperature: 0.5 });
      assertEquals(opened.tokenizerSource().kind, "gguf");
      assertEquals([...opened.types.keys()], ["f32", "f16", "bf16"]);
      using backend = openBackend("reference");
      using weights = opened.openWeights(backend);
      loadModel(opened.config, weights);
      weights.finish();
    });
  });

  it("opens folders with one weight file or several, to the same model", () => {
    const seen: unknown[] = [];
    for (const files of [hfFiles(), shardedFiles()]) {
      withFolder(files, (folder) => {
        using opened = openModelFile(`${folder}/`);
        using backend = openBackend("reference");
        using weights = opened.openWeights(backend);
        loadModel(opened.config, weights);
        weights.finish();
        const source = opened.tokenizerSource();
        assertEquals([opened.kind, opened.path, source.kind], ["safetensors", folder, "json"]);
        seen.push({ ...opened.config, name: "", bytes: opened.bytes, template: opened.chatTemplate });
      });
    }
    assertEquals(seen[0], seen[1]);
  });

  it("takes the template from its file, its field, or the default of several", () => {
    const template = (files: Record<string, unknown>) => {
      let found: string | undefined;
      withFolder({ ...hfFiles(), ...files }, (folder) => {
        using opened = openModelFile(folder);
        found = opened.chatTemplate;
      });
      return found;
    };
    assertEquals(template({ "chat_template.jinja": "A" }), "A");
    const several = [{ name: "tool_use", template: "T" }, { name: "default", template: "D" }];
    assertEquals(template({ "tokenizer_config.json": { chat_template: several } }), "D");
    assertEquals(template({ "tokenizer_config.json": {} }), undefined);
  });

  it("reads sampling recommendations of generation_config.json when they are meant to be used", () => {
    const defaults = (generation: unknown) => {
      let found: unknown;
      withFolder({ ...hfFiles(), "generation_config.json": generation }, (folder) => {
        using opened = openModelFile(folder);
        found = opened.generationDefaults;
      });
      return found;
    };
    const all = { temperature: 0.6, top_k: 20, top_p: 0.95, repetition_penalty: -1 };
    assertEquals(defaults({ do_sample: true, ...all }), { temperature: 0.6, topK: 20, topP: 0.95 });
    assertEquals(defaults(all), {});
  });

  it("says what is missing", () => {
    withFolder({ "smollm2-135m.gguf": "x", "notes.txt": "" }, (folder) => {
      assertStringIncludes(
        refusal(`${folder}/smollm2-135.gguf`),
        'no such file or folder; near are "smollm2-135m.gguf"',
      );
      assertStringIncludes(refusal(`${folder}/other.gguf`), "no such file or folder (");
      assertStringIncludes(refusal(folder), 'no config.json; it holds "smollm2-135m.gguf", name the file');
      assertStringIncludes(refusal(`${folder}/notes.txt`), "file has 0 bytes");
    });
    const without = (name: string, more: Record<string, unknown> = {}) => {
      const files = hfFiles();
      delete files[name];
      let message = "";
      withFolder({ ...files, ...more }, (folder) => message = refusal(folder));
      return message;
    };
    assertStringIncludes(without("model.safetensors"), "neither model.safetensors nor model.safetensors.index.json");
    assertStringIncludes(without("model.safetensors", { "pytorch_model.bin": "" }), "save them as safetensors");
    assertStringIncludes(without("config.json"), "no config.json");
    assertStringIncludes(
      without("", { "config.json": { ...tinyConfig(), tie_word_embeddings: false } }),
      '"lm_head.weight" is missing',
    );
    assertStringIncludes(without("", { "config.json": "{" }), "is not valid JSON");
  });

  it("reports tensors that the architecture does not know", () => {
    const tensors = [...tinyTensors(), { name: "blk.0.attn_q.bias", dtype: "f32", shape: [4] } as const];
    withFolder({ "tiny.gguf": serialize(ggufFields(tinyMetadata(), tensors)) }, (folder) => {
      using opened = openModelFile(`${folder}/tiny.gguf`);
      using backend = openBackend("reference");
      using weights = opened.openWeights(backend);
      loadModel(opened.config, weights);
      assertThrows(() => weights.finish(), ModelFileError, '"blk.0.attn_q.bias" not known to this architecture');
    });
  });
});

describe("readIndex()", () => {
  it("takes plain file names of the folder only", () => {
    const read = (file: unknown) => readIndex({ w: file }, "m", "m/index.json");
    assertEquals(read("a-1.safetensors"), [{ path: "m/a-1.safetensors", only: ["w"] }]);
    for (const file of ["../a.safetensors", "/a.safetensors", "x/a.safetensors", ".safetensors", "a.bin", 1, null]) {
      assertThrows(() => read(file), ModelFileError, "a safetensors file of this folder is needed");
    }
  });

  it("reports a tensor that its file does not have", () => {
    const files = shardedFiles();
    const index = files["model.safetensors.index.json"] as { weight_map: Record<string, string> };
    index.weight_map["extra"] = "model-00001-of-00002.safetensors";
    withFolder(files, (folder) => assertStringIncludes(refusal(folder), 'tensor "extra", which the index puts here'));
  });
});
