import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { KvChunk, KvLayer, KvQueries } from "../core/kv.ts";
import type { KvIndex } from "../index/index.ts";
import type { LayerPolicy } from "./policy.ts";
import { resolveAttention } from "./mod.ts";

const LAYERS = 6;
const MIN_LENGTH = 1000;

/** Layers of the policy, and what each was asked to index, in order. */
function open(policy: string, observes: boolean): { layers: LayerPolicy[]; added: KvChunk[][] } {
  const { type, params } = resolveAttention({ policy, index: "flat" });
  const added: KvChunk[][] = [];
  const layers = Array.from({ length: LAYERS }, (_, layer) => {
    const chunks: KvChunk[] = [];
    added.push(chunks);
    const index = { observes, observe: () => {}, add: (chunk: KvChunk) => chunks.push(chunk) } as unknown as KvIndex;
    const kv: KvLayer = { shape: { heads: 1, kvHeads: 1, headDim: 8, scale: 1 }, length: 0, segments: [] };
    const opened = type.open({ kv, layer, layers: LAYERS, newIndex: () => index }, params);
    assert(opened !== undefined);
    return opened;
  });
  return { layers, added };
}

/** A prompt of so many tokens, then one token a step up to `length`. */
function grow(layers: readonly LayerPolicy[], prompt: number, length: number): void {
  for (const layer of layers) layer.observe?.({ start: 0, count: prompt } as KvQueries, true);
  for (let at = prompt; at <= length; at++) for (const layer of layers) layer.advance(at);
}

/** First token and last of what layers hold, which came without gaps. */
function held(added: readonly KvChunk[][]): (readonly [number, number] | undefined)[] {
  return added.map((chunks) => {
    for (const [i, { start, count }] of chunks.entries()) {
      const next = chunks[i + 1];
      assert(next === undefined || next.start === start + count);
    }
    const [first, last] = [chunks[0], chunks.at(-1)];
    return first && last ? [first.start, last.start + last.count] : undefined;
  });
}

describe("retrieval", () => {
  const policy = `retrieval:sinks=4,window=64,min_length=${MIN_LENGTH}`;

  it("indexes nothing before searches are near, then layer after layer, and the same as if it always had", () => {
    const { layers, added } = open(policy, false);
    // Steps that attend to everything can be repeated.
    assert(layers.every((layer) => layer.isIdle?.(501) === false));
    grow(layers, 500, MIN_LENGTH - 64 * LAYERS - 1);
    assertEquals(held(added), new Array(LAYERS).fill(undefined));
    assert(layers.every((layer) => layer.index === undefined && layer.isIdle?.(700) === true));
    let begun = 0;
    for (let at = MIN_LENGTH - 64 * LAYERS; at < MIN_LENGTH; at++) {
      for (const layer of layers) layer.advance(at);
      const now = added.filter((chunks) => chunks.length > 0).length;
      assert(now - begun <= 1, "two layers began in one step");
      begun = now;
    }
    assertEquals(begun, LAYERS);
    grow(layers, MIN_LENGTH, MIN_LENGTH + 100);
    const early = open(policy, true);
    grow(early.layers, 500, MIN_LENGTH + 100);
    assertEquals(held(added), held(early.added));
    // Few of them in one chunk of a prompt.
    const chunked = open(policy, false);
    for (let at = 128, before = 0; at <= MIN_LENGTH + 128; at += 128) {
      for (const layer of chunked.layers) {
        layer.observe?.({ start: at - 128, count: 128 } as KvQueries, true);
        layer.advance(at);
      }
      const now = chunked.added.filter((chunks) => chunks.length > 0).length;
      assert(now - before <= 2, `${now - before} layers began in a chunk`);
      before = now;
    }
    // A prompt that is longer at once is indexed at once.
    const long = open(policy, false);
    grow(long.layers, MIN_LENGTH + 100, MIN_LENGTH + 100);
    assertEquals(held(long.added), held(added));
  });

  it("indexes as tokens leave the window where the index learns from queries, or stops growing with the prompt", () => {
    for (const { layers, added } of [open(policy, true), open(`${policy},grow=false`, false)]) {
      grow(layers, 500, 500);
      assert(held(added).every((range) => range !== undefined && range[0] === 4 && range[1] > 300));
    }
  });
});
