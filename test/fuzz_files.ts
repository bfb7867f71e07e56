/**
 * Feeds damaged model files to everything that reads them: each must load or be refused with one clear line, within the
 * memory that its size allows. `deno run --allow-read test/fuzz_files.ts --count 100000 [--seed 1] [--from 0]`.
 *
 * Case `n` of seed `s` is always the same file, so a failure is kept by its two numbers (`KEPT`, `fuzz_files_test.ts`).
 *
 * @module
 */
import { ModelFileError, Unsupported } from "../core/errors.ts";
import type { Backend } from "../backends/backend.ts";
import { byteLength } from "../core/dtype.ts";
import type { Tensor } from "../core/tensor.ts";
import { fromGguf, fromHf } from "../model/config.ts";
import { parseGguf } from "../model/gguf.ts";
import { loadModel } from "../model/mod.ts";
import { canonicalEntries } from "../model/open_folder.ts";
import { ggufDefaults, hfDefaults } from "../model/open_defaults.ts";
import { parseJson } from "../model/open_json.ts";
import { AllocationBudget, MemorySource } from "../model/open_source.ts";
import { parseSafetensors } from "../model/safetensors.ts";
import { loadTokenizer, type TokenizerSource } from "../model/tokenizer.ts";
import { FileWeights } from "../model/weights.ts";
import {
  ggufFields,
  safetensorsBytes,
  serialize,
  tinyConfig,
  tinyGemmaConfig,
  tinyHfHeader,
  tinyMetadata,
  tinySentencePiece,
  tinyTensors,
  tinyTokenizer,
  tinyTokenizerConfig,
} from "./fuzz_files_build.ts";
import { countAllocations } from "./fuzz_files_memory.ts";
import { mutateBytes, mutateFields, mutateJson, Random } from "./fuzz_files_mutate.ts";

/** What came of one case. */
export interface Outcome {
  readonly kind: string;
  readonly bytes: number;
  /** Undefined when the file was accepted. */
  readonly refusal: string | undefined;
  /** Bytes of arrays asked for while reading. */
  readonly allocated: number;
}

const MAX_FILE = 4096;
const encoder = new TextEncoder();

/** Builds case `n`, reads it, and throws when the outcome is neither success nor a clear refusal. */
export function runCase(seed: number, n: number): Outcome {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ n);
  const { kind, bytes, read } = random.pick(KINDS)(random);
  let refusal: string | undefined;
  const allocated = countAllocations(() => {
    try {
      read();
    } catch (error) {
      if (!(error instanceof ModelFileError || error instanceof Unsupported)) {
        throw new Error(`Case ${seed}:${n} (${kind}): ${(error as Error).stack ?? error}`);
      }
      refusal = error.message;
    }
  });
  if (refusal !== undefined && !isClear(refusal)) throw new Error(`Case ${seed}:${n} (${kind}): unclear: ${refusal}`);
  const limit = 4 * bytes + (64 << 20);
  if (allocated > limit) throw new Error(`Case ${seed}:${n} (${kind}): ${allocated} bytes asked for, ${limit} allowed`);
  return { kind, bytes, refusal, allocated };
}

