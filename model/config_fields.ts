/**
 * Checked access to a model's hyperparameters, whether they come from GGUF metadata or from config.json.
 *
 * @module
 */
import type { ModelFileError } from "../core/errors.ts";
import { badFile, isList, shown } from "./open_source.ts";

/** Inclusive bounds of a field. */
export interface Range {
  /** Smallest possible value. */
  readonly min: number;
  /** Largest possible value. */
  readonly max: number;
}

/** Largest sizes that any known model comes near; more is a damaged file. */
export const LIMITS = {
  layers: { min: 1, max: 1024 },
  width: { min: 1, max: 1 << 18 },
  mlpWidth: { min: 1, max: 1 << 20 },
  vocab: { min: 1, max: 1 << 22 },
  heads: { min: 1, max: 1024 },
  headDim: { min: 2, max: 1024 },
  context: { min: 1, max: 1 << 30 },
} as const satisfies Record<string, Range>;

/** Reads fields by name; a missing (or null) field takes the fallback, or is an error when there is none. */
export class Fields {
  readonly #lookup: (name: string) => unknown;

  /** `lookup` gives a field's raw value by its full name, `prefix` and name; `path` is the file that errors name. */
  constructor(readonly path: string, lookup: (name: string) => unknown, readonly prefix = "") {
    this.#lookup = lookup;
  }

  /** The field as it is in the file. */
  raw(name: string): unknown {
    return this.#lookup(this.prefix + name);
  }

  /** Whether the field is there and not null. */
  has(name: string): boolean {
    return (this.raw(name) ?? undefined) !== undefined;
  }

  /** The error about a field: `Cannot open model: <name> is <value>, <wanted> (<path>)`. */
  bad(name: string, wanted: string): ModelFileError {
    return badFile(this.path, `${this.prefix}${name} is ${shown(this.raw(name))}, ${wanted}`);
  }

  /** An integer within `range`. */
  int(name: string, range: Range, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw(name);
    if (typeof value === "number" && Number.isInteger(value) && value >= range.min && value <= range.max) return value;
    throw this.bad(name, `an integer from ${range.min} to ${range.max} needed`);
  }

  /** A finite number over 0. */
  positive(name: string, fallback?: number): number {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw(name);
    if (typeof value === "number" && value > 0 && Number.isFinite(value)) return value;
    throw this.bad(name, "a positive number needed");
  }

  /** true or false. */
  flag(name: string, fallback: boolean): boolean {
    if (!this.has(name)) return fallback;
    const value = this.raw(name);
    if (typeof value === "boolean") return value;
    throw this.bad(name, "true or false needed");
  }

  /** A text. */
  text(name: string, fallback?: string): string {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw(name);
    if (typeof value === "string") return value;
    throw this.bad(name, "a text needed");
  }

  /** One integer a layer: the field holds one for all, or a list of `layers`. */
  intPerLayer(name: string, layers: number, range: Range, fallback?: readonly number[]): readonly number[] {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = this.raw(name);
    if (!isList(value)) return new Array<number>(layers).fill(this.int(name, range));
    if (value.length !== layers) throw this.bad(name, `${layers} entries needed, one a layer`);
    return Array.from(value, (entry) => {
      if (Number.isInteger(entry) && (entry as number) >= range.min && (entry as number) <= range.max) {
        return entry as number;
      }
      throw this.bad(name, `integers from ${range.min} to ${range.max} needed`);
    });
  }
}
