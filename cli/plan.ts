/**
 * `kvasir plan`: what a model would take at some lengths and ways to attend, before it is loaded.
 *
 * @module
 */
import type { Command } from "@commander-js/extra-typings";
import { parseMethod } from "../attention/method.ts";
import { openBackend, prepareBackend } from "../backends/mod.ts";
import type { CostPoint } from "../engine/cost_model.ts";
import { rowBytes } from "../attention/kv_cache.ts";
import { type Forecast, Forecaster } from "../engine/forecast.ts";
import { attentionNames, planAttention } from "../engine/plan.ts";
import { loadPlugins } from "../engine/plugins.ts";
import { resolveModel } from "../model/hub.ts";
import { identifyFiles } from "../model/identity.ts";
import { openModelFile } from "../model/open.ts";
import { UsageError } from "./exit.ts";
import { readText } from "./files.ts";
import { fitMeasured, measuredName } from "./measured.ts";
import { engineOptions, integers, modelCommand } from "./options.ts";

/** One line of the table. */
export interface PlanRow extends Forecast {
  readonly length: number;
  readonly method: string;
  /** Whether it fits into what is free; undefined where that is not known. */
  readonly fits: boolean | undefined;
  /** Whether time and index are told from what the matrix measured, or from a shadow of the model. */
  readonly by: "matrix" | "shadow";
}

/** The command, for `main.ts`. */
export function planCommand(done: (code: number) => void): Command {
  const command = modelCommand("plan")
    .description("Says what a model takes at some lengths and ways to attend, from its header and this machine alone.")
    .option("--lengths <tokens>", "lengths of the prompt", integers(16), [2048, 8192])
    .option("--methods <list...>", "PRESET[:key=value,…][@INDEX]", ["full", "kvasir"])
    .option("--measured <file>", "predict by what `bench matrix` measured here, where it did")
    .option("--json", "print one JSON object a line")
    .action(async (flags) => {
      if (flags.preset !== undefined || flags.policy !== undefined) {
        throw new UsageError("Cannot plan one preset: name the methods by --methods");
      }
      const options = engineOptions(flags);
      const methods = flags.methods.map((m) => parseMethod(m));
      const plugins = await loadPlugins(options.plugins ?? []);
      const path = await resolveModel(options.model, options.offline === undefined ? {} : { offline: options.offline });
      using opened = openModelFile(path, options.rope);
      const spec = options.backend ?? "cpu";
      await prepareBackend(spec, plugins.backends);
      const free = freeBytes();
      using backend = openBackend(spec, plugins.backends);
      const names = attentionNames(plugins);
      using forecaster = new Forecaster(opened, backend, (free ?? 4e9) / 2, names);
      const rows = rowBytes(opened.config.layers, options.kvType ?? "f16");
      const measured = flags.measured === undefined || (options.kvType ?? "f16") !== "f16"
        ? undefined
        : fitMeasured(await readText(flags.measured), flags.measured, {
          backend: backend.spec,
          modelHash: identifyFiles(opened.files),
        });
      const asked = flags.lengths.flatMap((length) =>
        methods.map((method) => {
          const { policy, index } = planAttention(method.options, backend, names);
          const name = measuredName(policy, index);
          return {
            length,
            method,
            point: measured?.costs.tells(name, length) ? measured.costs.at(name, length) : undefined,
          };
        })
      );
      const shadowed = asked.filter(({ point }) => point === undefined);
      const shadows = forecaster.answer(shadowed.map(({ length, method }) => ({
        length,
        attention: method.options,
        kvType: options.kvType ?? "f16",
      })));
      if (flags.json !== true) console.log(HEADER);
      for (const { length, method, point } of asked) {
        const forecast = point === undefined
          ? shadows.shift() as Forecast
          : told(point, (measured?.weights ?? 0) + rows * length, rows * length);
        const { deviceBytes, hostBytes } = forecast;
        const row: PlanRow = {
          length,
          method: method.name,
          ...forecast,
          fits: free === undefined ? undefined : deviceBytes + hostBytes <= free,
          by: point === undefined ? "shadow" : "matrix",
        };
        console.log(flags.json === true ? JSON.stringify(row) : format(row));
      }
      done(0);
    });
  return command as unknown as Command;
}

/** A forecast of what was measured; `bytes` of weights and cache. */
function told({ msPerToken, buildMs, indexBytes }: CostPoint, bytes: number, rows: number): Forecast {
  return {
    deviceBytes: bytes + indexBytes,
    hostBytes: 0,
    indexBytes,
    diskBytes: rows + indexBytes,
    buildMs,
    msPerToken,
  };
}

const HEADER = "  tokens  device MB    host MB   index MB    disk MB  build s  ms/token  fits      by  method";

function format(row: PlanRow): string {
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1).padStart(11);
  return [
    String(row.length).padStart(8),
    mb(row.deviceBytes),
    mb(row.hostBytes),
    mb(row.indexBytes),
    mb(row.diskBytes),
    (row.buildMs / 1000).toFixed(2).padStart(9),
    row.msPerToken.toFixed(2).padStart(10),
    (row.fits === undefined ? "?" : row.fits ? "yes" : "no").padStart(6),
    row.by.padStart(8),
    `  ${row.method}`,
  ].join("");
}

/** What the machine could give now; undefined where it may not be asked. */
function freeBytes(): number | undefined {
  try {
    return Deno.systemMemoryInfo().available;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}
