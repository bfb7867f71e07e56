import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { LIBRARIES, libraryFile, sourceHash } from "./library.ts";

const ROOT = new URL("..", import.meta.url).pathname;

/** Stands in for cmake: counts builds, takes a moment, makes the files that cmake would. */
const CMAKE = `#!/bin/sh
case $1 in
-S) echo "-- Configuring"; [ -n "$BROKEN" ] && echo "CMake Error: No CMAKE_CXX_COMPILER could be found." && exit 1; exit 0 ;;
--build)
  echo x >> "$COUNT"
  echo "[1/2] Building CXX object a.o"
  sleep 0.4
  [ -n "$TOUCH" ] && [ ! -e "$TOUCH" ] && echo "// edited" > "$TOUCH"
  echo "[2/2] Linking"
  for file in ${
  LIBRARIES.map((name) => libraryFile(name)).join(" ")
}; do [ -n "$MISSING" ] || echo built > "$2/$file"; done
  ;;
esac
`;

describe("build.ts", () => {
  let home = "";

  beforeEach(async () => {
    home = await Deno.makeTempDir();
    const native = ["include", "base", ...LIBRARIES].map((folder) => `root/native/${folder}`);
    for (const folder of ["bin", ...native, "root/backends", "root/core", "cache"]) {
      await Deno.mkdir(`${home}/${folder}`, { recursive: true });
    }
    for (const file of ["backends/build.ts", "backends/library.ts", "core/errors.ts"]) {
      await Deno.copyFile(ROOT + file, `${home}/root/${file}`);
    }
    await Deno.writeTextFile(`${home}/root/native/CMakeLists.txt`, "project(x)\n");
    await Deno.writeTextFile(`${home}/root/native/cpu/a.cc`, "int a;\n");
    await Deno.writeTextFile(`${home}/bin/cmake`, CMAKE, { mode: 0o755 });
  });
  afterEach(() => Deno.remove(home, { recursive: true }));

  async function build(env: Record<string, string> = {}): Promise<{ code: number; out: string; err: string }> {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--no-check", "--no-config", "-A", `${home}/root/backends/build.ts`],
      env: { PATH: `${home}/bin:/usr/bin:/bin`, COUNT: `${home}/count`, XDG_CACHE_HOME: `${home}/cache`, ...env },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
    return { code, out: text(stdout), err: text(stderr) };
  }
  const builds = async () => (await Deno.readTextFile(`${home}/count`)).split("\n").length - 1;
  const expected = () => `${home}/root/build/${sourceHash(`${home}/root`)}/${libraryFile()}`;

  it("prints the path, and builds once for two processes and ever after", async () => {
    const [a, b] = await Promise.all([build(), build()]);
    assertEquals([a.code, b.code], [0, 0], a.err + b.err);
    assertEquals([a.out, b.out], [expected(), expected()]);
    assertEquals(await build(), { code: 0, out: expected(), err: "" });
    assertEquals(await builds(), 1);
    assertEquals(await Deno.readTextFile(expected()), "built\n");
    await Deno.writeTextFile(`${home}/root/native/cpu/a.cc`, "int b;\n");
    assert((await build()).out === expected());
    assertEquals(await builds(), 2);
  });

  it("builds again when sources change meanwhile", async () => {
    const result = await build({ TOUCH: `${home}/root/native/cpu/b.cc` });
    assertEquals(result.out, expected());
    assertEquals(await builds(), 2);
  });

  it("falls back to the user's cache where the checkout cannot be written to", async () => {
    await Deno.writeTextFile(`${home}/root/build`, "in the way");
    const result = await build();
    assertEquals(result.out, expected().replace(`${home}/root/build`, `${home}/cache/kvasir/build`));
    assertEquals((await build()).out, result.out);
    assertEquals(await builds(), 1);
  });

  it("says in one line that the disk is full, and leaves nothing half made", async () => {
    for (const generator of ["ninja", "make"]) {
      await Deno.mkdir(`${home}/root/build/cmake-release-${generator}`, { recursive: true });
      await Deno.symlink("/dev/full", `${home}/root/build/cmake-release-${generator}/build.log`);
    }
    const full = await build({ BROKEN: "1" });
    assertEquals([full.code, full.out, full.err.split("\n").length], [1, "", 1], full.err);
    assertStringIncludes(full.err, "free some disk space");
    await Deno.remove(`${home}/root/build`, { recursive: true });
    const uncopied = await build({ MISSING: "1" });
    assertEquals([uncopied.code, uncopied.out, uncopied.err.split("\n").length], [1, "", 1], uncopied.err);
    assertStringIncludes(uncopied.err, "Cannot keep native libraries");
    const left = [...Deno.readDirSync(`${home}/root/build`)].map(({ name }) => name);
    assertEquals(left.filter((name) => name.includes(sourceHash(`${home}/root`))), []);
  });

  it("says in one line what is missing", async () => {
    const broken = await build({ BROKEN: "1" });
    assertEquals([broken.code, broken.out], [1, ""]);
    assertStringIncludes(
      broken.err,
      "Cannot build native libraries: cmake could not configure it, install a C++ compiler",
    );
    const log = broken.err.slice(broken.err.indexOf("log: ") + 5);
    assertStringIncludes(await Deno.readTextFile(log), "No CMAKE_CXX_COMPILER");
    await Deno.remove(`${home}/bin/cmake`);
    for (const PATH of [`${home}/bin`, "/nowhere"]) {
      const none = await build({ PATH });
      assertEquals(none.code, 1);
      assertStringIncludes(none.err, "cmake is not installed, install it");
    }
    const refused = await build({ KVASIR_NO_BUILD: "1" });
    assertStringIncludes(refused.err, "KVASIR_NO_BUILD is set");
    assertEquals(refused.err.split("\n").length, 1);
  });
});
