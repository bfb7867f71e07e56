import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { DoesNotFit, ModelFileError, NativeError, Unsupported } from "../core/errors.ts";
import { formatRows } from "./bench.ts";
import { Conversation } from "./conversation.ts";
import { describeError, EXIT, exitCode, QualityError, UsageError } from "./exit.ts";
import { checkOutput, decodeText, readPrompt } from "./files.ts";
import { formatTimings } from "./generate.ts";
import { engineOptions, normalizeArguments, samplingOptions } from "./options.ts";
import { planWindows, summarize } from "./perplexity.ts";
import { formatProgress, formatSeconds, ProgressLine } from "./progress.ts";

describe("exit codes", () => {
  it("follow the meaning of the error", () => {
    assertEquals(exitCode(new UsageError("x")), EXIT.USAGE);
    assertEquals(exitCode(new RangeError("x")), EXIT.USAGE);
    assertEquals(exitCode(new DoesNotFit("x")), EXIT.DOES_NOT_FIT);
    assertEquals(exitCode(new ModelFileError("x")), EXIT.MODEL);
    assertEquals(exitCode(new NativeError(2, "x")), EXIT.NATIVE);
    assertEquals(exitCode(new Unsupported("x")), EXIT.NATIVE);
    assertEquals(exitCode(new QualityError("x")), EXIT.QUALITY);
    assertEquals(exitCode(new Error("x")), EXIT.FAILURE);
    assertEquals(exitCode("x"), EXIT.FAILURE);
  });

  it("come with one line, whatever was thrown", () => {
    assertEquals(describeError(new Error("first\nsecond")), "first");
    assertEquals(describeError(undefined), "undefined");
    const denied = new Deno.errors.NotCapable('Requires read access to "/x", run again with the --allow-read flag');
    assertStringIncludes(describeError(denied), "--allow-read");
    assertStringIncludes(describeError(new Error("No space left on device (os error 28)")), "disk is full");
    const isFolder = new Deno.errors.IsADirectory("Is a directory (os error 21): writefile '/x y'");
    assertEquals(describeError(isFolder), 'Cannot write "/x y": is a directory');
    const outside = new Deno.errors.NotCapable('Requires all access to "/proc/x", run again with the --allow-all flag');
    assertEquals(describeError(outside), 'Cannot use "/proc/x": Deno keeps programs out of there, name another place');
    assertEquals(describeError(new Error("a\x1b[31mb\u009bc")), "a\ufffd[31mb\ufffdc");
  });
});

describe("arguments", () => {
  it("accept llama.cpp's several-letter shorts", () => {
    assertEquals(normalizeArguments(["-ctk", "i8", "-hf", "a/b"]), ["--cache-type-k", "i8", "--model", "hf:a/b"]);
    assertEquals(normalizeArguments(["--", "-ctk"]), ["--", "-ctk"]);
  });

  it("refuse two cache types", () => {
    const flags = { model: "m", batchSize: 8, cacheTypeK: "f16", cacheTypeV: "i8" } as const;
    assertThrows(() => engineOptions(flags), UsageError, "one type");
    assertEquals(engineOptions({ model: "m", batchSize: 8, cacheTypeV: "i8" }).kvType, "i8");
  });

  it("pass on only the sampling that was given", () => {
    assertEquals(samplingOptions({ temperature: 0, stop: ["x"] }), { temperature: 0, stop: ["x"] });
  });

  it("refuse a prompt that is not text, or not there", async () => {
    assertThrows(() => decodeText(new Uint8Array([0xff, 0xfe]), "x"), UsageError, "UTF-8");
    await assertRejects(() => readPrompt("", undefined), UsageError, "empty");
    await assertRejects(() => readPrompt(undefined, "/no/such/file"), UsageError, "no such file");
    await assertRejects(() => readPrompt(undefined, "/"), UsageError, "folder");
    const empty = Deno.makeTempFileSync();
    await assertRejects(() => readPrompt(undefined, empty), UsageError, "empty").finally(() => Deno.removeSync(empty));
  });

  it("refuse an output that cannot be written, before there is one", () => {
    checkOutput("/dev/null");
    checkOutput("x");
    const file = Deno.makeTempFileSync();
    try {
      for (const bad of ["", "/", "/no/such/folder/x", `${file}/x`]) {
        assertThrows(() => checkOutput(bad), UsageError, "Cannot write");
      }
    } finally {
      Deno.removeSync(file);
    }
  });
});