/** One line that says what and why, with no value leaking through as `undefined` or `[object Object]`. */
function isClear(message: string): boolean {
  // deno-lint-ignore no-control-regex
  return /^Cannot [a-z][^\u0000-\u001f]{10,1200}$/.test(message) && !/\[object|undefined|NaN bytes/.test(message);
}

interface Case {
  readonly kind: string;
  readonly bytes: number;
  readonly read: () => void;
}

const KINDS: readonly ((random: Random) => Case)[] = [
  (random) => gguf(random, tinyMetadata()),
  (random) => gguf(random, tinyMetadata()),
  (random) => gguf(random, tinySentencePiece()),
  safetensors,
  safetensors,
  config,
  tokenizer,
];

function gguf(random: Random, metadata: ReturnType<typeof tinyMetadata>): Case {
  const version = random.below(4) === 0 ? 2 : 3;
  const fields = mutateFields(ggufFields(metadata, tinyTensors(), version), random);
  const bytes = mutateBytes(serialize(fields), random).slice(0, MAX_FILE);
  const read = () => {
    const file = parseGguf(new MemorySource("case.gguf", bytes));
    // All three readers see every file whose header parses, whatever the others say of it.
    runAll([
      () => useTokenizer({ kind: "gguf", metadata: file.metadata }),
      () => ggufDefaults(file.metadata, "case.gguf"),
      () => {
        const config = fromGguf(file);
        load(config, new FileWeights(sink(), file.tensors, { path: "case.gguf" }));
      },
    ]);
  };
  return { kind: "gguf", bytes: bytes.length, read };
}

function safetensors(random: Random): Case {
  const { header, dataBytes } = tinyHfHeader();
  const damaged = mutateBytes(safetensorsBytes(mutateJson(header, random), dataBytes), random).slice(0, MAX_FILE);
  const read = () => {
    const tensors = parseSafetensors(new MemorySource("model.safetensors", damaged));
    const { config, tied } = fromHf(tinyConfig(), "config.json");
    load(config, new FileWeights(sink(), canonicalEntries(tensors, config, tied, "case"), { path: "case" }));
  };
  return { kind: "safetensors", bytes: damaged.length, read };
}

function config(random: Random): Case {
  const json = mutateJson(random.pick([tinyConfig(), tinyGemmaConfig()]), random);
  const bytes = mutateBytes(encoder.encode(JSON.stringify(json) ?? ""), random).slice(0, MAX_FILE);
  const read = () => {
    const parsed = parse(bytes, "config.json");
    hfDefaults(parsed, "config.json");
    fromHf(parsed, "config.json");
  };
  return { kind: "config", bytes: bytes.length, read };
}

function tokenizer(random: Random): Case {
  const first = random.below(3) > 0;
  const json = encoder.encode(JSON.stringify(first ? mutateJson(tinyTokenizer(), random) : tinyTokenizer()) ?? "");
  const settings = first ? tinyTokenizerConfig() : mutateJson(tinyTokenizerConfig(), random);
  const bytes = mutateBytes(json, random).slice(0, MAX_FILE);
  const read = () =>
    useTokenizer({
      kind: "hf",
      tokenizerJson: parse(bytes, "tokenizer.json"),
      tokenizerConfig: settings,
      generationConfig: { eos_token_id: [1] },
    });
  return { kind: "tokenizer", bytes: bytes.length, read };
}

function parse(bytes: Uint8Array, path: string): unknown {
  return parseJson(bytes, path, "the file", new AllocationBudget(path, bytes.length));
}

function useTokenizer(source: TokenizerSource): void {
  const t = loadTokenizer(source);
  const decoder = t.decoder();
  for (const token of t.encode("ab a</s> é 12", { bos: true })) decoder.push(token);
  decoder.flush();
}

function load(config: ReturnType<typeof fromGguf>, weights: FileWeights): void {
  try {
    loadModel(config, weights);
    weights.finish();
  } finally {
    weights[Symbol.dispose]();
  }
}

/** Runs all; throws the first unexpected error, else the last refusal. */
function runAll(bodies: readonly (() => void)[]): void {
  let refusal: unknown;
  for (const body of bodies) {
    try {
      body();
    } catch (error) {
      if (!(error instanceof ModelFileError || error instanceof Unsupported)) throw error;
      refusal = error;
    }
  }
  if (refusal !== undefined) throw refusal;
}

/** A backend that checks what is written to it and keeps nothing. */
function sink(): Backend {
  const backend = {
    alloc: (shape: readonly number[], dtype: Tensor["dtype"]): Tensor => {
      byteLength(shape, dtype);
      return { backend: backend as unknown as Backend, shape, dtype };
    },
    write: (tensor: Tensor, bytes: ArrayBufferView, row = 0) => {
      const room = byteLength(tensor.shape, tensor.dtype);
      const rowBytes = byteLength([tensor.shape.at(-1) as number], tensor.dtype);
      if (row * rowBytes + bytes.byteLength > room) throw new RangeError("a write past the tensor's end");
    },
    free: () => {},
  };
  return backend as unknown as Backend;
}

/** Runs cases `from … from + count − 1`; returns how many of each kind were accepted and refused, and the most memory. */
export function fuzz(seed: number, from: number, count: number): { accepted: number; refused: number; most: number } {
  let accepted = 0, refused = 0, most = 0;
  for (let n = from; n < from + count; n++) {
    const { refusal, allocated } = runCase(seed, n);
    if (refusal === undefined) accepted++;
    else refused++;
    most = Math.max(most, allocated);
  }
  return { accepted, refused, most };
}

if (import.meta.main) {
  const option = (name: string, fallback: number) => {
    const at = Deno.args.indexOf(`--${name}`);
    return at < 0 ? fallback : Number(Deno.args[at + 1]);
  };
  const seed = option("seed", 1), from = option("from", 0), count = option("count", 100_000);
  if (Deno.args.includes("--show")) console.log(runCase(seed, from));
  else {
    const start = performance.now();
    const before = Deno.memoryUsage().rss;
    const { accepted, refused, most } = fuzz(seed, from, count);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    const grown = ((Deno.memoryUsage().rss - before) / 2 ** 20).toFixed(0);
    console.log(
      `${count} files of seed ${seed}: ${accepted} accepted, ${refused} refused, 0 crashes; most memory asked for by one ` +
        `${(most / 2 ** 20).toFixed(1)} MiB, process grew by ${grown} MiB; ${seconds} s`,
    );
  }
}
