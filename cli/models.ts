/**
 * `kvasir models`: what is on this machine, and how to get more.
 *
 * @module
 */
import { type Command, Command as Plain } from "@commander-js/extra-typings";
import { DEFAULT_MODEL, pullModel, resolveModel } from "../model/hub.ts";
import { openModelFile } from "../model/open.ts";
import { listModels, type ModelListing, removeModel, showModel } from "../model/store.ts";
import { EXIT } from "./exit.ts";
import { ProgressLine } from "./progress.ts";
import { Signals } from "./session.ts";

/** The command, for `main.ts`. */
export function modelsCommand(done: (code: number) => void): Command {
  const models = new Plain("models").description("Lists, pulls, shows and removes models.");
  models.command("list")
    .description("known and installed models")
    .option("--json", "print one JSON array")
    .action((flags) => {
      const listings = listModels();
      console.log(flags.json === true ? JSON.stringify(listings) : formatListings(listings));
      done(EXIT.OK);
    });
  models.command("pull")
    .description("download a model unless it is here; an interrupted download goes on where it stopped")
    .argument("[name]", "a name of `models list`, or hf:user/repo:quant", DEFAULT_MODEL)
    .option("--offline", "fail instead of using the network")
    .action(async (name, flags) => {
      using signals = new Signals();
      const progress = new ProgressLine(Deno.stderr.isTerminal());
      try {
        const path = await pullModel(name, {
          signal: signals.signal,
          offline: flags.offline === true,
          onProgress: (report) => progress.report(report),
          onNotice: (text) => {
            progress.clear();
            console.error(`kvasir: ${text}`);
          },
        });
        progress.clear();
        console.error(`kvasir: ${name} is at ${path}`);
        done(EXIT.OK);
      } catch (error) {
        progress.clear();
        if (signals.code === undefined) throw error;
        done(signals.code);
      }
    });
  models.command("show")
    .description("where a model came from and what it is")
    .argument("<name>", "an installed name, a file or a folder")
    .option("--json", "print one JSON object")
    .action(async (name, flags) => {
      const about = await describeModel(name);
      if (flags.json === true) console.log(JSON.stringify(about));
      else for (const [key, value] of Object.entries(about)) console.log(`${key.padEnd(16)} ${value}`);
      done(EXIT.OK);
    });
  models.command("rm")
    .description("remove an installed model")
    .argument("<name>")
    .action((name) => {
      console.error(`kvasir: removed ${name}, ${(removeModel(name) / 1e6).toFixed(1)} MB freed`);
      done(EXIT.OK);
    });
  return models as unknown as Command;
}

/** Facts of one model, in the order in which they are printed. */
async function describeModel(name: string): Promise<Record<string, string | number>> {
  const installed = listModels().find((listing) => listing.name === name && listing.installed);
  const path = await resolveModel(name, { offline: true });
  using model = openModelFile(path);
  const { config } = model;
  const [layer] = config.layers;
  return {
    name: config.name,
    ...(installed === undefined ? {} : { license: installed.license, source: showModel(name).manifest.source }),
    path,
    architecture: config.architecture,
    layers: config.layers.length,
    width: config.width,
    heads: layer?.heads ?? 0,
    "kv heads": layer?.kvHeads ?? 0,
    "head dimensions": layer?.headDim ?? 0,
    vocabulary: config.vocab,
    "trained context": config.contextLength,
    "chat template": model.chatTemplate === undefined ? "no" : "yes",
  };
}

/** One line a model: `*` marks the default. */
export function formatListings(listings: readonly ModelListing[]): string {
  const width = Math.max(...listings.map((listing) => listing.name.length));
  return listings.map((listing) =>
    [
      listing.isDefault ? "*" : " ",
      listing.name.padEnd(width),
      `${(listing.bytes / 1e6).toFixed(0).padStart(6)} MB`,
      listing.installed ? "installed" : "–        ",
      listing.license.padEnd(10),
      listing.summary,
    ].join("  ")
  ).join("\n");
}
