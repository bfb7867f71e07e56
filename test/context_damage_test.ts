/**
 * What becomes of context files under flipped bits, killed processes and full disks. `KVASIR_CONTEXT_FLIPS=10000` and
 * `KVASIR_CONTEXT_KILLS=300` for the long version:
 *
 *     KVASIR_CONTEXT_FLIPS=10000 KVASIR_CONTEXT_KILLS=300 deno test -A test/context_damage_test.ts
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { ContextError } from "../core/errors.ts";
import { ContextDir } from "../engine/context_dir.ts";
import { uniform } from "../engine/sampler.ts";
import { ContextFixture } from "./context_fixture.ts";

const FLIPS = Number(Deno.env.get("KVASIR_CONTEXT_FLIPS") ?? 300);
const KILLS = Number(Deno.env.get("KVASIR_CONTEXT_KILLS") ?? 5);
const SAVER = new URL("./context_fixture.ts", import.meta.url).pathname;

async function folder(body: (dir: string) => Promise<void> | void): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await body(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Replaced, not overwritten: what is mapped must not change. */
function put(path: string, bytes: Uint8Array): void {
  Deno.writeFileSync(`${path}.new`, bytes);
  Deno.renameSync(`${path}.new`, path);
}

describe("context files", () => {
  it(`are refused with any one of ${FLIPS} bits flipped, and good again without`, async () => {
    await folder(async (dir) => {
      using fixture = await ContextFixture.make(150);
      const path = `${dir}/a.kvctx`;
      fixture.save(path);
      fixture.open(path);
      const bytes = Deno.readFileSync(path);
      for (let i = 0; i < FLIPS; i++) {
        const bit = Math.floor(uniform(5, i) * 8 * bytes.length);
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
        put(path, bytes);
        const error = assertThrows(() => fixture.open(path), ContextError, "make it anew");
        assertEquals(error.kind, "damaged");
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
      }
      put(path, bytes);
      fixture.open(path);
    });
  });

  it("are refused when they are cut, lengthened, empty, or something else", async () => {
    await folder(async (dir) => {
      using fixture = await ContextFixture.make(80);
      const path = `${dir}/a.kvctx`;
      fixture.save(path);
      const bytes = Deno.readFileSync(path);
      const others = [0, 1, 4095, 4096, 8192, bytes.length >> 1, bytes.length - 1].map((n) => bytes.slice(0, n));
      const longer = new Uint8Array(bytes.length + 4096);
      longer.set(bytes);
      for (const other of [...others, longer, new TextEncoder().encode("hello".repeat(2000))]) {
        put(path, other);
        assertThrows(() => fixture.open(path), ContextError);
        const [entry] = new ContextDir(dir).list();
        assert(entry !== undefined && "error" in entry && entry.error instanceof ContextError);
      }
    });
  });

  it(`of killed processes: what was committed stays, ${KILLS} times`, async () => {
    await folder(async (dir) => {
      using fixture = await ContextFixture.make(60);
      fixture.save(`${dir}/before.kvctx`);
      let found = 0;
      for (let i = 0; i < KILLS; i++) {
        const child = new Deno.Command(Deno.execPath(), {
          args: ["run", "-A", "--no-check", SAVER, dir],
          stdout: "piped",
          stderr: "null",
        }).spawn();
        const reader = child.stdout.getReader();
        const { value } = await reader.read();
        assertStringIncludes(new TextDecoder().decode(value), "ready");
        await new Promise((resolve) => setTimeout(resolve, uniform(9, i) * 60));
        child.kill("SIGKILL");
        await child.status;
        await reader.cancel();
        const entries = new ContextDir(dir).list();
        for (const entry of entries) {
          assert("about" in entry, `${entry.name} after kill ${i}`);
          fixture.open(entry.path);
        }
        assert(entries.some((e) => e.name === "before"));
        found = Math.max(found, entries.length);
        // Its lock went with the process. What has no contents yet might be somebody's who has not locked it yet.
        new ContextDir(dir).sweep(Date.now());
        for (const { name } of Deno.readDirSync(dir)) {
          assert(!name.includes(".part-") || Deno.statSync(`${dir}/${name}`).size === 0, `${name} after kill ${i}`);
        }
      }
      assert(found > 1, "nothing was ever committed");
      // Those go when they are old.
      const later = Date.now() + 4_000_000;
      new ContextDir(dir).prune({}, later);
      assertEquals([...Deno.readDirSync(dir)].filter((f) => f.name.includes(".part-")), []);
    });
  });

  it("that are being written are nobody's leftovers", async () => {
    await folder(async (dir) => {
      using fixture = await ContextFixture.make(60);
      const { files } = fixture.loaded.backend;
      assert(files !== undefined);
      {
        using file = files.create(`${dir}/new.kvctx`);
        file.add("about", new Uint8Array(10_000));
        const parts = () => [...Deno.readDirSync(dir)].filter((f) => f.name.includes(".part-"));
        assertEquals(parts().length, 1);
        new ContextDir(dir).sweep(Date.now() + 4_000_000);
        assertEquals(parts().length, 1);
        file.commit();
        assertEquals(parts().length, 0);
      }
      assertEquals([...Deno.readDirSync(dir)].map((f) => f.name), ["new.kvctx"]);
    });
  });

  it("are not made on a full disk, which is said, and nothing is left of them", async () => {
    await folder(async (dir) => {
      using fixture = await ContextFixture.make(60);
      fixture.save(`${dir}/0.kvctx`);
      const before = Deno.readFileSync(`${dir}/0.kvctx`);
      // A limit on the size of files stands in for a disk: writes fail in the same place.
      const command = `trap "" XFSZ; ulimit -f 48; exec "$0" run -A --no-check "$1" "$2" 1`;
      const { code, stdout } = await new Deno.Command("bash", {
        args: ["-c", command, Deno.execPath(), SAVER, dir],
        env: { DENO_NO_UPDATE_CHECK: "1" },
      }).output();
      const said = new TextDecoder().decode(stdout);
      assertEquals(code, 7, said);
      assertStringIncludes(said, "ContextError: Cannot save context");
      assertEquals([...Deno.readDirSync(dir)].map((f) => f.name), ["0.kvctx"]);
      assertEquals(Deno.readFileSync(`${dir}/0.kvctx`), before);
    });
  });
});
