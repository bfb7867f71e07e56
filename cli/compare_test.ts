import { assert, assertEquals } from "@std/assert";
import { it } from "@std/testing/bdd";
import { parseMethod } from "../attention/method.ts";
import { Engine } from "../engine/engine.ts";
import { localLink } from "../engine/link.ts";
import { tinyLoader } from "../engine/tiny_model.ts";
import { compareMethods } from "./compare.ts";

it("compareMethods() answers by each method, and forces all through the first one's answer", async () => {
  await using engine = await Engine.openOver((to) => localLink(to, tinyLoader(), {}), {
    model: "tiny",
    backend: "cpu:threads=2",
    contextRam: 1e9,
  });
  const ids = Int32Array.from({ length: 200 }, (_, i) => 32 + (i * 31 + (i >> 3)) % 90);
  const names = [
    "full",
    "kvasir:min_length=0,window=16,error=0",
    "kvasir:min_length=0,window=16,error=0.2",
    "streaming-llm:window=16",
  ];
  const base = await Deno.makeTempFile();
  try {
    const started: string[] = [];
    const rows = await Array.fromAsync(
      compareMethods(
        engine,
        ids,
        names.map((m) => parseMethod(m)),
        24,
        base,
        new AbortController().signal,
        (m) => started.push(m),
      ),
    );
    assertEquals(rows.map((row) => row.method), started);
    const [full, exact, sampled, near] = rows as [typeof rows[0], typeof rows[0], typeof rows[0], typeof rows[0]];
    assertEquals([full.kl, full.sameTop, full.tokens, full.retrieved], [0, 1, 24, 0]);
    // An error of zero leaves nothing out; other ways do, and what they see of the prompt is what they were told to.
    assertEquals([exact.text, exact.attended, exact.sameTop], [full.text, exact.keys, 1]);
    assert(exact.kl < 1e-7 && exact.retrieved > 100, JSON.stringify(exact));
    assert(sampled.attended < sampled.keys && sampled.retrieved > 0 && sampled.kl > exact.kl, JSON.stringify(sampled));
    assert(near.attended === 20 && near.retrieved === 0 && near.kl > sampled.kl, JSON.stringify(near));
    assert(rows.every((row) => row.msPerToken > 0 && row.firstTokenMs > 0));
  } finally {
    await Deno.remove(base);
  }
});
