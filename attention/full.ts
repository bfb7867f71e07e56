/**
 * The policy `full`: every query attends to everything.
 *
 * @module
 */
import type { AttentionPolicy } from "./policy.ts";

/** Registry entry. */
export const full: AttentionPolicy = {
  summary: "attends to every token: exact",
  defaults: {},
  isDense: true,
  usesIndex: false,
  check() {},
  open: () => undefined,
};
