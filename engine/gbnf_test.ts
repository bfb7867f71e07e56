import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { Automaton } from "./automaton.ts";
import { compileGrammar } from "./grammar.ts";
import { tinyTokenizer } from "./tiny_model.ts";
import { TokenMasks } from "./token_mask.ts";
import { complement, utf8Sequences } from "./utf8_ranges.ts";

/** Whether a grammar takes the whole text; undefined when it could go on to. */
function takes(gbnf: string, text: string): boolean | undefined {
  const automaton = new Automaton(compileGrammar({ gbnf }));
  let state: ReturnType<Automaton["step"]> = automaton.start();
  for (const byte of new TextEncoder().encode(text)) {
    state = automaton.step(state, byte);
    if (state === null) return false;
  }
  return state.isEnd ? true : undefined;
}

function every(gbnf: string, good: readonly string[], bad: readonly string[]): void {
  for (const text of good) assertEquals(takes(gbnf, text), true, `${JSON.stringify(text)} in ${gbnf}`);
  for (const text of bad) assert(takes(gbnf, text) !== true, `${JSON.stringify(text)} not in ${gbnf}`);
}

function refused(gbnf: string, why: string): void {
  assertThrows(() => compileGrammar({ gbnf }), RangeError, why);
}

const JSON_GRAMMAR = String.raw`
# As llama.cpp has it.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
`;

