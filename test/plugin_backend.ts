/**
 * A backend from outside, as `--plugin` takes it: the reference under another name.
 *
 * @module
 */
import type { BackendType } from "../backends/backend.ts";
import { openBackend } from "../backends/mod.ts";

/** What a plugin exports. */
export const backends: Readonly<Record<string, BackendType>> = {
  "echo-reference": {
    summary: "the reference under another name",
    defaults: {},
    open: () => openBackend("reference"),
  },
};
