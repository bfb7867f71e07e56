/**
 * How an engine's sequences attend: options resolved to a policy and an index on the engine's backend.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { LayerShape } from "../core/kv.ts";
import type { AttentionPlan } from "../attention/state.ts";
import { parseSpec } from "../core/spec.ts";
import { type AttentionOptions, type Policies, resolveAttention, type ResolvedAttention } from "../attention/mod.ts";
import { IndexRegistry } from "../index/mod.ts";
import { NO_PLUGINS, type Plugins } from "./plugins.ts";

/** What was resolved, as specs and as something to attend with. */
export interface EnginePlan {
  /** Canonical spec of the policy. */
  readonly policy: string;
  /** Canonical spec of the index; empty where none is asked. */
  readonly index: string;
  /** Absent where everything is attended to. */
  readonly plan?: AttentionPlan;
}

/** What specs are looked up in, beside our own policies. */
export interface AttentionNames {
  /** Made when it is first asked for; one for all plans on a backend, for it holds what native indexes of the backend share. */
  readonly indexes: () => IndexRegistry;
  /** The caller's policies. */
  readonly policies: Policies;
}

/** Names with what `plugins` add, for plans on one backend. */
export function attentionNames({ indexTypes, policies }: Omit<Plugins, "backends">): AttentionNames {
  let registry: IndexRegistry | undefined;
  return { policies, indexes: () => registry ??= new IndexRegistry(indexTypes) };
}

/**
 * Throws `RangeError` that lists what there is for unknown names, and `Unsupported` for an index that the backend cannot
 * have. A preset's native index is replaced by the TypeScript one on a backend whose
 * memory native code cannot see, and by the device's on a device. Where nothing is asked for, a backend without sparse attention attends to everything.
 */
export function planAttention(
  options: AttentionOptions,
  backend: Backend,
  names: AttentionNames = attentionNames(NO_PLUGINS),
): EnginePlan {
  const wants = isAsked(options) || canRetrieve(backend) ? options : { preset: "full" };
  const attention = resolveAttention(wants, names.policies);
  if (!attention.type.usesIndex) return withoutIndex(attention);
  const registry = names.indexes();
  const wanted = options.index === undefined ? availableIndex(attention.index, backend) : attention.index;
  const index = registry.canonical(wanted);
  return {
    policy: attention.policy,
    index,
    plan: {
      attention,
      index,
      newIndex: (kv) => registry.create(index, kv, backend),
      mapIndex: (path, range, kv) => registry.map(path, index, kv, backend, range),
    },
  };
}

/**
 * Makes the plan's index for a layer without keys and lets it go: throws what making it would, before a prompt is read for it.
 * `layers` are the model's.
 */
export function tryIndex({ plan, index }: EnginePlan, layers: readonly LayerShape[]): void {
  const shape = layers.find(({ slidingWindow }) => slidingWindow === undefined);
  if (plan === undefined || index === "" || shape === undefined) return;
  plan.newIndex({ shape, length: 0, segments: [] })[Symbol.dispose]();
}

/** A preset's index, or what stands for it on this backend: devices have one type of their own, others without native memory TypeScript's. */
function availableIndex(wanted: string, { host }: Backend): string {
  if (host === undefined) return "flat-reference";
  return host.indexLibrary === undefined || parseSpec(wanted).name === "flat" ? wanted : "flat:codes=int4";
}

function withoutIndex(attention: ResolvedAttention): EnginePlan {
  const { policy, type } = attention;
  if (type.isDense) return { policy, index: "" };
  const newIndex = () => {
    throw new TypeError(`Cannot make an index: policy "${policy}" uses none`);
  };
  return { policy, index: "", plan: { attention, index: "", newIndex, mapIndex: newIndex } };
}

function isAsked({ preset, policy, index, error, budget }: AttentionOptions): boolean {
  return [preset, policy, index, error, budget].some((option) => option !== undefined);
}

function canRetrieve({ kernels }: Backend): boolean {
  return kernels.attendWindow !== undefined && kernels.attendTopk !== undefined && kernels.merge !== undefined;
}
