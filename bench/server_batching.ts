/**
 * What concurrent requests gain, and what a long prompt costs those who are being answered:
 * `deno run -A bench/server_batching.ts [MODEL] [tokens] [backend] [f16|i8]`.
 *
 * Prints tokens a second (drawn ones, prompts' time included) of 8 requests of 512 tokens one after another and at once, and
 * the longest pause between two tokens of a running stream while another request's prompt of 7,000 tokens is read. What eight
 * requests at once could gain at best: prompts take what they take alone, as arithmetic bounds them, and a step takes what memory needs for
 * all weights and each sequence's keys and values at the bandwidth measured beside it, or what arithmetic needs where nothing waits for memory,
 * whichever is longer. Processor time is told, too: with one thread it
 * says on a busy machine what would be gained where memory keeps up (`cpu:threads=1`). And what a line of memory takes between threads,
 * after each round: eight sequences pass more from thread to thread than one does.
 *
 * @module
 */
import process from "node:process";
import { openBackend } from "../backends/mod.ts";
import { type KvType, rowBytes } from "../attention/kv_cache.ts";
import { NativeBackend } from "../backends/native.ts";
import { median } from "../core/median.ts";
import { Engine } from "../engine/engine.ts";
import { arithmeticMs } from "./arithmetic_floor.ts";
import { coreLatency } from "./core_latency.ts";

const [model = "smollm2-135m-instruct", count = "256", backend = "cpu:threads=2", kv = "f16"] = Deno.args;
const maxTokens = Number(count);
const CLIENTS = 8;
/** Each alone, then all together: medians, as a shared machine is not the same from one minute to the next. */
const ROUNDS = 3;

await using engine = await Engine.open({ model, backend, parallel: CLIENTS, kvType: kv as KvType });
const { config, bytes: weightBytes, kvType } = await engine.info();

/** `length` ids that no other `seed` begins with. */
function promptOf(length: number, seed: number): Int32Array {
  let state = seed + 1;
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return 300 + state % Math.min(config.vocab - 300, 20000);
  });
}

const greedy = { temperature: 0, ignoreEos: true };

async function answer(prompt: Int32Array, tokens: number): Promise<number> {
  let drawn = 0;
  for await (const event of engine.generate(prompt, { ...greedy, maxTokens: tokens })) {
    if (event.type === "token") drawn++;
  }
  return drawn;
}

/** Milliseconds, of the clock and of processors. */
async function timed(run: () => Promise<unknown>): Promise<readonly [number, number]> {
  const start = performance.now();
  const used = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(used);
  return [performance.now() - start, (user + system) / 1000];
}

let seed = 0;
const fresh = (length: number) => promptOf(length, seed++);
const together = () => Promise.all(Array.from({ length: CLIENTS }, () => answer(fresh(512), maxTokens)));
// A server that has been running: code is compiled, and the memory of so many caches has been there.
await together();
const rounds: { one: number; all: number; cpu: number; line: number }[] = [];
for (let round = 0; round < ROUNDS; round++) {
  const [one, oneCpu] = await timed(async () => {
    for (let i = 0; i < CLIENTS; i++) await answer(fresh(512), maxTokens);
  });
  const [all, allCpu] = await timed(together);
  rounds.push({ one, all, cpu: oneCpu / allCpu, line: await coreLatency() });
}
const [prompts] = await timed(async () => {
  for (let i = 0; i < CLIENTS; i++) await answer(fresh(512), 1);
});
const one = median(rounds.map((round) => round.one));
const rate = (ms: number) => (CLIENTS * maxTokens / ms * 1000).toFixed(1);
const times = rounds.map((round) => (round.one / round.all).toFixed(2));
console.log(`one after another  ${rate(one)} tokens/s`);
console.log(
  `${CLIENTS} at once          ${rate(median(rounds.map((round) => round.all)))} tokens/s, ${
    median(rounds.map((round) => round.one / round.all)).toFixed(2)
  } times (${times.join(", ")}); processor time ${median(rounds.map((round) => round.cpu)).toFixed(2)} times less`,
);
console.log(
  `a line of memory    ${rounds.map(({ line }) => line.toFixed(0)).join(", ")} ns from thread to thread and back`,
);
const floors = floorsMs();
console.log(
  `at best            ${(one / (prompts + maxTokens * Math.max(...floors))).toFixed(2)} times: prompts ${
    prompts.toFixed(0)
  } ms of ${one.toFixed(0)}; a step of ${CLIENTS}: memory ${floors[0].toFixed(2)} ms, arithmetic ${
    floors[1].toFixed(2)
  } ms`,
);

/** Milliseconds of a step of all at once: of memory alone, and of arithmetic alone. */
function floorsMs(): readonly [number, number] {
  using memory = openBackend(backend, {});
  if (!(memory instanceof NativeBackend)) throw new TypeError(`Cannot measure the bandwidth of "${backend}"`);
  const length = 512 + maxTokens / 2;
  const bytes = weightBytes + CLIENTS * rowBytes(config.layers, kvType as KvType) * length;
  return [
    bytes / (memory.bandwidth(512) * 1e6),
    arithmeticMs(memory.spec, config, kvType as KvType, CLIENTS, length),
  ];
}

/** Pauses of one stream while another prompt is read. */
async function pauses(): Promise<{ readonly gaps: number[]; readonly readMs: number }> {
  const abort = new AbortController();
  const gaps: number[] = [];
  let last = 0;
  let other: Promise<number> | undefined;
  let drawn = 0;
  let startMs = 0;
  let readMs = 0;
  for await (
    const event of engine.generate(fresh(512), { ...greedy, maxTokens: 4000, signal: abort.signal })
  ) {
    if (event.type !== "token") continue;
    const now = performance.now();
    if (other !== undefined) gaps.push(now - last);
    last = now;
    if (++drawn === 20) {
      startMs = now;
      other = answer(fresh(7000), 1);
      void other.then(() => {
        readMs = performance.now() - startMs;
        abort.abort();
      });
    }
  }
  await other;
  return { gaps, readMs };
}
const { gaps, readMs } = await pauses();
gaps.sort((a, b) => a - b);
const at = (share: number) => (gaps[Math.floor(share * (gaps.length - 1))] ?? 0).toFixed(0);
console.log(
  `pauses of a stream during a prompt of 7,000 tokens: median ${at(0.5)} ms, longest ${at(1)} ms; read in ${
    (readMs / 1000).toFixed(1)
  } s`,
);
