/**
 * How a model's makers recommend to draw its tokens, where its files say so.
 *
 * @module
 */
import { Fields } from "./config_fields.ts";
import type { GgufValue } from "./gguf_values.ts";

/** Fields of `Sampling` that the file recommends. */
export interface GenerationDefaults {
  /** 0 is greedy. */
  readonly temperature?: number;
  /** 0 is off. */
  readonly topK?: number;
  /** 1 is off. */
  readonly topP?: number;
  /** 0 is off. */
  readonly minP?: number;
  /** 1 is off. */
  readonly repetitionPenalty?: number;
}

/** `general.sampling.*` of GGUF metadata. */
export function ggufDefaults(metadata: ReadonlyMap<string, GgufValue>, path: string): GenerationDefaults {
  const f = new Fields(path, (name) => metadata.get(name), "general.sampling.");
  return read(f, {
    temperature: "temp",
    topK: "top_k",
    topP: "top_p",
    minP: "min_p",
    repetitionPenalty: "penalty_repeat",
  });
}

/** generation_config.json; without `do_sample` its numbers are not used, so nothing is recommended. */
export function hfDefaults(json: unknown, path: string): GenerationDefaults {
  if (typeof json !== "object" || json === null) return {};
  const fields = json as Readonly<Record<string, unknown>>;
  const f = new Fields(path, (name) => Object.hasOwn(fields, name) ? fields[name] : undefined);
  if (!f.flag("do_sample", false)) return {};
  return read(f, {
    temperature: "temperature",
    topK: "top_k",
    topP: "top_p",
    minP: "min_p",
    repetitionPenalty: "repetition_penalty",
  });
}

/** Values out of range are left out: a recommendation is no reason to refuse the model. */
function read(f: Fields, names: Readonly<Record<keyof GenerationDefaults, string>>): GenerationDefaults {
  const within = (name: string, min: number, max: number) => {
    const value = f.raw(name);
    return typeof value === "number" && value >= min && value <= max ? value : undefined;
  };
  const all = {
    temperature: within(names.temperature, 0, 100),
    topK: within(names.topK, 0, 1 << 20),
    topP: within(names.topP, 1e-6, 1),
    minP: within(names.minP, 0, 1),
    repetitionPenalty: within(names.repetitionPenalty, 1e-3, 100),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}
