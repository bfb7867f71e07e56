/**
 * Beside llama.cpp's server, which is given by path and never a dependency, or by URL where it runs already:
 *
 *     deno run -A bench/server_rival.ts --rival /path/to/llama-server|http://… [--rival-args "…"] MODEL.gguf [questions] [tokens] [threads]
 *
 * One document of 4,000 tokens, 20 questions about it: first by one client, one after another, then (20 others, same document, same
 * process) by 8 clients at once. `/v1/completions` of both, so that prompts are the same ids; greedy, 48 tokens an answer, ends
 * ignored; f16 caches, 8 slots, equal threads and room. Kvasir runs twice: attending to everything as its rival does, and as it comes
 * (`--preset kvasir`). `--rival-args` stand behind the rival's own. Each server starts fresh; prefixes are shared as each does by itself. Prints every setting, then a table.
 *
 * @module
 */
import { type ServerProcess, startProcess, startServer } from "./server_process.ts";

const args = [...Deno.args];
const option = (name: string) => {
  const at = args.indexOf(name);
  return at < 0 ? undefined : args.splice(at, 2)[1];
};
const rival = option("--rival");
const moreRivalArgs = option("--rival-args")?.split(" ") ?? [];
const [model, questions = "20", tokens = "48", threads = "2"] = args;
if (rival === undefined || model === undefined) {
  console.error("usage: bench/server_rival.ts --rival LLAMA_SERVER|URL MODEL.gguf [questions] [tokens] [threads]");
  Deno.exit(2);
}
const DOCUMENT_TOKENS = 4000;
const CLIENTS = 8;
const ROOM = DOCUMENT_TOKENS + 256 + Number(tokens);
const [OWN_PORT, RIVAL_PORT] = [5901, 5902];

const ownArgs = ["-m", model, "-c", String(ROOM), "--parallel", String(CLIENTS), "--backend", `cpu:threads=${threads}`];
/** Room for each slot; one cache for all, so that a slot may hold a whole prompt; prefixes are kept, as they are by default. */
const rivalArgs = [
  ...["-m", model, "--host", "127.0.0.1", "--port", String(RIVAL_PORT)],
  ...["-t", threads, "-tb", threads, "-np", String(CLIENTS), "-c", String(CLIENTS * ROOM)],
  ...["-fa", "on", "-ctk", "f16", "-ctv", "f16", "-b", "2048", "-ub", "512"],
  ...moreRivalArgs,
];

const TOPICS = [
  "the light",
  "the waters",
  "the garden",
  "the serpent",
  "the ark",
  "the dove",
  "the tower",
  "the river",
  "the famine",
  "the well",
];

/** The n-th question about the document; none is asked twice. */
function question(n: number): string {
  return `\n\nQuestion ${n + 1}: what does the text say about ${TOPICS[n % TOPICS.length]}?\nAnswer:`;
}

interface Answer {
  readonly ms: number;
  readonly prompt: number;
  readonly cached: number;
  readonly drawn: number;
  readonly text: string;
}

async function post(url: string, body: unknown) {
  const response = await fetch(url, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`Cannot ask ${url}: ${response.status} ${text.slice(0, 300)}`);
  return JSON.parse(text);
}

async function ask(url: string, prompt: string): Promise<Answer> {
  const start = performance.now();
  const { choices, usage, timings } = await post(`${url}/v1/completions`, {
    prompt,
    max_tokens: Number(tokens),
    temperature: 0,
    ignore_eos: true,
    cache_prompt: true,
  });
  const cached = timings?.cache_n ?? usage.prompt_tokens_details?.cached_tokens ?? 0;
  const [prompted, drawn] = [usage.prompt_tokens, usage.completion_tokens];
  return { ms: performance.now() - start, prompt: prompted, cached, drawn, text: choices[0].text };
}

type Asked = Pick<ServerProcess, "url" | "cpuSeconds">;

interface Round {
  readonly seconds: number;
  /** Of the server's processors; NaN where it is not ours to ask. */
  readonly cpuSeconds: number;
  readonly answers: readonly Answer[];
}

