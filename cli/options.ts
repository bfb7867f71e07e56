/**
 * Flags shared by commands: how values are parsed, where defaults and environment names come from.
 *
 * @module
 */
import { Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import type { EngineOptions, Sampling } from "../engine/types.ts";
import type { RopeOverride } from "../model/rope_override.ts";
import { DEFAULT_PRESET, presets } from "../attention/presets.ts";
import { modelsDir } from "../model/store.ts";
import { UsageError } from "./exit.ts";

/** Parser of whole numbers in `[min, max]`. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected a whole number from ${min}${max < 2 ** 40 ? ` to ${max}` : " on"}.`);
    }
    return value;
  };
}

/** Parser of numbers in `[min, max]`. */
export function decimal(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value < min || value > max) {
      throw new InvalidArgumentError(`Expected a number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Parser of comma-separated whole numbers. */
export function integers(min: number): (text: string) => number[] {
  return (text) => text.split(",").map(integer(min));
}

/** The key of a server that is asked. */
// deno-lint-ignore explicit-function-return-type explicit-module-boundary-types -- commander infers the option's type
export function keyOption() {
  return new Option("--api-key <key>", "key of the server").env("KVASIR_API_KEY");
}

const collect = (value: string, previous: string[] | undefined): string[] => [...previous ?? [], value];

const KV_TYPES = ["f16", "f32", "i8"] as const;

/** Flags that choose and shape what is loaded. */
// deno-lint-ignore explicit-function-return-type explicit-module-boundary-types -- commander infers the options' type
export function modelCommand(name: string) {
  return new Command(name)
    .addOption(
      new Option("-m, --model <name>", "model: a path, a folder, a name of `models list`, or hf:user/repo:quant")
        .env("KVASIR_MODEL").default("smollm2-135m-instruct"),
    )
    .addOption(
      new Option("--backend <spec>", "backend, e.g. cpu:threads=2,isa=avx2 or reference (default: cpu)").env(
        "KVASIR_BACKEND",
      ),
    )
    .addOption(
      new Option("-c, --ctx-size <tokens>", "tokens a sequence may hold (default: the model's)").env("KVASIR_CTX_SIZE")
        .argParser(integer(1, 2 ** 24)),
    )
    .addOption(
      new Option("--cache-type-k <type>", "type of cached keys (-ctk)").env("KVASIR_CACHE_TYPE_K").choices(KV_TYPES),
    )
    .addOption(
      new Option("--cache-type-v <type>", "type of cached values (-ctv), the same as the keys'").env(
        "KVASIR_CACHE_TYPE_V",
      ).choices(KV_TYPES),
    )
    .addOption(
      new Option("--rope-scaling <type>", "stretch the context: none, linear or yarn, by --rope-scale").env(
        "KVASIR_ROPE_SCALING",
      ).choices(["none", "linear", "yarn"] as const),
    )
    .option("--rope-scale <factor>", "how many times longer the context gets", decimal(1, 1024))
    .option("--rope-freq-base <base>", "base of the rotary frequencies, in place of the model's", decimal(1, 1e12))
    .option("--yarn-orig-ctx <tokens>", "YaRN: tokens of the first training (default: the model's)", integer(1))
    .option("--yarn-attn-factor <x>", "YaRN: factor on cosine and sine", decimal(0, 100))
    .option("--yarn-beta-fast <turns>", "YaRN: turns from which on a frequency is kept (default: 32)", decimal(0, 1e6))
    .option("--yarn-beta-slow <turns>", "YaRN: turns below which it is stretched in full (default: 1)", decimal(0, 1e6))
    .addOption(
      new Option("-b, --batch-size <tokens>", "most tokens of one prefill chunk").env("KVASIR_BATCH_SIZE")
        .argParser(integer(1, 65536)).default(2048),
    )
    .addOption(
      new Option("--preset <name>", `attention method: ${Object.keys(presets).join(", ")} (default: ${DEFAULT_PRESET})`)
        .env("KVASIR_PRESET"),
    )
    .addOption(new Option("--policy <spec>", "attention policy, in place of the preset's").env("KVASIR_POLICY"))
    .addOption(new Option("--index <spec>", "index, in place of the preset's").env("KVASIR_INDEX"))
    .option("--error <x>", "relative error of attention outputs that retrieval aims at, e.g. 0.05", decimal(0, 1))
    .option("--budget <keys>", "keys that retrieval takes per query head, instead of an error", integer(1, 4096))
    .addOption(
      new Option("--plugin <file.ts>", "module that exports more `backends`, `indexTypes` or `policies` (repeatable)")
        .argParser(
          collect,
        ),
    )
    .addOption(
      new Option("--context-dir <folder>", "folder of saved contexts (default: contexts beside the models)").env(
        "KVASIR_CONTEXT_DIR",
      ),
    )
    .addOption(
      new Option("--context-disk <GiB>", "most that saved contexts may take: the least recently used go").env(
        "KVASIR_CONTEXT_DISK",
      ).argParser(decimal(0, 1e9)),
    )
    .addOption(new Option("--offline", "never use the network").env("KVASIR_OFFLINE"));
}

/** What {@link modelCommand} parses. */
export interface ModelFlags {
  readonly model: string;
  readonly backend?: string | undefined;
  readonly ctxSize?: number | undefined;
  readonly cacheTypeK?: "f16" | "f32" | "i8" | undefined;
  readonly cacheTypeV?: "f16" | "f32" | "i8" | undefined;
  readonly ropeScaling?: "none" | "linear" | "yarn" | undefined;
  readonly ropeScale?: number | undefined;
  readonly ropeFreqBase?: number | undefined;
  readonly yarnOrigCtx?: number | undefined;
  readonly yarnAttnFactor?: number | undefined;
  readonly yarnBetaFast?: number | undefined;
  readonly yarnBetaSlow?: number | undefined;
  readonly batchSize: number;
  readonly preset?: string | undefined;
  readonly policy?: string | undefined;
  readonly index?: string | undefined;
  readonly error?: number | undefined;
  readonly budget?: number | undefined;
  readonly plugin?: string[] | undefined;
  readonly contextDir?: string | undefined;
  readonly contextDisk?: number | undefined;
  readonly offline?: true | undefined;
}

/** Engine options from flags; throws `UsageError` for combinations that do not exist. */
export function engineOptions(flags: ModelFlags): EngineOptions {
  const kvType = flags.cacheTypeK ?? flags.cacheTypeV;
  if (flags.cacheTypeV !== undefined && flags.cacheTypeV !== kvType) {
    throw new UsageError("Cannot open the cache: keys and values must have one type, give -ctk and -ctv the same");
  }
  const rope = ropeOverride(flags);
  return {
    model: flags.model,
    ...(Object.keys(rope).length === 0 ? {} : { rope }),
    batchSize: flags.batchSize,
    ...(flags.backend === undefined ? {} : { backend: flags.backend }),
    ...(flags.ctxSize === undefined ? {} : { ctxSize: flags.ctxSize }),
    ...(kvType === undefined ? {} : { kvType }),
    ...(flags.preset === undefined ? {} : { preset: flags.preset }),
    ...(flags.policy === undefined ? {} : { policy: flags.policy }),
    ...(flags.index === undefined ? {} : { index: flags.index }),
    ...(flags.error === undefined ? {} : { error: flags.error }),
    ...(flags.budget === undefined ? {} : { budget: flags.budget }),
    ...(flags.contextDir === undefined ? {} : { contextDir: absolute(flags.contextDir) }),
    ...(flags.contextDisk === undefined ? {} : { contextDisk: Math.floor(flags.contextDisk * 2 ** 30) }),
    ...(flags.plugin === undefined ? {} : { plugins: flags.plugin.map(pluginUrl) }),
    ...(flags.offline === undefined ? {} : { offline: flags.offline }),
  };
}

/** The folder of contexts that a command uses: the flag's, or beside the models. */
export function contextDir(flags: Pick<ModelFlags, "contextDir">): string {
  return flags.contextDir === undefined
    ? `${modelsDir().replace(/\/models$/, "")}/contexts`
    : absolute(flags.contextDir);
}

function absolute(path: string): string {
  if (path === "") throw new UsageError("Cannot use --context-dir: it is empty");
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

function ropeOverride(flags: ModelFlags): RopeOverride {
  const all = {
    scaling: flags.ropeScaling,
    scale: flags.ropeScale,
    freqBase: flags.ropeFreqBase,
    yarnOrigCtx: flags.yarnOrigCtx,
    yarnAttnFactor: flags.yarnAttnFactor,
    yarnBetaFast: flags.yarnBetaFast,
    yarnBetaSlow: flags.yarnBetaSlow,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as RopeOverride;
}

/** Sampling flags, added to a command. Absent flags keep the model's or Kvasir's defaults. */
// deno-lint-ignore explicit-function-return-type explicit-module-boundary-types -- commander infers the options' type
export function samplingCommand(name: string) {
  return modelCommand(name)
    .option("-n, --max-tokens <n>", "most tokens to generate (default: until the context is full)", integer(0))
    .option("--min-tokens <n>", "fewest tokens before an end is allowed", integer(0))
    .option("-t, --temperature <x>", "0 is greedy", decimal(0, 100))
    .option("--top-k <k>", "keep the k best tokens; 0 is off", integer(0))
    .option("--top-p <p>", "keep the best tokens of this total probability; 1 is off", decimal(0, 1))
    .option("--typical-p <p>", "keep tokens whose surprise is near what is expected; 1 is off", decimal(0, 1))
    .option("--min-p <p>", "drop tokens below this share of the best one's probability; 0 is off", decimal(0, 1))
    .option("--repetition-penalty <x>", "divides the logits of seen tokens; 1 is off", decimal(0.01, 100))
    .option("--presence-penalty <x>", "subtracted once from tokens already generated", decimal(-100, 100))
    .option("--frequency-penalty <x>", "subtracted per occurrence", decimal(-100, 100))
    .addOption(new Option("-s, --seed <n>", "same seed, same tokens").env("KVASIR_SEED").argParser(integer(0)))
    .option("--stop <text>", "end before this text (repeatable)", collect)
    .option("--ignore-eos", "go on after the model's end token");
}

/** What {@link samplingCommand} adds. */
export interface SamplingFlags {
  readonly maxTokens?: number | undefined;
  readonly minTokens?: number | undefined;
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly typicalP?: number | undefined;
  readonly minP?: number | undefined;
  readonly repetitionPenalty?: number | undefined;
  readonly presencePenalty?: number | undefined;
  readonly frequencyPenalty?: number | undefined;
  readonly seed?: number | undefined;
  readonly stop?: string[] | undefined;
  readonly ignoreEos?: true | undefined;
}

/** Sampling from flags: only what was given. */
export function samplingOptions(flags: SamplingFlags): Partial<Sampling> {
  const all = {
    maxTokens: flags.maxTokens,
    minTokens: flags.minTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    typicalP: flags.typicalP,
    minP: flags.minP,
    repetitionPenalty: flags.repetitionPenalty,
    presencePenalty: flags.presencePenalty,
    frequencyPenalty: flags.frequencyPenalty,
    seed: flags.seed,
    stop: flags.stop,
    ignoreEos: flags.ignoreEos,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Partial<Sampling>;
}

/** Single-dash names of llama.cpp with several letters, which commander does not know. */
const LONG_SHORTS: Readonly<Record<string, string>> = {
  "-ctk": "--cache-type-k",
  "-ctv": "--cache-type-v",
  "-np": "--parallel",
  "-hf": "--model",
};

/** Replaces llama.cpp's several-letter single-dash flags by their long names. */
export function normalizeArguments(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  return args.map((arg, i) => end >= 0 && i > end ? arg : LONG_SHORTS[arg] ?? arg)
    .map((arg, i) => args[i - 1] === "-hf" && !arg.startsWith("hf:") ? `hf:${arg}` : arg);
}

function pluginUrl(path: string): string {
  return /^[a-z]+:\/\//.test(path) ? path : new URL(path, `file://${Deno.cwd()}/`).href;
}
