import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Backend } from "../backends/backend.ts";
import type { OpenedModel } from "../model/open.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import { loadModel } from "../model/mod.ts";
import { pullModel } from "../model/hub.ts";
import { openModelFile } from "../model/open.ts";
import { loadTokenizer } from "../model/tokenizer.ts";
import { Forward } from "./forward.ts";
import { GOLDEN_PROMPTS } from "./golden/prompts.ts";

/** What transformers float32 generates greedily with the same weights (golden/make_texts.py). */
interface GoldenText {
  readonly name: string;
  readonly promptTokens: number;
  readonly promptSha256: string;
  /** Ids of a short prompt. */
  readonly prompt?: readonly number[];
  readonly tokens: readonly number[];
  /** Of each token, by transformers. */
  readonly logprobs: readonly number[];
}

/** Ours at one step, the golden text so far being given. */
interface StepScore {
  readonly best: number;
  readonly bestLogprob: number;
  /** Of the golden token. */
  readonly logprob: number;
}

const CHUNK = 512;
/** Two tokens within this of each other may change places when activations are rounded, but seldom. */
const NEAR_TIE = 0.1;
const MOST_NEAR_TIES = 2;

function goldens(name: string): GoldenText[] {
  return JSON.parse(Deno.readTextFileSync(new URL(`golden/texts_${name}.json`, import.meta.url)));
}

function idsOf(opened: OpenedModel, name: string): Map<string, number[]> {
  const source = opened.tokenizerSource();
  assert(source.kind === "gguf");
  const tokenizer = loadTokenizer(source);
  return new Map(
    (GOLDEN_PROMPTS[name] ?? []).map((prompt) => [prompt.name, tokenizer.encode(prompt.text, { special: true })]),
  );
}

async function sha256(ids: readonly number[]): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", Int32Array.from(ids));
  return new Uint8Array(digest).toHex();
}

/** Feeds the prompt in chunks, then the golden text: in one step (`whole`) or token by token as generation does. */
function score(forward: Forward, prompt: readonly number[], golden: GoldenText, whole: boolean): StepScore[] {
  for (let at = 0; at < prompt.length - 1; at += CHUNK) {
    forward.step(prompt.slice(at, Math.min(at + CHUNK, prompt.length - 1)), 0, () => {});
  }
  const fed = [prompt.at(-1) as number, ...golden.tokens.slice(0, -1)];
  const size = whole ? fed.length : 1;
  const scores: StepScore[] = [];
  for (let at = 0; at < fed.length; at += size) {
    scores.push(...scoreStep(forward, fed.slice(at, at + size), golden.tokens.slice(at, at + size)));
  }
  return scores;
}

function scoreStep(forward: Forward, tokens: readonly number[], next: readonly number[]): StepScore[] {
  const { backend } = forward;
  const rows = tokens.length;
  return forward.step(tokens, rows, (logits) => {
    const alloc = (dtype: "i32" | "f32", ...shape: number[]) => backend.alloc(shape, dtype, "step");
    const wanted = alloc("i32", rows);
    backend.write(wanted, Int32Array.from(next));
    const logprobs = alloc("f32", rows);
    backend.kernels.tokenLogprobs(logprobs, logits, wanted);
    const [ids, best] = [alloc("i32", rows, 1), alloc("f32", rows, 1)];
    backend.kernels.topLogprobs(ids, best, logits);
    const [a, b, c] = [backend.read(ids), backend.read(best), backend.read(logprobs)];
    return next.map((_, i) => ({
      best: a[i] as number,
      bestLogprob: b[i] as number,
      logprob: c[i] as number,
    }));
  });
}

async function withForward(
  path: string,
  spec: string,
  kvType: "f32" | "f16",
  body: (forward: (capacity: number) => Forward, opened: OpenedModel) => void | Promise<void>,
): Promise<void> {
  await prepareBackend(spec);
  using backend: Backend = openBackend(spec);
  using opened = openModelFile(path);
  using weights = opened.openWeights(backend);
  const model = loadModel(opened.config, weights);
  weights.finish();
  await body((capacity) => new Forward(model, backend, capacity, kvType), opened);
}

for (const name of Object.keys(GOLDEN_PROMPTS)) {
  describe(`golden texts of ${name}`, () => {
    const texts = goldens(name);

    it("prompts have the golden's token ids", async () => {
      using opened = openModelFile(await pullModel(name));
      const ids = idsOf(opened, name);
      assertEquals(texts.map((t) => t.name), [...ids.keys()]);
      for (const text of texts) {
        const ours = ids.get(text.name) as number[];
        if (text.prompt !== undefined) assertEquals(ours, text.prompt, text.name);
        assertEquals(ours.length, text.promptTokens, text.name);
        assertEquals(await sha256(ours), text.promptSha256, text.name);
      }
    });

    it("reference takes the golden token at every step of the short prompts", async () => {
      await withForward(await pullModel(name), "reference", "f32", (open) => {
        for (const text of texts) {
          if (text.prompt === undefined) continue;
          using forward = open(text.prompt.length + text.tokens.length);
          const scores = score(forward, text.prompt, text, true);
          assertEquals(scores.map((s) => s.best), text.tokens, text.name);
          scores.forEach((s, i) => assertAlmostEquals(s.logprob, text.logprobs[i] as number, 1e-3, text.name));
        }
      });
    });

    for (const text of texts) {
      it(`cpu takes the golden token, or one as likely, after "${text.name}" (${text.promptTokens} tokens)`, async () => {
        await withForward(await pullModel(name), "cpu", "f16", (open, opened) => {
          const prompt = idsOf(opened, name).get(text.name) as number[];
          using forward = open(prompt.length + text.tokens.length);
          const scores = score(forward, prompt, text, false);
          const others = scores.filter((s, i) => s.best !== text.tokens[i]);
          for (const s of others) assert(s.bestLogprob - s.logprob <= NEAR_TIE, `by ${s.bestLogprob - s.logprob} nats`);
          assert(others.length <= MOST_NEAR_TIES, `${others.length} near-ties`);
        });
      });
    }
  });
}