/** All questions from `first` on, by so many clients that take the next one as they are done. */
async function round(server: Asked, document: string, first: number, clients: number): Promise<Round> {
  const { url } = server;
  const cpu = server.cpuSeconds();
  const start = performance.now();
  const answers: Answer[] = [];
  let next = 0;
  const client = async () => {
    for (let n = next++; n < Number(questions); n = next++) answers[n] = await ask(url, document + question(first + n));
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { seconds: (performance.now() - start) / 1000, cpuSeconds: server.cpuSeconds() - cpu, answers };
}

/** One client, then many. */
async function rounds(server: Asked, document: string): Promise<readonly [Round, Round]> {
  const told = (who: string, { seconds, cpuSeconds }: Round) =>
    console.log(`  ${who}: ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of processors`);
  const alone = await round(server, document, 0, 1);
  told("one client", alone);
  const together = await round(server, document, Number(questions), CLIENTS);
  told(`${CLIENTS} clients`, together);
  return [alone, together];
}

/** The first tokens of the book, as text that both tokenize the same. */
async function documentOf(url: string): Promise<string> {
  const book = Deno.readTextFileSync(new URL("../test/golden/genesis.txt", import.meta.url));
  const { tokens: ids } = await post(`${url}/tokenize`, { content: book });
  if (ids.length < DOCUMENT_TOKENS) throw new Error(`Cannot cut the document: the book has ${ids.length} tokens`);
  return (await post(`${url}/detokenize`, { tokens: ids.slice(0, DOCUMENT_TOKENS) })).content;
}

function startRival(): Promise<ServerProcess> {
  return startProcess(rival as string, rivalArgs, RIVAL_PORT);
}

const table: { name: string; rounds: readonly [Round, Round] }[] = [];
let document = "";
for (const preset of ["full", "kvasir"]) {
  const own = [...ownArgs, "--preset", preset];
  console.log(`kvasir serve ${own.join(" ")}`);
  await using server = await startServer(own, OWN_PORT);
  document ||= await documentOf(server.url);
  table.push({ name: `kvasir, preset ${preset}`, rounds: await rounds(server, document) });
}
if (/^https?:/.test(rival)) {
  console.log(`rival at ${rival}`);
  table.push({
    name: "llama-server",
    rounds: await rounds({ url: rival.replace(/\/$/, ""), cpuSeconds: () => NaN }, document),
  });
} else {
  console.log(`llama-server ${rivalArgs.join(" ")}`);
  await using server = await startRival();
  table.push({ name: "llama-server", rounds: await rounds(server, document) });
}

const last = table.at(-1) as typeof table[number];
console.log(
  `\n${questions} questions by one client, ${questions} by ${CLIENTS}; ${tokens} tokens each; document of ${DOCUMENT_TOKENS} tokens`,
);
console.log(
  "| server | 1 client s | 8 clients s | total s | rival's total / this | processor s | rival's / this | tokens read of asked | tokens drawn |",
);
console.log("|---|---|---|---|---|---|---|---|---|");
const total = ({ rounds }: typeof last) => rounds[0].seconds + rounds[1].seconds;
const work = ({ rounds }: typeof last) => rounds[0].cpuSeconds + rounds[1].cpuSeconds;
for (const row of table) {
  const answers = row.rounds.flatMap((r) => r.answers);
  const sum = (of: (a: Answer) => number) => answers.reduce((all, a) => all + of(a), 0);
  const [one, many] = row.rounds.map((r) => r.seconds.toFixed(1));
  const read = `${sum((a) => a.prompt - a.cached)} of ${sum((a) => a.prompt)}`;
  const ratio = (total(last) / total(row)).toFixed(2);
  const worked = `${work(row).toFixed(1)} | ${(work(last) / work(row)).toFixed(2)}`;
  console.log(
    `| ${row.name} | ${one} | ${many} | ${total(row).toFixed(1)} | ${ratio} | ${worked} | ${read} | ${
      sum((a) => a.drawn)
    } |`,
  );
}
const exact = table[0]?.rounds.flatMap((r) => r.answers) ?? [];
const equal = last.rounds.flatMap((r) => r.answers).filter((a, i) => a.text === exact[i]?.text).length;
console.log(`\nanswers of preset full that are the rival's, letter by letter: ${equal} of ${exact.length}`);
