/**
 * Hyperparameters of a model file, checked and normalized.
 *
 * @module
 */
export { fromGguf } from "./config_gguf.ts";
export { fromHf } from "./config_hf.ts";
export { type ArchitectureName, ARCHITECTURES } from "./config_build.ts";
