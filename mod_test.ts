import { assert } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { DEFAULT_MODEL } from "./model/hub.ts";
import { modelPath, modelsDir, readManifest } from "./model/store.ts";

/**
 * The example of the module's head as a program. It is taken from there because the doc tests of Deno import every name of
 * this module, which the compiler then calls unused.
 */
async function example(): Promise<string> {
  const source = await Deno.readTextFile(new URL("./mod.ts", import.meta.url));
  const block = /^ \* ```ts ignore\n((?: \*.*\n)*?) \* ```$/m.exec(source)?.[1];
  assert(block !== undefined);
  return block.replaceAll(/^ \* ?/gm, "").replace("./mod.ts", import.meta.resolve("./mod.ts"));
}

async function run(args: string[], program: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/example.ts`, program);
    const config = new URL("./deno.json", import.meta.url).pathname;
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...args, "--config", config, "--frozen", `${folder}/example.ts`],
      env: { DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    }).output();
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

describe("the example of mod.ts", () => {
  it("type-checks", async () => {
    const { code, stderr } = await run(["check"], await example());
    assert(code === 0, stderr);
  });

  const manifest = readManifest(modelsDir(), DEFAULT_MODEL);
  it("answers, where the model is here", { skip: manifest === undefined && "the model was not fetched" }, async () => {
    const short = (await example()).replace("}])", "}], { maxTokens: 8, temperature: 0 })");
    assert(manifest !== undefined && modelPath(modelsDir(), manifest) !== "");
    const { code, stdout, stderr } = await run(["run", "-A", "--no-prompt"], short);
    assert(code === 0, stderr);
    assert(/\w+ \w+ \w+/.test(stdout), stdout);
  });
});
