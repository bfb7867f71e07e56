/**
 * Saves sequences to context files and opens them again (docs/context_file.md).
 *
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { KvLayer, KvSegment, LayerShape } from "../core/kv.ts";
import type { Backend, TensorFile, TensorFiles, TensorFileWriter } from "../backends/backend.ts";
import type { KvIndex } from "../index/index.ts";
import type { PolicyPlace } from "../attention/policy.ts";
import { ContextError, NATIVE_STATUS, NativeError, Unsupported } from "../core/errors.ts";
import { KvCache, type KvType } from "../attention/kv_cache.ts";
import { type AttentionPlan, SequenceState } from "../attention/state.ts";
import { type ContextAbout, decodeAbout, encodeAbout } from "./context_about.ts";

const PARTS = ["keys", "values", "keyScales", "valueScales"] as const;

/**
 * Writes a context, a layer a `next()`; `return()` leaves no trace. The state must not change meanwhile: give a fork. Throws
 * `ContextError` `full` when the disk is.
 */
export function* saveContext(
  backend: Backend,
  path: string,
  about: Omit<ContextAbout, "layers" | "version">,
  tokens: Int32Array<ArrayBuffer>,
  state: SequenceState,
): Generator<void, void> {
  try {
    using file = filesOf(backend).create(path);
    const layers = state.cache.layers.map(({ shape }, l) => ({
      kvHeads: shape.kvHeads,
      headDim: shape.headDim,
      hasIndex: state.policies[l]?.index?.saveInto !== undefined,
    }));
    file.add("about", encodeAbout({ version: 1, ...about, layers }));
    file.add("tokens", new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
    for (const [l, kv] of state.cache.layers.entries()) {
      addLayer(file, l, kv, state.policies[l]?.index);
      yield;
    }
    file.commit();
  } catch (error) {
    const isDisk = error instanceof NativeError && error.code === NATIVE_STATUS.DEVICE;
    if (!isDisk) throw error;
    // An index is written by its own library, which knows the part's name only.
    const why = error.message.replace(/^Cannot save [^:]*: /, "");
    throw new ContextError("full", `Cannot save context to "${path}": ${why}`);
  }
}

function addLayer(file: TensorFileWriter, l: number, kv: KvLayer, index: KvIndex | undefined): void {
  const segments = kv.segments.filter((segment) => segment.count > 0);
  const counts = segments.map((segment) => segment.count);
  for (const part of PARTS) {
    const tensors = segments.flatMap((segment) => segment[part] ?? []);
    if (tensors.length > 0) file.addRows(`${part}.${l}`, tensors, counts);
  }
  if (index?.saveInto !== undefined) {
    file.addForeign(`index.${l}`, (path, offset) => index.saveInto?.(path, offset) as number);
  }
}

/** How a context is opened. */
export interface OpenPlace {
  /** Where its rows are mapped. */
  readonly backend: Backend;
  /** Of the model's layers. */
  readonly shapes: readonly LayerShape[];
  /** How it attends. */
  readonly plan: AttentionPlan | undefined;
}

/** A context file in use. */
export interface OpenedContext {
  /** What it says of itself. */
  readonly about: ContextAbout;
  /** That its rows were made of. */
  readonly tokens: Int32Array<ArrayBuffer>;
  /** Over its rows. */
  readonly state: SequenceState;
}

/**
 * Maps a context, every section of it checked; `check` sees the description before anything else is read. Throws
 * `ContextError` `damaged` for a file that is not as it was written, and what `check` throws.
 */
export function openContext(
  path: string,
  place: OpenPlace,
  check: (about: ContextAbout) => void,
): OpenedContext {
  try {
    using file = filesOf(place.backend).open(path);
    const about = decodeAbout(file.read("about"), path);
    check(about);
    file.verify();
    const tokens = new Int32Array(file.read("tokens").buffer);
    const { layers } = about;
    const fits = layers.every((l, i) =>
      l.kvHeads === place.shapes[i]?.kvHeads && l.headDim === place.shapes[i]?.headDim
    );
    if (tokens.length !== about.tokens || layers.length !== place.shapes.length || !fits) {
      throw new RangeError("Cannot open context file: its layers or tokens are not those it says");
    }
    return { about, tokens, state: mapState(path, file, about, place) };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const why = error.message.replace(/^Cannot open (context file|index[^:]*): /, "");
    throw new ContextError("damaged", `Cannot open context "${path}": ${why}; delete it and make it anew`);
  }
}

function mapState(path: string, file: TensorFile, about: ContextAbout, place: OpenPlace): SequenceState {
  const { backend, plan } = place;
  const made: Tensor[] = [];
  const map = (name: string, shape: readonly number[], dtype: KvType) => {
    const tensor = file.map(name, shape, dtype);
    made.push(tensor);
    return tensor;
  };
  let cache: KvCache | undefined;
  try {
    const type = about.fingerprint.kvType as KvType;
    const segments = place.shapes.map(({ kvHeads, headDim }, l): KvSegment => {
      const shape = [kvHeads, about.tokens, headDim];
      const base = { start: 0, count: about.tokens, sealed: true };
      const [keys, values] = [map(`keys.${l}`, shape, type), map(`values.${l}`, shape, type)];
      if (type !== "i8") return { ...base, keys, values };
      const scales = (name: string) => map(`${name}.${l}`, shape.slice(0, 2), "f32");
      return { ...base, keys, values, keyScales: scales("keyScales"), valueScales: scales("valueScales") };
    });
    cache = KvCache.over(backend, place.shapes, type, segments);
    const openPolicy = (at: PolicyPlace) => {
      const hasIndex = about.layers[at.layer]?.hasIndex === true;
      const saved = hasIndex ? plan?.mapIndex(path, file.find(`index.${at.layer}`), at.kv) : undefined;
      const policy = plan?.attention.type.open({ ...at, saved }, plan.attention.params);
      policy?.advance(about.tokens);
      return policy;
    };
    return new SequenceState(backend, place.shapes, type, about.tokens, plan, { cache, openPolicy });
  } catch (error) {
    if (cache === undefined) { for (const tensor of made) backend.free(tensor); }
    throw error;
  }
}

function filesOf(backend: Backend): TensorFiles {
  if (backend.files !== undefined) return backend.files;
  throw new Unsupported(`Cannot save or open contexts: backend "${backend.spec}" keeps no files, use backend cpu`);
}
