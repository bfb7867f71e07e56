/**
 * Tasks by name: one line each.
 *
 * @module
 */
import type { Task } from "./sample.ts";
import { chain } from "./chain.ts";
import { copy } from "./copy.ts";
import { count } from "./count.ts";
import { induction } from "./induction.ts";
import { kvRecall, kvRecallHard } from "./kv_recall.ts";

/** What a model that follows no instructions can do by looking back. */
export const tasks: readonly Task[] = [copy, induction, kvRecall, kvRecallHard, chain, count];
