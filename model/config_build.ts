/**
 * From checked hyperparameters to the canonical {@link ModelConfig}: what GGUF metadata and config.json share.
 *
 * @module
 */
import type { LayerShape, Rope } from "../core/kv.ts";
import { Fields, LIMITS } from "./config_fields.ts";
import type { ModelConfig } from "./model.ts";
import { badFile } from "./open_source.ts";
import { ropeFrequencies, type RopeOptions } from "./rope.ts";
import { overrideRope, type RopeOverride, stretchedContext } from "./rope_override.ts";

/** Canonical architecture names. */
export const ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3"] as const;
/** One of {@link ARCHITECTURES}. */
export type ArchitectureName = typeof ARCHITECTURES[number];

/** What both kinds of file state, before per-layer shapes are made of it. */
export interface Hyperparameters {
  /** The file that errors name. */
  readonly path: string;
  /** Decides which architecture file runs it. */
  readonly architecture: ArchitectureName;
  /** For people. */
  readonly name: string;
  /** Rows of the embedding table. */
  readonly vocab: number;
  /** Dimensions of the residual stream. */
  readonly width: number;
  /** Inner dimensions of the feed-forward layers. */
  readonly mlpWidth: number;
  /** Added to the mean square. */
  readonly normEpsilon: number;
  /** Tokens the model was trained for. */
  readonly contextLength: number;
  /** One entry a layer. */
  readonly heads: readonly number[];
  /** One entry a layer. */
  readonly kvHeads: readonly number[];
  /** Dimensions of one head, keys and values alike. */
  readonly headDim: number;
  /** Factor on the logits. */
  readonly scale: number;
  /** Bound of the logits, where there is one. */
  readonly softcap: number | undefined;
  /** Window of the layers for which `sliding` says true. */
  readonly slidingWindow: number | undefined;
  /** Whether a layer has a window. */
  readonly sliding: (layer: number) => boolean;
  /** Which dimensions rotate together. */
  readonly pairing: Rope["pairing"];
  /** Rope of layers that see everything. */
  readonly rope: RopeOptions;
  /** Rope of sliding layers where it differs. */
  readonly localRope: RopeOptions | undefined;
}

/** Checks how the fields fit together and makes the layers; throws `ModelFileError`, and `RangeError` for a wrong `override`. */
export function buildConfig(h: Hyperparameters, override: RopeOverride = {}): ModelConfig {
  const rope = makeRope(h, overrideRope(h.rope, override, h.contextLength));
  const localRope = h.localRope === undefined ? rope : makeRope(h, h.localRope);
  const layers = h.heads.map((heads, i): LayerShape => {
    const kvHeads = h.kvHeads[i] as number;
    if (heads % kvHeads !== 0) {
      throw badFile(h.path, `layer ${i} has ${heads} query heads for ${kvHeads} key/value heads, a multiple is needed`);
    }
    const slides = h.slidingWindow !== undefined && h.sliding(i);
    return {
      heads,
      kvHeads,
      headDim: h.headDim,
      scale: h.scale,
      ...(h.softcap === undefined ? {} : { softcap: h.softcap }),
      ...(slides ? { slidingWindow: h.slidingWindow as number } : {}),
      rope: slides ? localRope : rope,
    };
  });
  const { architecture, name, vocab, width, mlpWidth, normEpsilon } = h;
  const contextLength = stretchedContext(override, h.contextLength);
  return { architecture, name, vocab, width, mlpWidth, normEpsilon, contextLength, layers };
}

/** `width / heads` where a file does not say the head's size. */
export function defaultHeadDim(fields: Fields, width: number, heads: number, name: string): number {
  if (width % heads === 0 && width / heads >= LIMITS.headDim.min && width / heads <= LIMITS.headDim.max) {
    return width / heads;
  }
  throw fields.bad(name, `and width ${width} over ${heads} heads gives none`);
}

function makeRope(h: Hyperparameters, options: RopeOptions): Rope {
  if (options.dims > h.headDim || options.dims % 2 !== 0) {
    throw badFile(
      h.path,
      `${options.dims} rotated dimensions of heads of ${h.headDim}, an even number of them is needed`,
    );
  }
  try {
    return { ...ropeFrequencies(options), dims: options.dims, pairing: h.pairing };
  } catch (error) {
    if (error instanceof RangeError) throw badFile(h.path, error.message.replace(/^[^:]*: /, "rotary embedding: "));
    throw error;
  }
}
