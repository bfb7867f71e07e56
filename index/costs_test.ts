import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { libraryPath } from "../backends/library.ts";
import { costsOfKeys, machineCosts, readCosts } from "./costs.ts";
import { loadIndexLibrary } from "./ffi.ts";

describe("machineCosts()", () => {
  it("measures once, keeps what it measured, and measures again where the file holds no table", () => {
    const path = libraryPath("index");
    if (path === undefined) return console.log("costs are not tested: no index library here");
    const folder = Deno.makeTempDirSync();
    const before = Deno.env.get("XDG_CACHE_HOME");
    Deno.env.set("XDG_CACHE_HOME", folder);
    const library = loadIndexLibrary(path);
    try {
      const first = machineCosts(library, path);
      assert(first !== undefined && first.measured && first.file.startsWith(`${folder}/kvasir/costs/`));
      assertEquals(machineCosts(library, path), { ...first, measured: false });
      assert(costsOfKeys(first.text).scan > 0);
      Deno.writeTextFileSync(first.file, first.text.replace(/^\S+/, "-1"));
      assertEquals(readCosts(first.file), undefined);
      assertEquals(machineCosts(library, path)?.measured, true);
      Deno.removeSync(folder, { recursive: true });
      Deno.writeTextFileSync(folder, "a file where the folder should be");
      assertEquals(machineCosts(library, path), undefined);
    } finally {
      library.close();
      if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", before);
      Deno.removeSync(folder, { recursive: true });
    }
  });
});
