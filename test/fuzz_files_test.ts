import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { fuzz, runCase } from "./fuzz_files.ts";

/** Cases (seed, number) that once failed. */
const KEPT: readonly (readonly [number, number])[] = [
  [1, 113], // a type that is an object
  [1, 641], // a token without a name
  [1, 863], // control characters in a JSON error
  [1, 2653], // an added token without an id
];

describe("damaged model files", () => {
  it("load or are refused with one clear line, within their memory", () => {
    for (const [seed, n] of KEPT) runCase(seed, n);
    const { accepted, refused, most } = fuzz(2, 0, 5000);
    assertEquals(accepted + refused, 5000);
    // Neither all one thing nor the other: the damage reaches past the first check, and is felt.
    assert(accepted > 200 && refused > 3000, `${accepted} accepted, ${refused} refused`);
    assert(most > 0, "allocations are not counted");
  });
});
