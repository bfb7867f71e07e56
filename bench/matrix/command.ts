/**
 * `kvasir bench matrix`: any backend × method × model × length × task, answers and costs of the same run.
 *
 * @module
 */
import { type Command, Option } from "@commander-js/extra-typings";
import denoJson from "../../deno.json" with { type: "json" };
import { presets } from "../../attention/presets.ts";
import { loadPlugins } from "../../engine/plugins.ts";
import { resolveModel } from "../../model/hub.ts";
import { EXIT, UsageError } from "../../cli/exit.ts";
import { decimal, engineOptions, integer, integers, modelCommand } from "../../cli/options.ts";
import { formatSeconds } from "../../cli/progress.ts";
import { Signals } from "../../cli/session.ts";
import { Probe } from "../probe.ts";
import { cellName, type Mode } from "./cell.ts";
import { commitOf, describeMachine } from "./machine.ts";
import { effortOf, planGroups, type Wanted } from "./rows.ts";
import { type Group, runGroup } from "./run.ts";
import { ResultFile } from "./store.ts";
import { suites } from "./suites.ts";
import { openHaystack, openTasks, userTask } from "./tasks.ts";

function parseSettings(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => {
    const [, key, value] = /^([a-z][a-z0-9_]*)=(.+)$/.exec(pair) ?? [];
    if (key === undefined || value === undefined) throw new UsageError(`Cannot set "${pair}": expected key=value`);
    return [key, value];
  }));
}

/** Why a run ended before its rows did. */
class Stopped extends Error {}

/** The command, for `cli/bench.ts`. */
export function matrixCommand(done: (code: number) => void): Command {
  const command = modelCommand("matrix")
    .description("Quality, speed, work and memory of methods over tasks and lengths; finished rows are skipped.")
    .addOption(new Option("--suite <name>", `tasks and lengths: ${Object.keys(suites).join(", ")}`).default("smoke"))
    .option("--models <list...>", "several models, in place of -m")
    .option("--backends <list...>", "several backends, in place of --backend")
    .option("--methods <list...>", "PRESET[:key=value,…][@INDEX] (default: the suite's, or every preset)")
    .option("--set <key=value...>", "parameters of all methods that retrieve, e.g. min_length=0")
    .option("--tasks <list...>", "in place of the suite's")
    .option("--lengths <tokens>", "in place of the suite's", integers(256))
    .option("--samples <n>", "contexts a cell", integer(1, 10000))
    .option("--questions <n>", "questions a context", integer(1, 1000))
    .option("--tokens <n>", "tokens that `text` scores", integer(2, 65536))
    .addOption(
      new Option("--mode <mode>", "questions asked of a stored context, or read with it").choices(
        ["shared", "cold", "both"] as const,
      ).default("shared" as const),
    )
    .option("--seed <n>", "of samples and draws", integer(0, 2 ** 31), 42)
    .option("--write", "let the model write its answers, and grade them")
    .option("--pairs <n>", "turns of decode steps that are timed", integer(3, 10000), 24)
    .option("--haystack <file>", "prose that things are hidden in (default: generated)")
    .option("--squad <file>", "adds task qa_1 over questions of SQuAD's JSON")
    .option("--hotpot <file>", "adds task qa_2 over questions of HotpotQA's JSON")
    .option("--filter <regexp>", 'only rows whose "backend model method task length mode" match')
    .option("--budget-minutes <n>", "stop when so much time is gone", decimal(0, 1e6))
    .requiredOption("-o, --output <file>", "results, appended as JSON lines")
    .option("--list", "say what would be run, and run nothing")
    .action(async (flags) => {
      if (flags.preset !== undefined || flags.policy !== undefined) {
        throw new UsageError("Cannot run one preset: name the methods by --methods");
      }
      const suite = suites[flags.suite];
      if (suite === undefined) {
        throw new UsageError(`Cannot run suite "${flags.suite}": expected one of ${Object.keys(suites).join(", ")}`);
      }
      const extra = [["qa_1", flags.squad], ["qa_2", flags.hotpot]] as const;
      const ownTasks = extra.flatMap(([name, file]) => file === undefined ? [] : [userTask(name, file)]);
      const wanted: Wanted = {
        methods: flags.methods ?? suite.methods ?? Object.keys(presets),
        settings: flags.set === undefined ? undefined : parseSettings(flags.set),
        tasks: [...flags.tasks ?? suite.tasks, ...ownTasks.map(({ name }) => name)],
        lengths: flags.lengths ?? suite.lengths,
        modes: flags.mode === "both" ? ["shared", "cold"] : [flags.mode as Mode],
        samples: flags.samples ?? suite.samples,
        questions: flags.questions ?? suite.questions,
        tokens: flags.tokens ?? suite.tokens,
        seed: flags.seed,
        writes: flags.write ?? suite.writes,
        ropeFreqBase: flags.ropeFreqBase,
        filter: flags.filter === undefined ? undefined : new RegExp(flags.filter),
      };
      const options = engineOptions(flags);
      const plugins = await loadPlugins(options.plugins ?? []);
      const haystack = openHaystack(Math.max(...wanted.lengths), flags.haystack);
      using signals = new Signals();
      using results = new ResultFile(flags.output);
      const deadline = performance.now() + 60_000 * (flags.budgetMinutes ?? Infinity);
      const where = { machine: describeMachine(), commit: commitOf(), version: denoJson.version, pairs: flags.pairs };
      let left = 0;
      for (const name of flags.models ?? [options.model]) {
        for (const backend of flags.backends ?? [options.backend]) {
          const model = await resolveModel(name, options.offline === undefined ? {} : { offline: options.offline });
          using probe = await Probe.open({ ...options, model, ...(backend === undefined ? {} : { backend }) }, plugins);
          probe.breathe = async () => {
            await new Promise((resolve) => setTimeout(resolve));
            if (signals.code !== undefined || performance.now() > deadline) throw new Stopped();
          };
          warnOfLength(Math.max(...wanted.lengths), probe.loaded.model.config.contextLength);
          const weights = probe.loaded.backend.bytes;
          const tasks = openTasks(probe.loaded, haystack, ownTasks);
          const groups = planGroups(probe, tasks, wanted, (key) => results.has(key));
          if (flags.list === true) {
            for (const { specs } of groups) for (const spec of specs) console.log(cellName(spec));
            continue;
          }
          const progress = new Progress(groups, deadline);
          for (const group of groups) {
            if (signals.code !== undefined || !progress.fits(group)) {
              left += group.specs.length;
              continue;
            }
            try {
              const breathe = async (share: number) => {
                progress.report(group, share);
                await probe.breathe?.();
              };
              const cells = await runGroup({ ...where, probe, tasks, weights, breathe }, group);
              for (const cell of cells) results.append(cell);
              progress.finish(group);
            } catch (error) {
              if (error instanceof Stopped) left += group.specs.length;
              // A task that cannot be made of so few tokens is no reason to leave the others out.
              else if (error instanceof RangeError) progress.skip(group, error.message);
              else throw error;
            }
          }
        }
      }
      if (left > 0) console.error(`kvasir: ${left} cells are left; the same command goes on with them`);
      done(signals.code ?? EXIT.OK);
    });
  return command as unknown as Command;
}

