import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Command } from "@commander-js/extra-typings";
import { ENVIRONMENT_FLAGS, expandConfig } from "./config.ts";
import { UsageError } from "./exit.ts";

const nothing = () => undefined;

function withFile(text: string, use: (path: string) => void): void {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(path, text);
    use(path);
  } finally {
    Deno.removeSync(path);
  }
}

describe("expandConfig()", () => {
  it("puts the file's flags before all others, those of the command last", () => {
    const text = JSON.stringify({
      model: "a b.gguf",
      "ctx-size": 4096,
      offline: true,
      raw: false,
      stop: ["x", "y"],
      serve: { port: 1 },
      generate: { "ctx-size": 99 },
    });
    withFile(text, (path) => {
      const flags = ["--model=a b.gguf", "--ctx-size=99", "--offline", "--stop=x", "--stop=y"];
      for (const config of [["--config", path], [`--config=${path}`]]) {
        assertEquals(expandConfig(["generate", "hi", ...config, "-c", "5"], nothing), [
          "generate",
          ...flags,
          "hi",
          "-c",
          "5",
        ]);
      }
      assertEquals(expandConfig(["serve", "--config", path], nothing).at(-1), "--port=1");
      assertEquals(expandConfig(["context", "list", "--config", path], nothing).slice(0, 3), [
        "context",
        "list",
        "--model=a b.gguf",
      ]);
    });
  });

  it("leaves to the environment what that says", () => {
    withFile(JSON.stringify({ model: "a", temperature: 0 }), (path) => {
      const environment = (name: string) => name === "KVASIR_MODEL" || name === "KVASIR_TEMPERATURE" ? "b" : undefined;
      assertEquals(expandConfig(["chat", "--config", path], environment), ["chat", "--temperature=0"]);
    });
  });

  it("leaves other arguments alone", () => {
    for (const args of [[], ["chat"], ["generate", "--", "--config", "x"]]) {
      assertEquals(expandConfig(args, nothing), args);
    }
  });

  it("says what is wrong with a file", () => {
    const bad: [string, string][] = [
      ["", "JSON"],
      ["{", "JSON"],
      ["[1]", "one JSON object"],
      ["null", "one JSON object"],
      ['{"a": null}', '"a" must be'],
      ['{"a": [true]}', '"a" must be'],
      ['{"chat": {"a": {}}}', '"chat.a" must be'],
      ['{"--a": 1}', "no flag's name"],
      ['{"a=b --c": 1}', "no flag's name"],
      ['{"config": "other"}', "no flag's name"],
    ];
    for (const [text, part] of bad) {
      withFile(text, (path) => {
        assertThrows(() => expandConfig(["chat", "--config", path], nothing), UsageError, part);
      });
    }
    assertThrows(() => expandConfig(["chat", "--config"], nothing), UsageError, "names no file");
    assertThrows(() => expandConfig(["chat", "--config", "/no/such"], nothing), UsageError, "no such file");
    withFile("{}", (path) => {
      assertThrows(() => expandConfig(["chat", "--config", path, "--config", path], nothing), UsageError, "twice");
    });
  });

  it("knows the flags that the environment sets", async () => {
    const found = new Set<string>();
    const walk = (command: Command) => {
      for (const { envVar, long } of command.options) if (envVar !== undefined && long) found.add(long.slice(2));
      for (const child of command.commands) walk(child as Command);
    };
    const done = () => {};
    walk((await import("./generate.ts")).generateCommand(done));
    walk((await import("./chat.ts")).chatCommand(done));
    walk((await import("./serve.ts")).serveCommand(done));
    walk((await import("./perplexity.ts")).perplexityCommand(done));
    walk((await import("./plan.ts")).planCommand(done));
    walk((await import("./compare.ts")).compareCommand(done));
    walk((await import("./context.ts")).contextCommand(done));
    walk((await import("./context_server.ts")).serverContextCommand(done));
    walk((await import("./models.ts")).modelsCommand(done));
    assertEquals([...found].toSorted(), [...ENVIRONMENT_FLAGS].toSorted());
  });
});
