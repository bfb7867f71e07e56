/**
 * How an engine's sequences attend: options resolved to a policy and an index on the engine's backend.
 *
 * @module
 */
import type { Backend } from "../backends/backend.ts";
import type { AttentionPlan } from "../attention/state.ts";
import { parseSpec } from "../core/spec.ts";
import { type AttentionOptions, resolveAttention, type ResolvedAttention } from "../attention/mod.ts";
import { IndexRegistry, type IndexTypes } from "../index/mod.ts";

/** What was resolved, as specs and as something to attend with. */
export interface EnginePlan {
  /** Canonical spec of the policy. */
  readonly policy: string;
  /** Canonical spec of the index; empty where none is asked. */
  readonly index: string;
  /** Absent where everything is attended to. */
  readonly plan?: AttentionPlan;
}

/**
 * Throws `RangeError` that lists what there is for unknown names, and `Unsupported` for an index that the backend cannot
 * have. `indexTypes` are the caller's own. A preset's native index is replaced by the TypeScript one on a backend whose
 * memory native code cannot see, and by the device's on a device. Where nothing is asked for, a backend without sparse attention attends to everything.
 */
export function planAttention(options: AttentionOptions, backend: Backend, indexTypes: IndexTypes = {}): EnginePlan {
  const attention = resolveAttention(isAsked(options) || canRetrieve(backend) ? options : { preset: "full" });
  if (!attention.type.usesIndex) return withoutIndex(attention);
  const registry = new IndexRegistry(indexTypes);
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
