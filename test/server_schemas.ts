/**
 * Random JSON schemas and prompts, answered by a server and judged by another implementation of JSON schema.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Ajv } from "ajv";
import fc from "fast-check";
import type { Fixture } from "./server_fixture.ts";

const name = fc.string({ unit: fc.constantFrom(..."abcXYZ _$\"'{[,\\"), minLength: 1, maxLength: 5 });
const scalar = fc.oneof(fc.constant(null), fc.boolean(), fc.integer({ min: -99, max: 99 }), name);

/** Schemas of all that the server understands. */
export const schemas: fc.Arbitrary<object> = fc.letrec<{ schema: object }>((tie) => ({
  schema: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom("string", "integer", "number", "boolean", "null").map((type) => ({ type, title: "t" })),
    fc.uniqueArray(scalar, { minLength: 1, maxLength: 3, selector: (x) => JSON.stringify(x) }).map((e) => ({
      enum: e,
    })),
    scalar.map((value) => ({ const: value })),
    fc.constant({ type: ["integer", "null"] }),
    fc.array(tie("schema"), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.record({ items: tie("schema"), minItems: fc.nat(2) }).map((a) => ({
      type: "array",
      ...a,
      maxItems: a.minItems + 2,
    })),
    fc.dictionary(name, tie("schema"), { maxKeys: 4 }).chain((properties) =>
      fc.subarray(Object.keys(properties)).map((required) => ({
        type: "object",
        properties,
        required,
        additionalProperties: false,
      }))
    ),
    fc.constant({ type: "object", properties: { next: { anyOf: [{ $ref: "#/$defs/list" }, { type: "null" }] } } }),
  ),
})).schema.map((schema) => ({
  ...schema,
  $defs: {
    list: { type: "object", properties: { v: { type: "integer" }, l: { $ref: "#/$defs/list" } }, required: ["v"] },
  },
}));

/** How many answers were whole, of how many. */
export interface Tally {
  readonly finished: number;
  readonly all: number;
}

/** Asks for `runs` schemas. Throws when a finished answer is not of its schema. */
export async function askForSchemas(server: Pick<Fixture, "post">, runs: number, fields: object = {}): Promise<Tally> {
  const ajv = new Ajv({ strict: false });
  let finished = 0;
  let all = 0;
  await fc.assert(
    fc.asyncProperty(schemas, fc.string({ maxLength: 40 }), fc.nat(), async (schema, prompt, seed) => {
      const response = await server.post("/v1/chat/completions", {
        messages: [{ role: "user", content: prompt }],
        response_format: { type: "json_schema", json_schema: { name: "x", schema } },
        max_tokens: 200,
        temperature: 1,
        seed,
        ...fields,
      });
      const answer = await response.json();
      assertEquals(response.status, 200, JSON.stringify(answer));
      all++;
      const [{ message, finish_reason }] = answer.choices;
      if (finish_reason !== "stop") return;
      finished++;
      const value = JSON.parse(message.content);
      assert(ajv.validate(schema, value), `${message.content} is not of ${JSON.stringify(schema)}`);
    }),
    { numRuns: runs },
  );
  return { finished, all };
}