describe("gbnfPart()", () => {
  it("takes what JSON.parse takes under llama.cpp's grammar of JSON", () => {
    const objects = fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue({ maxDepth: 3 }));
    fc.assert(
      fc.property(objects, (value) => {
        const text = JSON.stringify(value, (_, x) => typeof x === "number" ? Math.round(x % 1e6) : x);
        assertEquals(takes(JSON_GRAMMAR, text.replaceAll("\x7f", "")), true, text);
      }),
      { numRuns: 30 },
    );
    every(JSON_GRAMMAR, ['{"a": [1, -0.5e+9, "\\ud83d"]}', "{}"], ['{"a":01}', "{a:1}", '{"a":tru }', '{"a', "1"]);
  });

  it("knows sequences, choices, groups and repetitions", () => {
    every(`root ::= "a" ("b" | "c" "d")* "e"? "f"+`, ["af", "abcdbef", "aff"], ["a", "acf", "aeef", "ab"]);
    every(`root ::= "ab"{2} "c"{1,3} "d"{2,} "e"{0,1} "f"{0}`, ["ababcdd", "ababcccddddde"], [
      "abcdd",
      "ababccccdd",
      "ababcd",
    ]);
    every(`root ::= x+ y\nx ::= [a-c]\ny ::= | "!"`, ["a", "abc!"], ["", "d", "a!!"]);
    every(`root ::= (\n  "a" # one\n  |\n  "b"\n)\n  \n# the end`, ["a", "b"], ["ab", ""]);
    every('root ::=\n  "a" |\n  "b"\r\n', ["a", "b"], ["ab"]);
    every(`root ::= item ("," item)*\nitem ::= "(" root ")" | [0-9]`, ["1", "(1,2),3", "((((7))))"], ["(1", ",", "()"]);
    every(`root ::= ("a"*)* "b"`, ["b", "aaab"], ["a", "ba"]);
  });

  it("knows escapes and characters of any length", () => {
    every(String.raw`root ::= "\x41\u00e9\U0001F600\n\t\\\"" [\]\-\^\\]`, ['Aé😀\n\t\\"]', 'Aé😀\n\t\\"-'], [
      'Aé😀\n\t\\"a',
    ]);
    every(`root ::= [à-ü]{2} [^a-z"] [ぁ-ん] .`, ["éàAか😀", "ôô語んx"], ["eeAかx", "éàaかx", "éàA語x"]);
    every("root ::= [-a] [a-]", ["-a", "a-"], ["b-"]);
    every("root ::= [^\\n]+", ["any thing 😀", "\u0000"], ["\n", ""]);
  });

  it("refuses what is no grammar, with the line", () => {
    refused("", "no rule named root");
    refused(`a ::= "x"`, "no rule named root");
    refused(`root ::= "x"\nroot ::= "y"`, "line 2: rule root is there twice");
    refused(`root ::= "x"\n\nroot2 = "y"`, "line 3: expected ::=");
    refused(`root ::= "x`, "line 1: a text or character class does not end");
    refused(`root ::= "x\n"`, "does not end");
    refused("root ::= [a", "does not end");
    refused(`root ::= ("x"`, "expected )");
    refused(`root ::= "x")`, "expected the end of the rule");
    refused(`root ::= "x"{2,1}`, "2 to 1 times is never");
    refused(`root ::= "x"{a}`, "expected {m}");
    refused(`root ::= "\\q"`, "\\q stands for nothing");
    refused(`root ::= "\\u12"`, "no character");
    refused(`root ::= "\\ud800"`, "no character");
    refused("root ::= [z-a]", "ends before it begins");
    refused("root ::= []", "holds nothing");
    refused(String.raw`root ::= [^\x00-\U0010FFFF]`, "holds nothing");
    refused("root ::= other", "no rule named other");
    refused("root ::= <think>", "write their text");
    refused("root ::= *", "expected the end of the rule");
  });

  it("bounds hostile grammars", () => {
    refused("root ::= root", "left recursion");
    refused(`root ::= root "a" | "b"`, "left recursion");
    refused(`root ::= a\na ::= "x"? b\nb ::= ""* a "y"`, "left recursion");
    refused(`root ::= "a" | (((root)))`, "left recursion");
    refused(`root ::= "a"{10000}{10000}{10000}`, "too large");
    refused(`root ::= ""{10000}{10000}{10000}`, "too large");
    refused(`root ::= "a"{10001}`, "at most 10000");
    refused(`root ::= "a"${"*".repeat(50_000)}`, "repetitions of one thing");
    refused(`root ::= ${"(".repeat(60_000)}`, "groups in each other");
    refused(`root ::= "${"a".repeat(70_000)}"`, "70011 characters");
    refused(
      `root ::= r0\n${Array.from({ length: 3000 }, (_, i) => `r${i} ::= r${i + 1}`).join("\n")}\nr3000 ::= "a"`,
      "rules begin with each other",
    );
    const rules = Array.from({ length: 2000 }, (_, i) => `r${i} ::= "a" r${i + 1}`).join("\n");
    assertEquals(takes(`root ::= r0\n${rules}\nr2000 ::= "b"`, "a".repeat(2000) + "b"), true);
    // Every byte doubles the ways; the text is refused before memory or patience is.
    const ways = `root ::= s\ns ::= "a" s "a" s | "a" s "b" s | "a" s | ""`;
    assertThrows(() => takes(ways, "a".repeat(500)), RangeError, "too many ways at once");
    const wide = `root ::= x{3000}\nx ::= ${Array.from({ length: 2000 }, () => "[a-z]").join("|")}`;
    assertThrows(() => takes(wide, "a".repeat(3000)), RangeError, "too many ways to go on");
  });

  it("masks tokens, and says where none goes on", () => {
    const masks = new TokenMasks(tinyTokenizer);
    const constraint = masks.constrain({ gbnf: `root ::= [a-c] ("!" | [é])` });
    constraint.prepare();
    const banned = new Set(constraint.banned);
    assertEquals([..."abcd!"].map((c) => banned.has(c.charCodeAt(0))), [false, false, false, true, true]);
    constraint.accept("b".charCodeAt(0));
    constraint.prepare();
    const stuck = masks.constrain({ gbnf: "root ::= [à-ü]" });
    assertThrows(() => stuck.prepare(), RangeError, "no token of the model goes on");
  });
});

describe("utf8Sequences()", () => {
  it("are the bytes of each character of the ranges, and of no other", () => {
    const ranges = fc.array(fc.tuple(fc.nat(0x10ffff), fc.nat(0x3000)), { minLength: 1, maxLength: 3 });
    const edges = [0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff];
    fc.assert(fc.property(ranges, fc.array(fc.nat(0x10ffff), { maxLength: 20 }), (starts, more) => {
      const set = starts.map(([low, size]) => [low, Math.min(0x10ffff, low + size)] as const);
      const sequences = utf8Sequences(set);
      const near = set.flatMap(([low, high]) => [low - 1, low, low + 1, high - 1, high, high + 1]);
      for (const code of [...edges, ...more, ...near]) {
        if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) continue;
        const bytes = new TextEncoder().encode(String.fromCodePoint(code));
        const found = sequences.filter((s) =>
          s.length === bytes.length &&
          s.every(([low, high], i) => low <= (bytes[i] as number) && (bytes[i] as number) <= high)
        );
        assertEquals(found.length, set.some(([low, high]) => low <= code && code <= high) ? 1 : 0, code.toString(16));
      }
    }));
    assertEquals(utf8Sequences(complement([])).length, 9);
  });
});
