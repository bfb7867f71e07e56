/**
 * Tasks made of text, by name: one line a family.
 *
 * @module
 */
import { aggregateTasks } from "./aggregate.ts";
import { infinitebenchTasks, needleGrid } from "./infinitebench.ts";
import { needleTasks } from "./niah.ts";
import { qaTasks } from "./qa.ts";
import type { TextTask } from "./task.ts";

/** Ruler-style: 13. */
export const rulerTasks: readonly TextTask[] = [...needleTasks, ...aggregateTasks, ...qaTasks];

/** All of them. */
export const textTasks: readonly TextTask[] = [...rulerTasks, ...infinitebenchTasks, needleGrid];
