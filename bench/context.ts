/**
 * What saving, restoring and forking a context cost beside reading its prompt, in one run:
 *
 *     deno run -A bench/context.ts --tokens 8192 --text FILE [--model PATH] [--preset kvasir] [--dir FOLDER] [--runs 5]
 *
 * Cold: the file's pages are dropped from memory before it is opened (`POSIX_FADV_DONTNEED` through dd), which needs a file
 * system on a disk. Tokens after each restore are compared with those of the sequence that was saved.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { DEFAULT_MODEL, resolveModel } from "../model/hub.ts";
import { Ops } from "../backends/ops.ts";
import { load } from "../engine/load.ts";
import { Forward } from "../engine/forward.ts";
import { openContext, saveContext } from "../engine/context_file.ts";
import { fingerprint } from "../engine/fingerprint.ts";
import { planAttention } from "../engine/plan.ts";
import { SequenceState } from "../attention/state.ts";
import type { KvType } from "../attention/kv_cache.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", short: "m" },
    backend: { type: "string" },
    tokens: { type: "string", default: "8192" },
    text: { type: "string" },
    preset: { type: "string", default: "kvasir" },
    kv: { type: "string", default: "f16" },
    dir: { type: "string", default: "." },
    runs: { type: "string", default: "5" },
    answer: { type: "string", default: "32" },
  },
});

const CHUNK = 512;
const hooks = { backends: {}, progress: () => {}, notice: console.error, signal: { aborted: false } };
const model = flags.model ?? await resolveModel(DEFAULT_MODEL, { offline: true });
using loaded = await load({ model, ...(flags.backend === undefined ? {} : { backend: flags.backend }) }, hooks);
const { backend } = loaded;
const shapes = loaded.model.config.layers;
const { plan, policy, index } = planAttention({ preset: flags.preset }, backend);
const forward = new Forward(loaded.model, new Ops(backend), CHUNK);
const kvType = flags.kv as KvType;
const n = Number(flags.tokens);
const answer = Number(flags.answer);
const text = flags.text === undefined ? "In the beginning. ".repeat(n) : await Deno.readTextFile(flags.text);
const tokens = Int32Array.from(loaded.tokenizer.encode(text.slice(0, 8 * n)).slice(0, n + CHUNK));
if (tokens.length < n + CHUNK) throw new RangeError(`Cannot measure: the text has ${tokens.length} tokens, needs more`);

/** Milliseconds of the quickest of `runs`; `before` is not counted. */
function best(runs: number, body: () => void, before: () => void = () => {}): number {
  let least = Infinity;
  for (let i = 0; i < runs; i++) {
    before();
    const start = performance.now();
    body();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

function read(state: SequenceState, from: number, to: number): void {
  for (let start = from; start < to; start += CHUNK) {
    forward.run([{ state, tokens, start, numTokens: Math.min(CHUNK, to - start), numLogits: 1, isPrompt: true }]);
    backend.endStep();
  }
}

/** Greedy tokens behind a question of `CHUNK / 2` tokens. */
function answerOf(state: SequenceState): number[] {
  const all = [...tokens.subarray(0, n + CHUNK / 2)];
  const out: number[] = [];
  for (let start = n, numTokens = CHUNK / 2; out.length < answer; start += numTokens, numTokens = 1) {
    const logits = forward.run([{ state, tokens: all, start, numTokens, numLogits: 1, isPrompt: numTokens > 1 }]);
    if (logits === undefined) break;
    const values = backend.read(logits);
    backend.endStep();
    let top = 0;
    for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[top] as number)) top = i;
    out.push(top);
    all.push(top);
  }
  return out;
}

const path = `${flags.dir}/bench-${Deno.pid}.kvctx`;
const about = {
  id: "ctx_0",
  tokens: n,
  createdMs: 0,
  ttlSeconds: 0,
  metadata: {},
  share: "",
  fingerprint: { ...fingerprint(loaded, kvType), policy, index },
};
const room = n + CHUNK + answer;
const state = new SequenceState(backend, shapes, kvType, room, plan);
const prefill = best(1, () => read(state, 0, n));
const first = state.fork(n, room);
const want = answerOf(first);
first[Symbol.dispose]();
const saved = tokens.slice(0, n);
const save = best(Math.min(3, Number(flags.runs)), () => {
  const fork = state.fork(n, n);
  for (const _ of saveContext(backend, path, about, saved, fork));
  fork[Symbol.dispose]();
});
const { size } = Deno.statSync(path);

let restored: SequenceState | undefined;
let same = true;
const open = () => {
  restored = openContext(path, { backend, shapes, plan }, () => {}).state;
};
const check = () => {
  if (restored === undefined) return;
  const fork = restored.fork(n, room);
  const got = answerOf(fork);
  same &&= got.length === want.length && got.every((token, i) => token === want[i]);
  fork[Symbol.dispose]();
  restored[Symbol.dispose]();
  restored = undefined;
};
const drop = () => {
  check();
  new Deno.Command("dd", { args: [`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"], stderr: "null" })
    .outputSync();
};
const warm = best(Number(flags.runs), open, check);
check();
const cold = best(Math.min(3, Number(flags.runs)), open, drop);
check();

const before = backend.bytes;
let fork: SequenceState | undefined;
const forked = best(Number(flags.runs) * 4, () => void (fork = state.fork(n, room)), () => fork?.[Symbol.dispose]());
const forkBytes = backend.bytes - before;
fork?.[Symbol.dispose]();
state[Symbol.dispose]();
Deno.removeSync(path);

const percent = (ms: number) => `${(100 * ms / prefill).toFixed(2)} %`;
console.log(`${backend.spec} · ${policy} · ${index} · ${kvType} · ${n} tokens · ${loaded.model.config.name}`);
console.log(`prefill            ${prefill.toFixed(0)} ms`);
console.log(
  `save               ${save.toFixed(0)} ms, ${(size / 1e6).toFixed(1)} MB, fsync included (${percent(save)})`,
);
console.log(`restore, warm      ${warm.toFixed(1)} ms, every byte checked (${percent(warm)}; bar 2 %)`);
console.log(`restore, cold      ${cold.toFixed(1)} ms, pages dropped (${percent(cold)}; bar 10 %)`);
console.log(`tokens             ${same ? "identical" : "DIFFERENT"} after ${answer} of an answer to ${CHUNK / 2} more`);
console.log(`fork               ${forked.toFixed(2)} ms, ${forkBytes} bytes (bars 5 ms, 1 MB)`);
if (!same) Deno.exit(1);
