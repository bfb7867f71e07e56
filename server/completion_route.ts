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
import { ApiError } from "./errors.ts";
import { completionBody, unknownNames } from "./fields.ts";
import { answer, type Shape } from "./generate.ts";
import { grammarOf } from "./structured.ts";
import { samplingOf, sharingOf, wrong } from "./request.ts";

/** Answers a checked request. */
export async function completion(c: Context<Env>, service: Service, body: CompletionBody): Promise<Response> {
  service.noteUnknown(unknownNames(body, completionBody));
  service.checkModel(body.model);
  if (body.best_of !== null && body.best_of !== undefined && body.best_of !== 1) throw wrong("best_of", "must be 1");
  const sampling = samplingOf(body, service.options.sampling ?? {});
  if (sampling.maxTokens === 0) throw wrong("max_tokens", "must be at least 1");
  // OpenAI's old default.
  const options = { maxTokens: 16, ...sampling, ...sharingOf(body) };
  const grammar = grammarOf(body.response_format);
  const logprobs = body.logprobs ?? undefined;
  const prompt = promptOf(body.prompt);
  let echo = "";
  if (body.echo) {
    if (logprobs !== undefined) {
      throw new ApiError("not_supported_error", "Cannot echo log-probabilities: leave out echo or logprobs", {
        param: "echo",
      });
    }
    echo = typeof prompt === "string" ? prompt : await service.engine.detokenize(prompt as Int32Array);
  }
  const call = {
    prompt,
    options: {
      ...options,
      ...(logprobs === undefined ? {} : { logprobs }),
      ...(grammar === undefined ? {} : { grammar }),
    },
    knobs: body.kvasir,
  };
  return await answer(c, service, call, body, new CompletionShape(service, echo, logprobs !== undefined));
}

function promptOf(prompt: CompletionBody["prompt"]): Prompt {
  if (typeof prompt === "string") return prompt;
  const [first] = prompt;
  if (typeof first === "number") return Int32Array.from(prompt as number[]);
  if (first === undefined || prompt.length > 1) throw wrong("prompt", "give one prompt a request");
  return typeof first === "string" ? first : Int32Array.from(first);
}

type Choice = Readonly<Record<string, unknown>>;

/** Tokens as pieces of text. */
class CompletionShape implements Shape {
  readonly chunkObject = "text_completion";
  readonly head: Readonly<Record<string, unknown>>;
  readonly #echo: string;
  readonly #all: LegacyLogprobs | undefined;
  #waiting: LegacyLogprobs | undefined;
  #text: string;

  constructor(service: Service, echo: string, withLogprobs: boolean) {
    this.#echo = this.#text = echo;
    this.#all = withLogprobs ? new LegacyLogprobs() : undefined;
    this.head = {
      id: `cmpl-${crypto.randomUUID().replaceAll("-", "")}`,
      object: "text_completion",
      created: Math.floor(Date.now() / 1000),
      model: service.options.model,
      system_fingerprint: service.fingerprint,
    };
  }

  first(): Choice | undefined {
    return this.#echo === "" ? undefined : this.#choice(this.#echo);
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
    return { text: this.#text, index: 0, logprobs: this.#all ?? null, ...endOf(done) };
  }

  #choice(text: string): Choice {
    const logprobs = this.#waiting ?? null;
    this.#waiting = undefined;
    return { text, index: 0, logprobs, finish_reason: null };
  }
}
