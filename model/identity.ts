/**
 * Tells models apart by what is in their files, wherever they lie and whenever they were copied there.
 *
 * Reading gigabytes to name a model would cost more than a stored context saves, so sizes and blocks spread over each file are
 * hashed: another quantization, fine-tuning or conversion changes all of them. It is no defence against forgery.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Tokenizer } from "./model.ts";

const BLOCK = 4096;
const BLOCKS = 64;
const TOKENS = 4096;
const PROBE = 'The quick brown fox: 1234567890, naïve café — 東京, 😀\n\t{"a": [1, 2.5e-3]}';

/** 16 hexadecimal digits of sizes and contents of `paths`, in their order. */
export function identifyFiles(paths: readonly string[]): string {
  const hash = createHash("sha256");
  const block = new Uint8Array(BLOCK);
  for (const path of paths) {
    using file = Deno.openSync(path);
    const { size } = file.statSync();
    hash.update(`${size};`);
    for (let i = 0; i < BLOCKS; i++) {
      const at = Math.floor(Math.max(0, size - BLOCK) * i / (BLOCKS - 1));
      file.seekSync(at, Deno.SeekMode.Start);
      let filled = 0;
      for (let n: number | null; filled < BLOCK && (n = file.readSync(block.subarray(filled))) !== null;) filled += n;
      hash.update(block.subarray(0, filled));
    }
  }
  return hash.digest("hex").slice(0, 16);
}

/** 16 hexadecimal digits of a vocabulary and how it cuts a text. */
export function identifyTokenizer(tokenizer: Tokenizer): string {
  const hash = createHash("sha256");
  const { vocab, bos, eos, addBos } = tokenizer;
  hash.update(JSON.stringify([vocab, bos ?? null, [...eos].sort((a, b) => a - b), addBos, tokenizer.encode(PROBE)]));
  const step = Math.max(1, Math.floor(vocab / TOKENS));
  for (let token = 0; token < vocab; token += step) {
    const bytes = tokenizer.bytes(token);
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return hash.digest("hex").slice(0, 16);
}
