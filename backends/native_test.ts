import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { beforeAll, describe, it } from "@std/testing/bdd";
import { Unsupported } from "../core/errors.ts";
import { libraryPath } from "./library.ts";
import { prepareBackend } from "./mod.ts";
import { NativeBackend } from "./native.ts";

const MOD = new URL("./mod.ts", import.meta.url).href;

/** Runs a script of its own process with the given permissions. */
async function run(permissions: readonly string[], script: string): Promise<{ code: number; text: string }> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, `import { openBackend } from ${JSON.stringify(MOD)};\n${script}`);
    const config = new URL("../deno.json", import.meta.url).pathname;
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--no-check", "--no-lock", `--config=${config}`, ...permissions, file],
      env: { KVASIR_LIBRARY: library as string },
    }).output();
    return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } finally {
    await Deno.remove(file);
  }
}

let library: string | undefined;

describe("NativeBackend", () => {
  beforeAll(async () => {
    try {
      await prepareBackend("cpu");
      library = libraryPath();
    } catch (error) {
      if (!(error instanceof Unsupported)) throw error;
      console.log(`native backend is not tested: ${error.message}`);
    }
  });

  const COMPUTE = `
    const b = openBackend("cpu:threads=2");
    const x = b.alloc([3], "f32", "step");
    b.write(x, Float32Array.of(1, 2, 3));
    b.kernels.add(x, x, x);
    console.log(b.read(x).join());
  `;

  it("needs a grant for the library's path and nothing more", async () => {
    if (library === undefined) return;
    const permissions = ["--allow-read", "--allow-env=KVASIR_LIBRARY"];
    const granted = await run([...permissions, `--allow-ffi=${library}`], COMPUTE + "b[Symbol.dispose]();");
    assertEquals(granted, { code: 0, text: "2,4,6\n" });
    const denied = await run([...permissions, "--allow-ffi=/nowhere"], COMPUTE);
    assert(denied.code !== 0);
    assertStringIncludes(denied.text, "NotCapable");
  });

  it("lets a process end with its threads alive, on the main thread or in a worker", async () => {
    if (library === undefined) return;
    assertEquals(await run(["-A"], COMPUTE), { code: 0, text: "2,4,6\n" });
    const worker = `
      const source = ${
      JSON.stringify(`import { openBackend } from ${JSON.stringify(MOD)};${COMPUTE}self.postMessage(0);`)
    };
      const url = URL.createObjectURL(new Blob([source], { type: "text/typescript" }));
      const worker = new Worker(url, { type: "module" });
      await new Promise((resolve) => worker.onmessage = resolve);
      worker.terminate();
    `;
    assertEquals(await run(["-A"], worker), { code: 0, text: "2,4,6\n" });
  });

  it("says why a file is no backend", async () => {
    const garbage = await Deno.makeTempFile({ suffix: ".so" });
    try {
      await Deno.writeTextFile(garbage, "no library");
      for (const path of [garbage, "/nowhere/lib.so"]) {
        const open = () => new NativeBackend({ name: "x", library: path, options: "" });
        assertThrows(open, Unsupported, `Cannot load "${path}"`);
      }
    } finally {
      await Deno.remove(garbage);
    }
  });

  it("gives the library's own reason for options it refuses", () => {
    if (library === undefined) return;
    const options = { name: "cpu", library, options: "speed=high" };
    assertThrows(() => new NativeBackend(options), Unsupported, `option "speed" is unknown`);
    assertThrows(() => new NativeBackend({ ...options, options: "a\0b" }), RangeError, "NUL");
  });

  it("names the options in force in its spec", () => {
    if (library === undefined) return;
    using backend = new NativeBackend({ name: "mine", library, options: "threads=1,isa=portable" });
    assertEquals(backend.spec, "mine:isa=portable,precision=exact,threads=1");
    assert(backend.bandwidth(16) > 0.1);
  });

  it("opens and closes again and again without keeping memory", () => {
    if (library === undefined) return;
    for (let i = 0; i < 20; i++) {
      using backend = new NativeBackend({ name: "cpu", library, options: "threads=2" });
      backend.alloc([1000, 1000], "f32", "sequence");
      backend.alloc([100], "f32", "step");
      assertEquals(backend.bytes, 4_000_000);
    }
  });
});
