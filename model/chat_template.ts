/**
 * Runs Jinja chat templates. A template is part of a model file, so it is hostile until proven otherwise: it may neither run
 * nor grow without end.
 *
 * @module
 */
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { ModelFileError } from "../core/errors.ts";

type Statement = Parameters<Interpreter["evaluate"]>[0];
type Value = ReturnType<Interpreter["evaluate"]>;

/** A template longer than this is no chat template. The longest known have 20 KB. */
const MAX_SOURCE = 1 << 20;
const MAX_MS = 2000;
const MAX_LIST = 100_000;
const MAX_TEXT = 1 << 26;

/** A parsed template; rendering is deterministic but for `strftime_now`. */
export class Template {
  readonly #program: ReturnType<typeof parse>;

  /** Throws {@link ModelFileError} when `source` is no template. */
  constructor(readonly source: string) {
    if (source.length > MAX_SOURCE) {
      throw new ModelFileError(`Cannot read chat template: ${source.length} characters, ${MAX_SOURCE} are allowed`);
    }
    try {
      // The blocks' own lines vanish, as in transformers.
      this.#program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    } catch (error) {
      throw new ModelFileError(`Cannot read chat template: ${reason(error)}`);
    }
  }

  /** The text of `variables`. Throws `RangeError` with what the template says of a conversation that it refuses. */
  render(variables: Readonly<Record<string, unknown>>): string {
    try {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ ...globals(), ...variables })) environment.set(name, value);
      return String(new Bounded(environment).run(this.#program).value);
    } catch (error) {
      throw new RangeError(`Cannot render conversation: ${reason(error)}`);
    }
  }
}

/** The interpreter with an end: time, list lengths and text lengths. */
class Bounded extends Interpreter {
  readonly #deadline = performance.now() + MAX_MS;

  override evaluate(statement: Statement, environment: Environment): Value {
    if (performance.now() > this.#deadline) throw new Error(`the template ran for more than ${MAX_MS / 1000} seconds`);
    const value = super.evaluate(statement, environment);
    const inner: unknown = value.value;
    if (Array.isArray(inner) && inner.length > MAX_LIST) throw new Error(`a list of more than ${MAX_LIST} values`);
    if (typeof inner === "string" && inner.length > MAX_TEXT) {
      throw new Error(`a text of more than ${MAX_TEXT} characters`);
    }
    return value;
  }
}

/** What templates expect to find, as in transformers. */
function globals(): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range,
    strftime_now: (format: string) => strftime(new Date(), format),
    raise_exception: (message: unknown) => {
      throw new Error(`the template says "${String(message)}"`);
    },
  };
}

function range(first: number, stop?: number, step = 1): number[] {
  const [from, to] = typeof stop === "number" ? [first, stop] : [0, first];
  const length = Math.ceil((to - from) / step);
  if (Number.isNaN(length) || length > MAX_LIST) throw new Error(`range() of more than ${MAX_LIST} values`);
  return Array.from({ length: Math.max(0, length) }, (_, i) => from + i * step);
}

/** Python's `strftime` for the fields that templates use, in English and local time. */
export function strftime(date: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const named = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-US", options).format(date);
  return format.replace(/%([YmdyHMSbBaA%])/g, (_, field: string) => {
    switch (field) {
      case "Y":
        return String(date.getFullYear());
      case "y":
        return two(date.getFullYear() % 100);
      case "m":
        return two(date.getMonth() + 1);
      case "d":
        return two(date.getDate());
      case "H":
        return two(date.getHours());
      case "M":
        return two(date.getMinutes());
      case "S":
        return two(date.getSeconds());
      case "b":
        return named({ month: "short" });
      case "B":
        return named({ month: "long" });
      case "a":
        return named({ weekday: "short" });
      case "A":
        return named({ weekday: "long" });
      default:
        return "%";
    }
  });
}

function reason(error: unknown): string {
  const { message } = error as Error;
  // Stack overflow: thrown by the runtime, in its own words.
  if (error instanceof RangeError && /call stack/.test(message)) return "the template nests too deeply";
  return message;
}