describe("perplexity windows", () => {
  it("score every token but the first windows' context once, in order", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 2, max: 90 }), fc.nat(88), (n, size, s) => {
        const stride = 1 + s % (size - 1);
        const windows = planWindows(n, size, stride);
        let next: number | undefined;
        for (const { start, end, from } of windows) {
          assert(
            start >= 0 && start < from && from < end && end <= n && end - start <= Math.max(size, n < size ? n : 0),
          );
          if (next !== undefined) assertEquals(from, next);
          next = end;
        }
        if (n > 1) assertEquals(next, n);
        else assertEquals(windows.length, 0);
      }),
    );
  });

  it("refuse a stride that leaves no context", () => {
    assertThrows(() => planWindows(100, 10, 10), UsageError, "--stride");
  });

  it("summarize to mean, error and quantiles", () => {
    const report = summarize([1, 2, 3], [0, 0.1, 0.2], 2);
    assertEquals(report.nll, 2);
    assertEquals(report.kl?.p50, 0.1);
    assertEquals(report.kl?.sameTop, 2 / 3);
    assert(Math.abs(report.nllError - Math.sqrt(1 / 3)) < 1e-12);
    assertThrows(() => summarize([1, 2], [0], 0), ModelFileError, "rows");
  });
});

describe("conversation", () => {
  it("alternates, regenerates, forks and comes back from a file", () => {
    const conversation = new Conversation("be brief");
    conversation.ask("a");
    conversation.answer("b");
    conversation.fork();
    conversation.ask("c");
    conversation.forgetUnanswered();
    conversation.forgetAnswer();
    assertEquals(conversation.messages.map((message) => message.role), ["system", "user"]);
    conversation.returnToFork();
    const restored = new Conversation();
    restored.load(conversation.save(), "f");
    assertEquals(restored.messages, conversation.messages);
  });

  it("refuses what is no conversation and keeps the old one", () => {
    const conversation = new Conversation();
    conversation.ask("a");
    for (const text of ["", "{}", "null", '{"format":"kvasir-conversation","messages":[{"role":"x","content":""}]}']) {
      assertThrows(() => conversation.load(text, "f"), UsageError, 'Cannot load "f"');
    }
    assertEquals(conversation.messages.length, 1);
    assertThrows(() => new Conversation().forgetAnswer(), UsageError);
    assertThrows(() => new Conversation().returnToFork(), UsageError);
  });

  it("changes settings within their ranges only", () => {
    const conversation = new Conversation();
    assertEquals(conversation.set({}, "top-k", "5"), { topK: 5 });
    assertThrows(() => conversation.set({}, "top-p", "2"), UsageError, "from 0 to 1");
    assertThrows(() => conversation.set({}, "colour", "2"), UsageError, "temperature");
  });
});

describe("progress", () => {
  it("shows amount, rate and time to go", () => {
    const line = formatProgress({ phase: "download", done: 50e6, total: 100e6, detail: "x" }, 5);
    assertEquals(line, "Downloading x 50 % 50.0/100.0 MB, 10.0 MB/s, 5 s left");
    assertEquals(formatProgress({ phase: "prefill", done: 0, total: 7000 }, 0), "Reading prompt 0 % 0/7000 tokens");
    assertEquals(formatSeconds(200), "3 min 20 s");
  });

  it("writes nothing in pipes and leaves no line behind on a terminal", () => {
    const written: string[] = [];
    new ProgressLine(false, (text) => written.push(text)).report({ phase: "load", done: 1, total: 2 });
    assertEquals(written, []);
    const line = new ProgressLine(true, (text) => written.push(text));
    line.report({ phase: "load", done: 1, total: 2 });
    line.report({ phase: "load", done: 2, total: 2 });
    assertEquals(written.at(-1), "\r\x1b[2K");
  });
});

describe("tables", () => {
  it("print rates as Markdown and CSV", () => {
    const row = { model: "m", backend: "cpu", kv: "f16", test: "pp512", tokensPerSecond: 10, deviation: 0.5, runs: 3 };
    assertStringIncludes(formatRows([row], "md"), "| m | cpu | f16 | pp512 | 10.00 ± 0.50 |");
    assertStringIncludes(formatRows([row], "csv"), '"pp512"');
    assertEquals(JSON.parse(formatRows([row], "json")).length, 1);
  });

  it("close a generation with its rates", () => {
    const timings = {
      cachedTokens: 0,
      promptTokens: 10,
      promptMs: 100,
      predictedTokens: 3,
      predictedMs: 20,
      firstTokenMs: 101,
      queueMs: 0,
      tokenizeMs: 0,
      restoreMs: 0,
    };
    assertEquals(
      formatTimings(timings, 2e8),
      "prompt 10 tokens, 100.0 tok/s · answer 3 tokens, 100.0 tok/s · first token 101 ms · peak 200 MB",
    );
  });
});
