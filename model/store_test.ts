import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { HubError, storageError } from "./hub_errors.ts";
import { listModels, type Manifest, modelPath, readManifest, removeModel, writeManifest } from "./store.ts";

function withStore(body: (dir: string) => void): void {
  const dir = Deno.makeTempDirSync();
  try {
    body(dir);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

const manifest: Manifest = {
  version: 1,
  name: "hf:u/r:Q4_0",
  open: "m.gguf",
  files: [{ file: "m.gguf", bytes: 3, sha256: "" }],
  bytes: 3,
  source: "Hugging Face: u/r",
  license: "mit",
  pulled: "2026-01-01T00:00:00.000Z",
};

describe("the store", () => {
  it("takes a model for installed when its manifest and all its files are there", () => {
    withStore((dir) => {
      const folder = `${dir}/hf--u--r--Q4_0`;
      Deno.mkdirSync(folder);
      writeManifest(dir, manifest);
      assertEquals(readManifest(dir, manifest.name), undefined);
      Deno.writeTextFileSync(`${folder}/m.gguf`, "ab");
      assertEquals(readManifest(dir, manifest.name), undefined);
      Deno.writeTextFileSync(`${folder}/m.gguf`, "abc");
      assertEquals(readManifest(dir, manifest.name), manifest);
      assertEquals(modelPath(dir, manifest), `${folder}/m.gguf`);
      assertEquals(listModels(dir).map((m) => [m.name, m.installed, m.isDefault]), [
        ["smollm2-135m-instruct", false, true],
        ["gemma3-270m", false, false],
        ["hf:u/r:Q4_0", true, false],
      ]);
    });
  });

  it("does not trust manifests", () => {
    withStore((dir) => {
      Deno.mkdirSync(`${dir}/x`);
      Deno.writeTextFileSync(`${dir}/x/m.gguf`, "abc");
      const read = (value: unknown) => {
        Deno.writeTextFileSync(`${dir}/x/manifest.json`, typeof value === "string" ? value : JSON.stringify(value));
        return readManifest(dir, "x");
      };
      assertEquals(read({ ...manifest, name: "x" })?.name, "x");
      const damaged = [
        "{",
        "null",
        { ...manifest, version: 2 },
        { ...manifest, open: "../../etc/passwd" },
        { ...manifest, files: [null] },
        { ...manifest, files: [{ file: "../x/m.gguf", bytes: 3 }] },
      ];
      for (const value of damaged) assertEquals(read(value), undefined, JSON.stringify(value));
      // A manifest in a folder that is not its model's is not listed.
      read(manifest);
      assertEquals(listModels(dir).length, 2);
    });
  });

  it("says what to do about models that are not installed", () => {
    withStore((dir) => {
      const error = assertThrows(() => removeModel("gemma3-270m", dir), HubError);
      assertEquals(error.message, 'Cannot remove model: "gemma3-270m" is not installed, none is');
    });
  });
});

describe("storageError()", () => {
  it("explains full disks and missing permission, and leaves the rest", () => {
    const full = storageError(Object.assign(new Error("x"), { code: "ENOSPC" }), "/d/m", 98_000_001) as Error;
    assertStringIncludes(
      full.message,
      'no space left on the disk of "/d/m", the model takes 99 MB; free some or set XDG_CACHE_HOME',
    );
    const denied = storageError(new Deno.errors.PermissionDenied("x"), "/d/m", 0) as Error;
    assertStringIncludes(denied.message, '"/d/m" is not writable');
    const other = new TypeError("y");
    assertEquals(storageError(other, "/d/m", 0), other);
  });
});
