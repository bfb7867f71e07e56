import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Model } from "../model/model.ts";
import type { Backend } from "../backends/backend.ts";
import { builtinBackends, openBackend, prepareBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { openModelFile } from "../model/open.ts";
import { Forward } from "./forward.ts";

/** `prompt` tokens at once, then one by one; logits of the last prompt token and of each after it. */
interface Run {
  readonly tokens: readonly number[];
  readonly prompt: number;
  readonly logits: readonly (readonly number[])[];
}

const here = `${import.meta.dirname}/golden`;
const goldens: Record<string, Run[]> = JSON.parse(Deno.readTextFileSync(`${here}/tiny.json`));
// The same weights in another container.
const CASES = [
  ...Object.keys(goldens).map((name) => [name, name] as const),
  ["llama_gguf/model.gguf", "llama"] as const,
];

/**
 * Largest error allowed, as a share of the largest logit. The goldens themselves are float32. `cpu` rounds activations
 * (its fastest paths for f16 and bf16 weights keep 8 bits of them): a wrong angle or head is off by more than a tenth.
 */
const TOLERANCE: Readonly<Record<string, number>> = { reference: 1e-5, cpu: 2e-2 };

async function withModel(path: string, spec: string, body: (model: Model, backend: Backend) => void): Promise<void> {
  await prepareBackend(spec);
  using backend = openBackend(spec);
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
function logitsOf(model: Model, backend: Backend, run: Run, chunk: number): Float32Array[] {
  using forward = new Forward(model, backend, run.tokens.length);
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

for (const name of Object.keys(builtinBackends)) {
  describe(`forward() on ${name}`, () => {
    const tolerance = TOLERANCE[name] ?? 2e-2;

    for (const [path, golden] of CASES) {
      it(`equals transformers for ${path}`, async () => {
        await withModel(path, name, (model, backend) => {
          for (const run of goldens[golden] as Run[]) {
            const error = worst(logitsOf(model, backend, run, run.prompt), run.logits);
            assert(error <= tolerance, `${run.prompt} tokens: off by ${error} of the largest logit`);
          }
        });
      });
    }

    it("does not depend on how a prompt is cut into chunks", async () => {
      await withModel("gemma3", name, (model, backend) => {
        const run = (goldens.gemma3 as Run[])[1] as Run;
        for (const chunk of [1, 3, 16]) {
          const error = worst(logitsOf(model, backend, run, chunk), run.logits);
          assert(error <= tolerance, `chunks of ${chunk}: off by ${error} of the largest logit`);
        }
      });
    });
  });
}
