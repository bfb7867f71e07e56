/**
 * The policy registry, and what a run attends with: a policy and an index, resolved from names and flags.
 *
 * @module
 */
import type { AttentionPolicy } from "./policy.ts";
import { loadEntries } from "../core/plugin.ts";
import { formatSpec, lookUp, type ParamValue, parseSpec, resolveParams, type Spec } from "../core/spec.ts";
import { full } from "./full.ts";
import { DEFAULT_PRESET, presets } from "./presets.ts";
import { retrieval } from "./retrieval.ts";
import { window } from "./window.ts";

export { DEFAULT_PRESET, presets } from "./presets.ts";
export type { Preset } from "./presets.ts";

/** Policies by name. */
// deno-lint-ignore no-explicit-any -- each entry has parameters of its own, which `resolveParams` matches to its defaults
export type Policies = Readonly<Record<string, AttentionPolicy<any>>>;

/** Those that come with Kvasir: one line each. */
export const builtinPolicies: Policies = { full, window, retrieval };

/**
 * Policies of a module that exports `policies`; a path is taken from the working directory. Throws `TypeError` when the export's
 * shape is another, and when there is none unless `isOptional`.
 */
export async function loadPolicies(url: string, isOptional = false): Promise<Policies> {
  const facts = ["isDense", "usesIndex"];
  return await loadEntries(url, {
    field: "policies",
    kind: "policy",
    methods: ["check", "open"],
    facts,
    isOptional,
  }) as Policies;
}

/** What the user asked for; what is absent is the preset's. */
export interface AttentionOptions {
  /** A name of `presets`. */
  readonly preset?: string;
  /** Spec of a policy, in place of the preset's; the preset's index goes with it where the preset is named. */
  readonly policy?: string;
  /** Spec of an index. */
  readonly index?: string;
  /** Relative L2 error of a head's output. */
  readonly error?: number;
  /** Keys per query head instead. */
  readonly budget?: number;
}

/** A policy with its parameters, and the spec of its index. */
export interface ResolvedAttention {
  /** What it is. */
  readonly type: AttentionPolicy;
  /** Checked. */
  readonly params: Readonly<Record<string, ParamValue>>;
  /** Canonical, as printed in every bench row. */
  readonly policy: string;
  /** As given; `flat` by default. */
  readonly index: string;
}

/**
 * Throws `RangeError` that lists the names there are, and for `error` or `budget` with a policy that has none, or both.
 * `extra` are the caller's own policies.
 */
export function resolveAttention(options: AttentionOptions, extra: Policies = {}): ResolvedAttention {
  const preset = lookUp("preset", options.preset ?? DEFAULT_PRESET, presets);
  const isNamed = options.policy === undefined || options.preset !== undefined;
  const spec = parseSpec(options.policy ?? preset.policy);
  const type = lookUp("policy", spec.name, { ...builtinPolicies, ...extra });
  const params = resolveParams(withGoal(spec, options, type.defaults), type.defaults);
  type.check(params);
  return {
    type,
    params,
    policy: formatSpec(spec.name, params),
    index: options.index ?? (isNamed ? preset.index : undefined) ?? "flat",
  };
}

function withGoal({ name, params }: Spec, { error, budget }: AttentionOptions, defaults: object): Spec {
  if (error !== undefined && budget !== undefined) {
    throw new RangeError("Cannot use both an error and a budget: the error decides how many keys are read");
  }
  const goal = { ...(error === undefined ? {} : { error, budget: 0 }), ...(budget === undefined ? {} : { budget }) };
  const given = new Map(params);
  for (const [key, value] of Object.entries(goal)) {
    if (!(key in defaults)) {
      throw new RangeError(`Cannot use ${key} with policy "${name}": it retrieves nothing, try --preset kvasir`);
    }
    given.set(key, String(value));
  }
  return { name, params: given };
}
