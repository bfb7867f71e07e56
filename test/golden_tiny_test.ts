import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Model } from "../model/model.ts";
import type { Backend } from "../backends/backend.ts";
import { builtinBackends, openBackend, prepareBackend } from "../backends/mod.ts";
import { Unsupported } from "../core/errors.ts";
import { loadModel } from "../model/mod.ts";
import { openModelFile } from "../model/open.ts";
import { emulatedCuda } from "./emulated_cuda.ts";
import { Forward } from "./forward.ts";

/** `prompt` tokens at once, then one by one; logits of the last prompt token and of each after it. */
interface Run {
  readonly tokens: readonly number[];
  readonly prompt: number;
  readonly logits: readonly (readonly number[])[];
}

type KvType = keyof typeof TOLERANCE;

const here = `${import.meta.dirname}/golden`;
const goldens: Record<string, Run[]> = JSON.parse(Deno.readTextFileSync(`${here}/tiny.json`));
// The same weights in another container.
const CASES = [
  ...Object.keys(goldens).map((name) => [name, name] as const),
  ["llama_gguf/model.gguf", "llama"] as const,
];

/**
 * Largest error allowed, as a share of the largest logit, by the type of cached keys and values. The goldens are float32
 * themselves, and so is what happens to weights that are not quantized. A wrong angle, head, scale or window is off by a
 * hundredth at least, mostly by a tenth or more.
 */
const TOLERANCE = { f32: 1e-5, f16: 6e-3, i8: 0.1 } as const;

/** Every built-in backend, and what `cpu` does on lesser processors. */
const SPECS = [...Object.keys(builtinBackends), "cpu:isa=avx2", "cpu:isa=portable", "cuda-emulated"];

async function withModel(path: string, spec: string, body: (model: Model, backend: Backend) => void): Promise<void> {
  await prepareBackend(spec, emulatedCuda);
  using backend = openBackend(spec, emulatedCuda);
  {
    using opened = openModelFile(`${here}/tiny/${path}`);
    using weights = opened.openWeights(backend);
    const model = loadModel(opened.config, weights);
    weights.finish();
    body(model, backend);
  }
  assertEquals(backend.bytes, 0);
}

/** All logits of a run, fed as `chunks` of the prompt and then token by token. */
function logitsOf(model: Model, backend: Backend, run: Run, chunk: number, kvType: KvType = "f32"): Float32Array[] {
  using forward = new Forward(model, backend, run.tokens.length, kvType);
  const rows: Float32Array[] = [];
  for (let at = 0; at < run.prompt; at += chunk) {
    const end = Math.min(at + chunk, run.prompt);
    rows.push(...forward.run(run.tokens.slice(at, end), end === run.prompt ? 1 : 0));
  }
  for (const token of run.tokens.slice(run.prompt)) rows.push(...forward.run([token]));
  return rows;
}

function worst(rows: readonly Float32Array[], wanted: Run["logits"]): number {
  assertEquals(rows.length, wanted.length);
  let error = 0, largest = 0;
  rows.forEach((row, r) => {
    const want = wanted[r] as readonly number[];
    assertEquals(row.length, want.length);
    row.forEach((x, i) => {
      assert(Number.isFinite(x));
      error = Math.max(error, Math.abs(x - (want[i] as number)));
      largest = Math.max(largest, Math.abs(want[i] as number));
    });
  });
  return error / largest;
}

/** What keeps `spec` from running here, if that is the machine's fault. */
async function unsupported(spec: string): Promise<string | undefined> {
  if (!spec.includes("isa=") && spec !== "cuda") return undefined;
  try {
    await prepareBackend(spec);
    openBackend(spec)[Symbol.dispose]();
  } catch (error) {
    if (error instanceof Unsupported) return error.message;
    throw error;
  }
}

for (const spec of SPECS) {
  const why = await unsupported(spec);
  if (why !== undefined) console.warn(`Skipping ${spec}: ${why}`);
  (why === undefined ? describe : describe.skip)(`forward() on ${spec}`, () => {
    for (const [path, golden] of CASES) {
      it(`equals transformers for ${path}`, async () => {
        await withModel(path, spec, (model, backend) => {
          for (const run of goldens[golden] as Run[]) {
            for (const kvType of ["f32", "f16", "i8"] as const) {
              const error = worst(logitsOf(model, backend, run, run.prompt, kvType), run.logits);
              assert(
                error <= TOLERANCE[kvType],
                `${run.prompt} tokens, ${kvType}: off by ${error} of the largest logit`,
              );
            }
          }
        });
      });
    }

    it("does not depend on how a prompt is cut into chunks", async () => {
      await withModel("gemma3", spec, (model, backend) => {
        const run = (goldens.gemma3 as Run[])[1] as Run;
        for (const chunk of [1, 3, 16]) {
          const error = worst(logitsOf(model, backend, run, chunk), run.logits);
          assert(error <= TOLERANCE.f32, `chunks of ${chunk}: off by ${error} of the largest logit`);
        }
      });
    });
  });
}
