/**
 * Where a result was made: the machine, and this program's commit, read without running anything.
 *
 * @module
 */
import os from "node:os";
import type { Machine } from "./cell.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** The machine; what may not be asked is left unknown. */
export function describeMachine(): Machine {
  return {
    cpu: allowed(() => os.cpus()[0]?.model) ?? "unknown",
    cores: navigator.hardwareConcurrency,
    memoryGB: allowed(() => Math.round(Deno.systemMemoryInfo().total / 1e9)) ?? null,
    os: `${Deno.build.os} ${Deno.build.arch} ${allowed(() => Deno.osRelease()) ?? ""}`.trim(),
    deno: Deno.version.deno,
  };
}

/** Hash of the checked-out commit; "unknown" outside of a repository. */
export function commitOf(root = ROOT): string {
  return allowed(() => {
    let folder = `${root}.git`;
    // A worktree's `.git` is a file that names its folder.
    if (Deno.statSync(folder).isFile) folder = Deno.readTextFileSync(folder).replace(/^gitdir: /, "").trim();
    const head = Deno.readTextFileSync(`${folder}/HEAD`).trim();
    const reference = /^ref: (.*)$/.exec(head)?.[1];
    if (reference === undefined) return head;
    const common = allowed(() => `${folder}/${Deno.readTextFileSync(`${folder}/commondir`).trim()}`) ?? folder;
    return allowed(() => Deno.readTextFileSync(`${common}/${reference}`).trim()) ??
      Deno.readTextFileSync(`${common}/packed-refs`).split("\n").find((line) => line.endsWith(` ${reference}`))
        ?.split(" ")[0];
  }) ?? "unknown";
}

function allowed<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