/** As the engine does. */
function warnOfLength(longest: number, trained: number): void {
  if (longest <= trained) return;
  console.error(`kvasir: contexts of ${longest} tokens are longer than the ${trained} the model was trained for`);
}

/** One line on standard error; lines of their own where that is no terminal. */
class Progress {
  readonly #total: number;
  readonly #started = performance.now();
  readonly #isTerminal = Deno.stderr.isTerminal();
  readonly #deadline: number;
  #done = 0;

  constructor(groups: readonly Group[], deadline: number) {
    this.#total = groups.reduce((sum, group) => sum + effortOf(group), 0);
    this.#deadline = deadline;
  }

  /** Whether a group would end before the deadline, as fast as those before it were. */
  fits(group: Group): boolean {
    const now = performance.now();
    const ms = this.#done === 0 ? 0 : effortOf(group) * (now - this.#started) / this.#done;
    return now + ms < this.#deadline;
  }

  report(group: Group, share: number): void {
    if (this.#isTerminal) this.#write(`\r\x1b[2K${this.#line(group, share)}`);
  }

  finish(group: Group): void {
    this.#done += effortOf(group);
    this.#write(`${this.#isTerminal ? "\r\x1b[2K" : ""}${this.#line(group, 0)}${this.#isTerminal ? "" : "\n"}`);
    if (this.#isTerminal && this.#done >= this.#total) this.#write("\n");
  }

  skip(group: Group, why: string): void {
    this.#done += effortOf(group);
    this.#write(`${this.#isTerminal ? "\r\x1b[2K" : ""}kvasir: ${group.task.name} at ${group.length}: ${why}\n`);
  }

  #line({ task, length, specs }: Group, share: number): string {
    const effort = this.#done + share * effortOf({ task, length, specs });
    const seconds = (performance.now() - this.#started) / 1000;
    const toGo = effort === 0 ? "" : `, ${formatSeconds(seconds * (this.#total / effort - 1))} to go`;
    return `${Math.floor(100 * effort / this.#total)} % ${task.name} at ${length}: ${specs.length} methods${toGo}`;
  }

  #write(text: string): void {
    Deno.stderr.writeSync(new TextEncoder().encode(text));
  }
}
