import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { formatSpec, lookUp, type ParamValue, parseSpec, resolveParams } from "./spec.ts";

const DEFAULTS = { isa: "auto", threads: 0, fast: false };

describe("parseSpec()", () => {
  it("reads a name alone", () => {
    assertEquals(parseSpec("reference"), { name: "reference", params: new Map() });
  });

  it("reads nested specs, bare and in parentheses", () => {
    const spec = parseSpec("hybrid:device=cuda:device=0,host=(cpu:isa=avx2,threads=(1))");
    assertEquals(spec.params.get("device"), "cuda:device=0");
    assertEquals(spec.params.get("host"), "cpu:isa=avx2,threads=(1)");
  });

  it("says what is wrong", () => {
    const cases: [string, string][] = [
      ["", `"" is not a name`],
      ["CPU", `"CPU" is not a name`],
      ["cpu:", `"" is not key=value`],
      ["cpu:threads", `"threads" is not key=value`],
      ["cpu:threads=", `"threads" has no value, write threads=()`],
      ["cpu:threads=1,threads=2", `"threads" is given twice`],
      ["cpu:threads=1,", `"" is not key=value`],
      ["cpu:a=(1", `1 "(" left open`],
      ["cpu:a=1)", `")" at character 8 closes nothing`],
      ["cpu:a=(1)2", `parentheses of "a" must enclose`],
      ["cpu:a=1(2)", `parentheses of "a" must enclose`],
      ["cpu:a=(1)(2)", `parentheses of "a" must enclose`],
      ["cpu:A=1", `"A" is not a key`],
      ["cpu:a=\u001b[2J", "control character"],
      ["c".repeat(5000), "longer than 4096"],
      ["cpu:" + Array.from({ length: 65 }, (_, i) => `k${i}=1`).join(), "more than 64"],
    ];
    for (const [text, message] of cases) assertThrows(() => parseSpec(text), RangeError, message);
  });

  it("reads any text in linear time, or throws RangeError", () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(..."ab:=,()1 \n_-") }), (text) => {
      try {
        parseSpec(text);
      } catch (error) {
        assert(error instanceof RangeError);
      }
    }));
    assertThrows(() => parseSpec("a:b=" + "(".repeat(4000)), RangeError, "left open");
  });
});

describe("resolveParams()", () => {
  it("types parameters by their defaults", () => {
    assertEquals(resolveParams(parseSpec("cpu:threads=2,fast=true,isa=1"), DEFAULTS), {
      isa: "1",
      threads: 2,
      fast: true,
    });
  });

  it("lists the keys there are", () => {
    const wrong = parseSpec("cpu:thread=2");
    assertThrows(() => resolveParams(wrong, DEFAULTS), RangeError, "expected one of fast, isa, threads");
    assertThrows(() => resolveParams(wrong, {}), RangeError, "it takes none");
    assertThrows(() => resolveParams(parseSpec("cpu:constructor=1"), DEFAULTS), RangeError, "no parameter");
  });

  it("refuses values of another type", () => {
    for (const threads of ["two", "0x10", "1e999", "NaN", " 1", "--1", "()"]) {
      assertThrows(() => resolveParams(parseSpec(`cpu:threads=${threads}`), DEFAULTS), RangeError, "expected a number");
    }
    assertThrows(() => resolveParams(parseSpec("cpu:fast=yes"), DEFAULTS), RangeError, "expected true or false");
  });
});

describe("formatSpec()", () => {
  it("sorts keys and wraps only what needs it", () => {
    assertEquals(formatSpec("cpu", { threads: 2, isa: "avx2" }), "cpu:isa=avx2,threads=2");
    assertEquals(formatSpec("x", { b: "p,q", a: "", c: "k:v=w" }), "x:a=(),b=(p,q),c=k:v=w");
    assertEquals(formatSpec("x"), "x");
  });

  it("refuses what the grammar cannot say", () => {
    assertThrows(() => formatSpec("x", { a: ")(" }), RangeError);
    assertThrows(() => formatSpec("X"), RangeError);
    assertThrows(() => formatSpec("x", { a: "\n" }), RangeError);
  });

  it("round-trips", () => {
    const key = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/);
    const text = fc.stringMatching(/^[ -'*-~é]*(\([ -'*-~]*\)[ -'*-~]*)*$/);
    const value: fc.Arbitrary<ParamValue> = fc.oneof(
      text,
      fc.boolean(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
    );
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/), fc.dictionary(key, value), (name, params) => {
        const spec = parseSpec(formatSpec(name, params));
        assertEquals(spec.name, name);
        const defaults = Object.fromEntries(
          Object.entries(params).map(([k, v]) => [k, typeof v === "number" ? 0 : typeof v === "string" ? "" : false]),
        );
        assertEquals({ ...resolveParams(spec, defaults) }, { ...params });
      }),
    );
  });
});

describe("lookUp()", () => {
  it("lists the names there are", () => {
    assertEquals(lookUp("backend", "b", { b: 1 }), 1);
    assertThrows(() => lookUp("backend", "c", { b: 1, a: 2 }), RangeError, `backend "c": expected one of a, b`);
    assertThrows(() => lookUp("backend", "toString", { b: 1 }), RangeError);
  });
});
