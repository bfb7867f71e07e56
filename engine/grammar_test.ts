import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { Automaton } from "./automaton.ts";
import { compileGrammar, type Grammar } from "./grammar.ts";
import { tinyTokenizer } from "./tiny_model.ts";
import { TokenMasks } from "./token_mask.ts";

/** Whether a grammar takes the whole text; undefined when it could go on to. */
function takes(grammar: Grammar, text: string): boolean | undefined {
  const automaton = new Automaton(compileGrammar(grammar));
  let state: ReturnType<Automaton["step"]> = automaton.start();
  for (const byte of new TextEncoder().encode(text)) {
    state = automaton.step(state, byte);
    if (state === null) return false;
  }
  return state.isEnd ? true : undefined;
}

describe("a grammar of JSON", () => {
  it("takes what JSON.parse takes, written without needless space", () => {
    const objects = fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue({ maxDepth: 3 }));
    fc.assert(
      fc.property(objects, (value) => {
        // Numbers have at most 15 digits before the point, exponents two.
        const text = JSON.stringify(value, (_, x) => typeof x === "number" ? Math.round(x % 1e6) : x);
        assertEquals(takes({ json: true }, text), true, text);
      }),
      { numRuns: 30 },
    );
  });

  it("refuses what JSON.parse refuses", () => {
    const tails = [
      "{,}",
      '{"a":01}',
      '{"a":1.}',
      '{"a":"\u0001"}',
      '{"a":"\\x"}',
      '{"a" 1}',
      "{a:1}",
      '{"a":tru }',
      "1",
    ];
    for (const text of tails) assertEquals(takes({ json: true }, text), false, text);
    for (const text of ['{"a":"', "{", '{"a":[[{"b":null']) assertEquals(takes({ json: true }, text), undefined, text);
    assertEquals(takes({ json: true }, '{\n  "a": [1, -0.5e+9, "\\ud83d"]}'), false);
    assertEquals(takes({ json: true }, '{\n  "a": [1, -0.5e+9, "\\u00e9\\n"]\n}'), true);
  });
});

describe("a grammar of a JSON schema", () => {
  const takesJson = (json: unknown, value: unknown) => takes({ json }, JSON.stringify(value)) === true;

  it("knows types, objects, arrays, choices and references", () => {
    const person = {
      type: "object",
      properties: {
        name: { type: "string" },
        age: { type: ["integer", "null"] },
        tags: { items: { enum: ["a", 1] }, maxItems: 2 },
      },
      required: ["name"],
      additionalProperties: false,
    };
    for (
      const value of [{ name: "x" }, { name: "x", age: 3 }, { name: "", age: null, tags: ["a", 1] }, {
        name: "x",
        tags: [],
      }]
    ) {
      assert(takesJson(person, value), JSON.stringify(value));
    }
    for (
      const value of [{}, { age: 3 }, { name: 1 }, { name: "x", other: 1 }, { name: "x", age: 1.5 }, {
        name: "x",
        tags: ["b"],
      }]
    ) {
      assert(!takesJson(person, value), JSON.stringify(value));
    }
    assert(!takesJson(person, { name: "x", tags: ["a", "a", "a"] }));
    const tree = {
      $defs: { node: { anyOf: [{ type: "null" }, { $ref: "#" }] } },
      properties: { left: { $ref: "#/$defs/node" } },
      required: ["left"],
    };
    assert(takesJson(tree, { left: { left: { left: null } } }));
    assert(!takesJson(tree, { left: { left: {} } }));
    assert(takesJson({ type: "array", minItems: 2, items: { type: "boolean" } }, [true, false, true]));
    assert(!takesJson({ type: "array", minItems: 2, items: { type: "boolean" } }, [true]));
    assert(takesJson({ const: { a: [1] } }, { a: [1] }) && !takesJson({ const: "a" }, "b"));
  });

  it("names what it does not understand by its path", () => {
    const refused = (json: unknown, path: string) => {
      const error = assertThrows(() => compileGrammar({ json }), RangeError) as RangeError;
      assert(error.message.includes(path), error.message);
    };
    refused({ properties: { a: { type: "string", pattern: "x" } } }, "#/properties/a/pattern");
    refused({ items: { oneOf: [] } }, "#/items/oneOf");
    refused({ type: "text" }, "#/type");
    refused({ $ref: "http://example.com" }, "#/$ref");
    refused({ $ref: "#/$defs/none" }, "points at nothing");
    refused({ $ref: "#" }, "refers to itself");
    refused({ anyOf: [{ type: "null" }, { $ref: "#" }] }, "refers to itself");
    refused({ enum: [1], type: "string" }, "no value");
    refused({ required: ["a"], additionalProperties: false }, "#/required");
    refused({ additionalProperties: { type: "string" } }, "#/additionalProperties");
    refused({ minItems: 3, maxItems: 2 }, "#/minItems");
    refused({ anyOf: [true], type: "string" }, "#/type");
    refused(false, "no schema");
  });
});

describe("TokenMasks", () => {
  it("ban exactly the tokens that no text of the grammar goes on with", () => {
    const masks = new TokenMasks(tinyTokenizer);
    const grammar: Grammar = {
      sequence: [{ text: "<" }, { anyOf: [{ text: "ab" }, { json: { type: "integer" } }] }, { text: ">" }],
    };
    const constraint = masks.constrain(grammar);
    const allowed = () => {
      const banned = new Set(constraint.banned);
      return [...Array(tinyTokenizer.vocab).keys()].filter((id) => !banned.has(id)).map((id) => String.fromCharCode(id))
        .join("");
    };
    const write = (text: string) => [...text].forEach((c) => constraint.accept(c.charCodeAt(0)));
    assertEquals(allowed(), "<");
    write("<");
    assertEquals(allowed(), "-0123456789a");
    write("12");
    assertEquals(allowed(), "0123456789>");
    assertThrows(() => write("a"), RangeError, "breaks the grammar");
    write(">");
    assert(constraint.isFinished);
    assertEquals(allowed(), "\0");
    assertThrows(() => masks.constrain({ text: "é" }), RangeError, "0xc3");
  });
});
