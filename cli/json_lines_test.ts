import { assertEquals, assertThrows } from "@std/assert";
import { it } from "@std/testing/bdd";
import { UsageError } from "./exit.ts";
import { JsonLines } from "./json_lines.ts";

it("JsonLines appends whole lines, and outlives a file that takes none", () => {
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
  const told: string[] = [];
  const closed = new JsonLines(path, (line) => told.push(line));
  closed[Symbol.dispose]();
  Deno.removeSync(path);
  for (let i = 0; i < 3; i++) closed.write({ i });
  assertEquals(told.length, 1);
});
