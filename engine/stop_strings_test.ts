import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { StopStrings } from "./stop_strings.ts";

function run(stops: readonly string[], pieces: readonly string[]): { text: string; matched?: string } {
  const watch = new StopStrings(stops);
  let text = "";
  for (const piece of pieces) {
    const result = watch.push(piece);
    text += result.text;
    if (result.matched !== undefined) return { text, matched: result.matched };
  }
  return { text: text + watch.flush() };
}

describe("StopStrings", () => {
  it("push() finds a stop string that spans pieces", () => {
    assertEquals(run(["\n\nUser:"], ["Hi", "\n", "\nUs", "er: more"]), { text: "Hi", matched: "\n\nUser:" });
  });

  it("push() holds back only what could still become a stop string", () => {
    const watch = new StopStrings(["</s>"]);
    assertEquals(watch.push("a <"), { text: "a " });
    assertEquals(watch.push("/"), { text: "" });
    assertEquals(watch.push("b> <"), { text: "</b> " });
    assertEquals(watch.flush(), "<");
    assertEquals(watch.flush(), "");
  });

  it("push() takes the first to be complete, then the longest", () => {
    assertEquals(run(["abcd", "bc"], ["xabcd"]), { text: "xa", matched: "bc" });
    assertEquals(run(["c", "abc"], ["xabcd"]), { text: "x", matched: "abc" });
  });

  it("rejects an empty stop string", () => {
    assertThrows(() => new StopStrings(["a", ""]), RangeError, "one is empty");
  });

  it("gives the same text however it is cut, and loses nothing without a match", () => {
    const char = fc.constantFrom("a", "b", "é", "😀");
    const word = fc.array(char, { minLength: 1, maxLength: 4 }).map((c) => c.join(""));
    fc.assert(fc.property(fc.array(word, { maxLength: 3 }), fc.array(word, { maxLength: 12 }), (stops, pieces) => {
      const whole = pieces.join("");
      const cut = run(stops, pieces);
      assertEquals(cut, run(stops, [...whole]));
      if (cut.matched === undefined) {
        assertEquals(cut.text, whole);
        assert(stops.every((s) => !whole.includes(s)));
      } else assert(whole.startsWith(cut.text + cut.matched));
    }));
  });
});
