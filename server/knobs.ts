/**
 * How much attention a request pays for: its `kvasir` object over the server's defaults.
 *
 * @module
 */
import type { AttentionOptions, Policies } from "../attention/mod.ts";
import type { Knobs } from "./fields.ts";
import { DEFAULT_PRESET, resolveAttention } from "../attention/mod.ts";
import { formatSpec, parseSpec } from "../core/spec.ts";
import { ApiError } from "./errors.ts";
import { wrong } from "./request.ts";

/** What the operator allows. */
export interface KnobLimits {
  /** Names of indexes that requests may ask for; empty: all. */
  readonly allowIndex: readonly string[];
  /** Most keys that a request may ask for. */
  readonly maxBudget: number;
  /** Policies beside ours. */
  readonly policies?: Policies;
}

const PARAMS = ["sinks", "window", "dense_layers", "min_length"] as const;

/** The attention of a request; undefined: the engine's own. Throws `ApiError` for what is not allowed or makes no sense. */
export function attentionOf(
  knobs: Knobs | null | undefined,
  defaults: AttentionOptions,
  limits: KnobLimits,
): AttentionOptions | undefined {
  if (knobs === null || knobs === undefined) return undefined;
  const { mode = "auto", preset, policy, index, error, budget } = knobs;
  const params = PARAMS.filter((name) => knobs[name] !== undefined);
  if (mode === "exact") {
    const other = [...params, ...["preset", "policy", "index", "error", "budget"] as const].find((name) =>
      knobs[name] !== undefined
    );
    if (other !== undefined) throw wrong(`kvasir.${other}`, "mode exact attends to everything");
    return { preset: "full" };
  }
  const isPlain = mode === "auto" && params.length === 0;
  if (isPlain && [preset, policy, index, error, budget].every((knob) => knob === undefined)) return undefined;
  allow(knobs, limits);
  const isOwn = preset !== undefined || policy !== undefined;
  const base: AttentionOptions = isOwn
    ? { ...(preset === undefined ? {} : { preset }), ...(policy === undefined ? {} : { policy }) }
    : withRetrieval(defaults, limits.policies);
  const goal = error !== undefined ? { error } : budget !== undefined ? { budget } : {};
  const kept = Object.keys(goal).length > 0 ? without(base, ["error", "budget"]) : base;
  if (error !== undefined && budget !== undefined) {
    throw wrong("kvasir.budget", "an error and a budget exclude each other");
  }
  const resolved = guarded(() =>
    resolveAttention({ ...kept, ...goal, ...(index === undefined ? {} : { index }) }, limits.policies)
  );
  const overrides: Record<string, string | number> = {};
  for (const name of params) overrides[name] = knobs[name] as string | number;
  if (mode === "retrieval") overrides["min_length"] ??= 0;
  const spec = parseSpec(resolved.policy);
  for (const name of Object.keys(overrides)) {
    if (!(name in resolved.params)) throw wrong(`kvasir.${name}`, `policy "${spec.name}" has no such parameter`);
  }
  // A preset's own index is left to the engine: some backends have another in its place.
  const own = index ?? kept.index;
  return {
    ...(kept.policy === undefined || kept.preset !== undefined ? { preset: kept.preset ?? DEFAULT_PRESET } : {}),
    policy: formatSpec(spec.name, { ...resolved.params, ...overrides }),
    ...(own === undefined ? {} : { index: own }),
  };
}

/** Retrieval knobs without a preset mean retrieval, also where the server's own default is exact. */
function withRetrieval(defaults: AttentionOptions, policies?: Policies): AttentionOptions {
  return resolveAttention(defaults, policies).type.isDense ? { preset: "kvasir" } : defaults;
}

function allow({ index, budget }: Knobs, { allowIndex, maxBudget }: KnobLimits): void {
  const name = index === undefined ? undefined : guarded(() => parseSpec(index)).name;
  if (name !== undefined && allowIndex.length > 0 && !allowIndex.includes(name)) {
    throw new ApiError("permission_error", `Cannot use index "${name}": the operator allows ${allowIndex.join(", ")}`, {
      param: "kvasir.index",
    });
  }
  if (budget !== undefined && budget > maxBudget) {
    throw new ApiError("permission_error", `Cannot use a budget of ${budget}: the operator allows ${maxBudget}`, {
      param: "kvasir.budget",
    });
  }
}

function without(options: AttentionOptions, names: readonly string[]): AttentionOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !names.includes(name)));
}

/** Errors of specs name the field. */
function guarded<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof RangeError) {
      throw new ApiError("invalid_request_error", error.message, { param: "kvasir" });
    }
    throw error;
  }
}
