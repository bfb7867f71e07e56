import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ModelFileError } from "../core/errors.ts";
import { architecture, architectures } from "./mod.ts";

describe("architecture()", () => {
  it("finds every registered name, once", () => {
    const names = architectures.flatMap((a) => a.names);
    assertEquals(new Set(names).size, names.length);
    for (const a of architectures) for (const name of a.names) assertEquals(architecture(name), a);
  });

  it("lists the known names when there is no such one", () => {
    assertThrows(
      () => architecture("mamba"),
      ModelFileError,
      'Cannot load model: architecture "mamba" is not supported, choose one of llama, qwen2, qwen3, gemma3',
    );
  });
});
