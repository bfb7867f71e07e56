/**
 * Tasks as the matrix runs them: what is made of tokens, what is made of text, and plain text without questions.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Loaded } from "../../engine/loaded.ts";
import { material } from "../probe.ts";
import { Random } from "../tasks/random.ts";
import type { Material, Sample, Task } from "../tasks/sample.ts";
import { buildSample, RIVALS, toSample } from "../tasks/text/build.ts";
import { textTasks } from "../tasks/text/mod.ts";
import { fileTask } from "../tasks/text/qa.ts";
import type { TextTask } from "../tasks/text/task.ts";
import { tasks as tokenTasks } from "../tasks/mod.ts";
import { grammarText } from "../tasks/grammar.ts";
import { SUITE_VERSION } from "./cell.ts";

/** Prose that things are hidden in, and what tells it from other prose. */
export interface Haystack {
  readonly text: string;
  readonly words: readonly string[];
  readonly hash: string;
}

/** What samples are made from. */
export interface TaskPlace {
  readonly loaded: Loaded;
  readonly material: Material;
  readonly haystack: Haystack;
  /** By name: all there are, the user's own among them. */
  readonly tasks: Readonly<Record<string, MatrixTask>>;
}

/** One task of the matrix. */
export interface MatrixTask {
  readonly name: string;
  readonly summary: string;
  /** Of being right without looking. */
  readonly chance: number;
  /** Of what samples are made from, where that is not the haystack. */
  readonly sourceHash?: string;
  /** `text` has no questions: methods are compared token by token. */
  readonly kind: "questions" | "text";
  /** Sample `index`: at most `length` tokens with its questions, the same for the same seed whatever other samples there are. */
  make(place: TaskPlace, length: number, index: number, seed: number, questions: number): Promise<Sample>;
}

const text: MatrixTask = {
  name: "text",
  summary: "goes on with prose: divergence from full attention",
  chance: 0,
  kind: "text",
  make({ material: { filler, start } }, length, index, seed) {
    if (filler.length < length) throw new RangeError(`Cannot score text: ${filler.length} tokens of ${length}`);
    const from = new Random(...sampleIds("text", length, index, seed)).below(filler.length - length + 1);
    return Promise.resolve({
      context: [...start, ...filler.slice(from, from + length - start.length)],
      questions: [],
    });
  },
};

function ofTokens(task: Task): MatrixTask {
  return {
    ...task,
    kind: "questions",
    make: ({ material }, length, index, seed, questions) => {
      const random = new Random(...sampleIds(task.name, length, index, seed));
      return Promise.resolve(task.make(random, material, length, questions));
    },
  };
}

function ofText(task: TextTask): MatrixTask {
  return {
    name: task.name,
    summary: task.summary,
    chance: 1 / (RIVALS + 1),
    kind: "questions",
    make: async ({ loaded, haystack }, length, index, seed) => {
      const ids = sampleIds(task.name, length, index, seed);
      return toSample(task, loaded, await buildSample(task, loaded, haystack.words, length, index, ids));
    },
  };
}

/** All there are, by name. */
export const matrixTasks: Readonly<Record<string, MatrixTask>> = Object.fromEntries(
  [text, ...tokenTasks.map(ofTokens), ...textTasks.map(ofText)].map((task) => [task.name, task]),
);

/** Names the random stream of one sample: adding samples changes none. */
function sampleIds(task: string, length: number, index: number, seed: number): (string | number)[] {
  return [SUITE_VERSION, task, length, index, seed];
}

/** Generated prose is as long whatever is asked, or a longer context would change the samples of all others. */
const GENERATED_TOKENS = 131072;

/** Prose of a file, or of the grammar, with enough tokens for contexts of `longest`. */
export function openHaystack(longest: number, file?: string): Haystack {
  return haystackOf(
    file === undefined ? grammarText(10 * Math.max(GENERATED_TOKENS, longest)) : Deno.readTextFileSync(file),
  );
}

/** See {@link Haystack}. */
export function haystackOf(text: string): Haystack {
  return { text, words: text.split(/\s+/).filter((word) => word !== ""), hash: hashOf(text) };
}

/** See {@link TaskPlace}. */
export function openTasks(loaded: Loaded, haystack: Haystack, own: readonly MatrixTask[] = []): TaskPlace {
  const tasks = { ...matrixTasks, ...Object.fromEntries(own.map((task) => [task.name, task])) };
  return { loaded, material: material(loaded, haystack.text), haystack, tasks };
}

/** A task over the user's own file of SQuAD or HotpotQA. */
export function userTask(name: "qa_1" | "qa_2", file: string): MatrixTask {
  const json = Deno.readTextFileSync(file);
  return { ...ofText(fileTask(name, json, file)), sourceHash: hashOf(json) };
}

/** SHA-256, 16 hex digits. */
export function hashOf(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex").slice(0, 16);
}
