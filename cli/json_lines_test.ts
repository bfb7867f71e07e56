import { assertEquals, assertThrows } from "@std/assert";
import { it } from "@std/testing/bdd";
import { UsageError } from "./exit.ts";
import { JsonLines } from "./json_lines.ts";

it("JsonLines appends whole lines, and outlives a disk that takes none", () => {
  const path = Deno.makeTempFileSync();
  try {
    for (const n of [1, 2]) {
      using lines = new JsonLines(path, () => {});
      lines.write({ n, text: "a\nb" });
    }
    assertEquals(Deno.readTextFileSync(path).trim().split("\n").map((line) => JSON.parse(line).n), [1, 2]);
  } finally {
    Deno.removeSync(path);
  }
  assertThrows(() => new JsonLines("/no/such/folder/x", () => {}), UsageError, "/no/such/folder/x");
  if (Deno.build.os !== "linux") return;
  const told: string[] = [];
  using full = new JsonLines("/dev/full", (line) => told.push(line));
  for (let i = 0; i < 3; i++) full.write({ i });
  assertEquals(told.length, 1);
});
