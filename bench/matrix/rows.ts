/**
 * The matrix's rows: every combination of what was asked, as canonical specs, those that are finished left out.
 *
 * @module
 */
import { lookUp } from "../../core/spec.ts";
import { parseMethod, type Probe } from "../probe.ts";
import { cellKey, cellName, type CellSpec, type Mode, SUITE_VERSION } from "./cell.ts";
import type { Group } from "./run.ts";
import type { TaskPlace } from "./tasks.ts";

/** What is asked of one model on one backend. */
export interface Wanted {
  readonly methods: readonly string[];
  /** Parameters of policies that retrieve: `min_length` above all. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
  readonly tasks: readonly string[];
  readonly lengths: readonly number[];
  readonly modes: readonly Mode[];
  readonly samples: number;
  readonly questions: number;
  readonly tokens: number;
  readonly seed: number;
  readonly writes: boolean;
  readonly ropeFreqBase?: number | undefined;
  /** Rows whose name it does not match are left out. */
  readonly filter?: RegExp | undefined;
}

/**
 * Groups in the order in which they run: short contexts first. `isDone` is asked by key. Throws `RangeError` that lists what there
 * is, for tasks and methods that are unknown.
 */
export function planGroups(
  probe: Probe,
  { haystack, tasks }: TaskPlace,
  wanted: Wanted,
  isDone: (key: string) => boolean,
): Group[] {
  const { backend, file, tokenizer: _, ...rest } = probe.loaded;
  const { model, tokenizer } = rest.identify();
  const own = wanted.methods.map((method) => ({ method, plan: probe.plan(parseMethod(method, wanted.settings)) }));
  const groups: Group[] = [];
  for (const length of wanted.lengths) {
    for (const name of wanted.tasks) {
      const task = lookUp("task", name, tasks);
      for (const mode of task.kind === "text" ? ["shared"] as const : wanted.modes) {
        const specs = own.map(({ method, plan }): CellSpec => ({
          suiteVersion: SUITE_VERSION,
          backend: backend.spec,
          model: file.replace(/.*\//, ""),
          modelHash: model,
          tokenizerHash: tokenizer,
          kv: "f16",
          ropeFreqBase: wanted.ropeFreqBase,
          method,
          settings: wanted.settings,
          policy: plan.policy,
          index: plan.index,
          task: name,
          length,
          mode,
          seed: wanted.seed,
          samples: wanted.samples,
          questions: task.kind === "text" ? wanted.tokens : wanted.questions,
          writes: wanted.writes,
          haystackHash: task.sourceHash ?? haystack.hash,
        }));
        const left = specs.filter((spec) => wanted.filter?.test(cellName(spec)) !== false && !isDone(cellKey(spec)));
        if (left.length > 0) groups.push({ task, length, specs: left });
      }
    }
  }
  return groups;
}

/** What a group takes, in tokens of exact attention: for time to go, not for a clock. */
export function effortOf({ specs, length, task }: Group): number {
  const { samples = 0, questions = 0, mode } = specs[0] ?? {};
  const reads = samples * (mode === "cold" ? questions : 1);
  const asked = task.kind === "text" ? questions : questions * 24;
  return reads * length * (2 + specs.length / 2) + samples * asked * (2 + specs.length) * (8 + length / 256);
}
