/**
 * The registry of architectures. A new one is one file that exports an {@link Architecture}, and one entry here.
 *
 * @module
 */
import type { Architecture, Model, ModelConfig, Weights } from "./model.ts";
import { ModelFileError } from "../core/errors.ts";
import { gemma3 } from "./gemma3.ts";
import { llama } from "./llama.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** Every architecture that can be loaded. */
export const architectures: readonly Architecture[] = [llama, qwen2, qwen3, gemma3];

/** The architecture called `name`; throws {@link ModelFileError} listing the known names. */
export function architecture(name: string): Architecture {
  const found = architectures.find((a) => a.names.includes(name));
  if (found !== undefined) return found;
  const names = architectures.flatMap((a) => a.names).join(", ");
  throw new ModelFileError(`Cannot load model: architecture "${name}" is not supported, choose one of ${names}`);
}

/** Puts a model's weights on their backend: the model that `config.architecture` names. */
export function loadModel(config: ModelConfig, weights: Weights): Model {
  return architecture(config.architecture).load(config, weights);
}
