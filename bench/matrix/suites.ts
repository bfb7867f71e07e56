/**
 * Suites: tasks, lengths and how much of each, by name.
 *
 * @module
 */

/** What a suite runs where flags do not say otherwise. */
export interface Suite {
  /** One sentence for `--help`. */
  readonly summary: string;
  readonly tasks: readonly string[];
  readonly lengths: readonly number[];
  readonly samples: number;
  /** Questions a context; tasks of named benchmarks ask one. */
  readonly questions: number;
  /** Tokens of `text` that are scored. */
  readonly tokens: number;
  /** Whether the model writes answers, as the named benchmark has it. */
  readonly writes: boolean;
  /** Absent: every preset. */
  readonly methods?: readonly string[];
}

const doubling = (from: number, to: number) =>
  Array.from({ length: Math.log2(to / from) + 1 }, (_, i) => from * 2 ** i);

const TOKEN_TASKS = ["copy", "induction", "kv-recall", "kv-recall-hard", "chain", "count"];
const NIAH = "single_1 single_2 single_3 multikey_1 multikey_2 multikey_3 multivalue multiquery".split(" ")
  .map((name) => `niah_${name}`);

/** See the module's head. */
export const suites: Readonly<Record<string, Suite>> = {
  smoke: {
    summary: "under a minute: copy, kv-recall and text at 2K",
    tasks: ["copy", "kv-recall", "text"],
    lengths: [2048],
    samples: 8,
    questions: 8,
    tokens: 64,
    writes: false,
    methods: ["full", "kvasir:min_length=0", "streaming-llm:window=512"],
  },
  small: {
    summary: "all that a small model can be asked, and needles by rank, 2K to 8K",
    tasks: ["text", ...TOKEN_TASKS, ...NIAH],
    lengths: doubling(2048, 8192),
    samples: 8,
    questions: 16,
    tokens: 512,
    writes: false,
  },
  ruler: {
    summary: "ruler-style: 13 tasks, 4K to 128K, answers written",
    tasks: [...NIAH, "vt", "cwe", "fwe", "qa_1-syn", "qa_2-syn"],
    lengths: doubling(4096, 131072),
    samples: 50,
    questions: 1,
    tokens: 0,
    writes: true,
  },
  infinitebench: {
    summary: "infinitebench-style: passkey, number and key-value retrieval, 8K to 128K, answers written",
    tasks: ["retr.passkey", "retr.number", "retr.kv"],
    lengths: doubling(8192, 131072),
    samples: 50,
    questions: 1,
    tokens: 0,
    writes: true,
  },
  grid: {
    summary: "one needle over lengths and depths",
    tasks: ["needle-grid"],
    lengths: [1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384],
    samples: 11,
    questions: 1,
    tokens: 0,
    writes: false,
  },
};
