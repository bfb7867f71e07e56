/**
 * How long a cancel takes during a long prefill: `deno run -A bench/cancel.ts MODEL [tokens] [backend]`. Aborts at several
 * moments; the generation counts as over when its last event is heard, and its memory must be free by then.
 *
 * @module
 */
import { Engine } from "../mod.ts";

/** Milliseconds after the request, the first while the engine knows nothing of the machine's speed. */
const MOMENTS_MS = [5, 20, 100, 300, 600, 1000, 1500, 2000];

if (import.meta.main) {
  const [model, tokens = "7000", backend] = Deno.args;
  if (model === undefined) throw new RangeError("Cannot measure: give a model file");
  await using engine = await Engine.open({ model, ...(backend === undefined ? {} : { backend }) });
  const { bytes, backend: spec } = await engine.info();
  const prompt = Int32Array.from({ length: Number(tokens) }, (_, i) => 100 + (i * 7919) % 500);
  const rows: { afterMs: number; doneTokens: number; cancelMs: number; bytesLeft: number }[] = [];
  for (const afterMs of MOMENTS_MS) {
    const abort = new AbortController();
    let abortedMs = 0;
    let doneTokens = 0;
    setTimeout(() => {
      abortedMs = performance.now();
      abort.abort();
    }, afterMs);
    for await (const event of engine.generate(prompt, { maxTokens: 1, signal: abort.signal })) {
      if (event.type === "prefill") doneTokens = event.done;
      if (event.type !== "done" || event.reason !== "cancelled") continue;
      const cancelMs = performance.now() - abortedMs;
      rows.push({ afterMs, doneTokens, cancelMs, bytesLeft: (await engine.info()).bytes - bytes });
    }
  }
  const worstMs = Math.max(...rows.map((row) => row.cancelMs));
  const file = model.slice(model.lastIndexOf("/") + 1);
  console.log(JSON.stringify({ bench: "cancel", model: file, backend: spec, tokens: Number(tokens), worstMs, rows }));
}
