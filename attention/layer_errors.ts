/**
 * Errors of single layers, where one for all does not suit a model: `11:0.025/17:0.04`.
 *
 * @module
 */

/** One layer and its error. */
const ENTRY = /^(\d{1,4}):(\d+\.?\d*|\.\d+)$/;

/**
 * Errors by layer as `text` gives them; `RangeError` where it is not `layer:error` with `/` between, an error is no number from 0 to 1,
 * or a layer is named twice.
 */
export function parseLayerErrors(text: string): ReadonlyMap<number, number> {
  const errors = new Map<number, number>();
  if (text === "") return errors;
  for (const entry of text.split("/")) {
    const [, layer, error] = ENTRY.exec(entry) ?? [];
    if (layer === undefined || error === undefined) {
      throw bad(`holds "${entry}", expected layer:error with "/" between, as 11:0.025/17:0.04`);
    }
    if (!(Number(error) <= 1)) throw bad(`has ${error} for layer ${layer}, expected a number from 0 to 1`);
    if (errors.has(Number(layer))) throw bad(`names layer ${layer} twice`);
    errors.set(Number(layer), Number(error));
  }
  return errors;
}

function bad(what: string): RangeError {
  return new RangeError(`Cannot use "retrieval": errors ${what}`);
}
