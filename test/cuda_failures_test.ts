/**
 * What a device may lack and how it may fail: one line from the program, and in a process that lives on its memory comes back.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { NativeError } from "../core/errors.ts";
import { DEFAULT_MODEL, pullModel } from "../model/hub.ts";
import { emulatedCuda, prepareEmulated } from "./emulated_cuda.ts";
import { load, run } from "./policy_fixture.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const missing = await prepareEmulated("what a device may lack is");
const suite = missing === "" ? describe : describe.skip;

/** How each failure is asked of the emulated device, and the line it gives. */
const FAILURES: readonly (readonly [spec: string, line: RegExp])[] = [
  ["driver=0", /^kvasir: Cannot open cuda: this machine has no NVIDIA driver, use backend "cpu"\n$/],
  ["driver=12020", /^kvasir: Cannot open cuda: the driver is for CUDA 12\.2, update it to .*\n$/],
  ["devices=0", /^kvasir: Cannot open cuda: the driver finds no device, use backend "cpu"\n$/],
  [
    "memory=50",
    /^kvasir: Cannot create weight: out of memory for \d+ bytes on the device, use .* model, or backend "cpu"\n$/,
  ],
  // Weights fit, the cache does not.
  [
    "memory=95",
    /^kvasir: Cannot (?:create tensor|run kernel): out of memory for \d+ bytes on the device, use .* backend "hybrid:device=cuda,host=cpu"\n$/,
  ],
  ["fault=1", /^kvasir: Cannot use cuda: the device is lost since kernel \w+ failed: .*, open the backend again\n$/],
];

suite("a device that lacks something or fails", () => {
  it("ends the program with one line", async () => {
    const model = await pullModel(DEFAULT_MODEL);
    await Promise.all(FAILURES.map(async ([spec, line]) => {
      const args = ["run", "-A", "cli/main.ts", "generate", "--plugin", "test/plugin_cuda_emulated.ts"];
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [...args, "-m", model, "--backend", `cuda-emulated:${spec}`, "-n", "2", "hello"],
        cwd: ROOT,
        stdin: "null",
      }).output();
      assert(code !== 0, spec);
      assertEquals(stdout.length, 0, spec);
      const said = new TextDecoder().decode(stderr);
      assert(line.test(said), `${spec}: ${said}`);
    }));
  });

  it("leaves a process that opens it again, and computes what it did", async () => {
    const full = { policy: "full" };
    using sound = await load("cuda-emulated", emulatedCuda);
    for (const launch of [1, 333]) {
      using lost = await load(`cuda-emulated:fault=${launch}`, emulatedCuda);
      const error = assertThrows(() => run(lost, full), NativeError, "the device is lost");
      assertEquals(error.message.includes("\n"), false);
      assertThrows(() => run(lost, full), NativeError, "open the backend again");
    }
    // Whoever else has a device keeps it.
    const want = run(sound, full).logits;
    // And one that runs out of memory goes on with what it had.
    using small = await load("cuda-emulated:memory=8", emulatedCuda);
    const before = small.backend.bytes;
    const error = assertThrows(() => small.backend.alloc([4 << 20], "f32", "sequence"), NativeError, "out of memory");
    assertEquals(error.message.includes("\n"), false);
    assertEquals(small.backend.bytes, before);
    assertEquals(run(small, full).logits, want);
  });
});
