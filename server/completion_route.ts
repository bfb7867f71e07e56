/**
 * `POST /v1/completions`.
 *
 * @module
 */
import type { Context } from "hono";
import type { Prompt } from "../engine/protocol.ts";
import type { CompletionBody } from "./fields.ts";
import type { Env } from "./security.ts";
import type { Service } from "./service.ts";
import { endOf, LegacyLogprobs, type Token } from "./answer.ts";
import { completionBody, unknownNames } from "./fields.ts";
import { answer, answerAll, type Shape } from "./generate.ts";
import { grammarOf } from "./structured.ts";
import { samplingOf, sharingOf, wrong } from "./request.ts";

/** Prompts of one request. */
const MOST_PROMPTS = 128;

/** Answers a checked request. */
export async function completion(c: Context<Env>, service: Service, body: CompletionBody): Promise<Response> {
  service.noteUnknown(unknownNames(body, completionBody));
  service.checkModel(body.model);
  if (body.best_of !== null && body.best_of !== undefined && body.best_of !== 1) throw wrong("best_of", "must be 1");
  const sampling = samplingOf(body, service.options.sampling ?? {});
  if (sampling.maxTokens === 0) throw wrong("max_tokens", "must be at least 1");
  const logprobs = body.logprobs ?? undefined;
  const grammar = grammarOf(body);
  const options = {
    maxTokens: 16, // OpenAI's old default
    ...sampling,
    ...sharingOf(body),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(grammar === undefined ? {} : { grammar }),
  };
  const prompts = promptsOf(body.prompt);
  if (prompts.length > 1 && body.stream) throw wrong("prompt", "give one prompt a request to stream it");
  if (prompts.length > 1 && body.kvasir?.save_context !== undefined) {
    throw wrong("kvasir.save_context", "give one prompt a request to save it");
  }
  const head = headOf(service);
  const shapes: CompletionShape[] = [];
  for (const [i, prompt] of prompts.entries()) {
    const all = logprobs === undefined ? undefined : new LegacyLogprobs();
    const echo = body.echo ? await echoed(c, service, prompt, all, logprobs ?? 0) : "";
    shapes.push(new CompletionShape(head, i, echo, all));
  }
  const calls = prompts.map((prompt) => ({ prompt, options, knobs: body.kvasir, requestId: c.get("requestId") }));
  const [call, shape] = [calls[0], shapes[0]];
  if (call === undefined || shape === undefined) throw wrong("prompt", "there is none");
  return prompts.length === 1
    ? await answer(c, service, call, body, shape)
    : await answerAll(c, service, calls, shapes);
}

function promptsOf(prompt: CompletionBody["prompt"]): Prompt[] {
  if (typeof prompt === "string") return [prompt];
  if (typeof prompt[0] === "number") return [Int32Array.from(prompt as number[])];
  if (prompt.length > MOST_PROMPTS) throw wrong("prompt", `at most ${MOST_PROMPTS} prompts go into a request`);
  return (prompt as (string | number[])[]).map((one) => typeof one === "string" ? one : Int32Array.from(one));
}

/** A prompt's text; its tokens' log-probabilities go to `logprobs`, `top` of the likeliest beside each. */
async function echoed(
  c: Context<Env>,
  service: Service,
  prompt: Prompt,
  logprobs: LegacyLogprobs | undefined,
  top: number,
): Promise<string> {
  const { engine } = service;
  if (logprobs === undefined) {
    return typeof prompt === "string" ? prompt : await engine.detokenize(prompt as Int32Array);
  }
  const tokens = await engine.encode(prompt);
  const [first] = tokens;
  if (first === undefined) return "";
  logprobs.pushFirst(await engine.detokenize(tokens.slice(0, 1)));
  if (tokens.length > 1) {
    const { tokens: scored = [] } = await service.score(tokens, top, c.get("tenant"), c.req.raw.signal);
    // Pieces of a character count where it is whole.
    const decoder = new TextDecoder();
    for (const { logprob, top } of scored) {
      const text = decoder.decode(Uint8Array.from(logprob.bytes), { stream: true });
      logprobs.push({ logprob, top, text });
    }
  }
  return typeof prompt === "string" ? prompt : await engine.detokenize(tokens);
}

function headOf(service: Service): Readonly<Record<string, unknown>> {
  return {
    id: `cmpl-${crypto.randomUUID().replaceAll("-", "")}`,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model: service.options.model,
    system_fingerprint: service.fingerprint,
  };
}

type Choice = Readonly<Record<string, unknown>>;

/** Tokens as pieces of text. */
class CompletionShape implements Shape {
  readonly chunkObject = "text_completion";
  readonly head: Readonly<Record<string, unknown>>;
  readonly #index: number;
  readonly #echo: string;
  readonly #all: LegacyLogprobs | undefined;
  #waiting: LegacyLogprobs | undefined;
  #text: string;

  /** `logprobs`: wanted, and those of the echo. */
  constructor(
    head: Readonly<Record<string, unknown>>,
    index: number,
    echo: string,
    logprobs: LegacyLogprobs | undefined,
  ) {
    this.head = head;
    this.#index = index;
    this.#echo = this.#text = echo;
    this.#all = logprobs;
  }

  first(): Choice | undefined {
    if (this.#echo === "") return undefined;
    const { text, index, finish_reason } = this.#choice(this.#echo);
    return { text, index, logprobs: this.#all === undefined ? null : this.#all.toJSON(), finish_reason };
  }

  token(event: Token): Choice[] {
    if (this.#all !== undefined) {
      this.#waiting ??= new LegacyLogprobs(this.#text.length);
      this.#waiting.push(event);
      this.#all.push(event);
    }
    this.#text += event.text;
    return event.text === "" ? [] : [this.#choice(event.text)];
  }

  end(done: Parameters<Shape["end"]>[0]): Choice[] {
    return [{ ...this.#choice(""), ...endOf(done) }];
  }

  whole(done: Parameters<Shape["whole"]>[0]): Choice {
    return { text: this.#text, index: this.#index, logprobs: this.#all ?? null, ...endOf(done) };
  }

  #choice(text: string): Choice {
    const logprobs = this.#waiting ?? null;
    this.#waiting = undefined;
    return { text, index: this.#index, logprobs, finish_reason: null };
  }
}
