/**
 * From the JSON lines of index benches to tables: one row per file, spec and goal, over KV heads.
 *
 * @module
 */

/** One KV head under one spec and goal, as native/bench/measure.h prints it. What was not measured is absent. */
export interface HeadLine {
  /** The model. */
  readonly file: string;
  /** Index type or rival with its parameters. */
  readonly spec: string;
  /** `top100`, `error0.05`, … */
  readonly goal: string;
  readonly layer: number;
  readonly kvHead: number;
  readonly group: number;
  readonly dim: number;
  readonly tokens: number;
  /** Keys that the index was asked about. */
  readonly rest: number;
  readonly recall: number;
  readonly worstRecall: number;
  /** Share of the rest's softmax mass among the hits. */
  readonly mass: number;
  /** Relative L2 distance of the output from full attention, mean and each. */
  readonly error: number;
  readonly errors: readonly number[];
  readonly scored?: number;
  /** Rows kept: per KV head where the group shares them, else per query head. */
  readonly kept: number;
  readonly bytesRead?: number;
  readonly estimated?: number;
  readonly expectedRecall?: number;
  /** Microseconds of one search of the whole group. */
  readonly warmUs?: number;
  readonly coldUs?: number;
  readonly buildSeconds?: number;
  readonly bytesPerKey?: number;
  /** Microseconds of adding one key while generating. */
  readonly insertUs?: number;
  readonly decisions: string;
}

/** Lines of a JSONL text. */
export function parseLines(text: string): HeadLine[] {
  return text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as HeadLine);
}

/** Quantile of unsorted values, nearest rank. */
export function quantile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))] ?? NaN;
}

/** Mean; NaN of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/** Lines by file and length, spec and goal, in order of appearance. */
export function grouped(lines: readonly HeadLine[]): HeadLine[][] {
  const groups = new Map<string, HeadLine[]>();
  for (const line of lines) {
    const key = JSON.stringify([line.file, line.tokens, line.spec, line.goal]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [line]);
    else group.push(line);
  }
  return [...groups.values()];
}

/** A column of the table: its head, and a cell from the lines of one row. */
type Column = readonly [head: string, cell: (lines: readonly HeadLine[]) => string];

const percent = (x: number) => Number.isFinite(x) ? `${(100 * x).toPrecision(3)} %` : "–";
const number = (x: number) => !Number.isFinite(x) ? "–" : x >= 1000 ? x.toFixed(0) : x.toPrecision(3);
const present = (values: readonly (number | undefined)[]) => values.filter((x): x is number => x !== undefined);

/** A number with its unit, scaled. */
function bytes(x: number): string {
  if (!Number.isFinite(x)) return "–";
  return x >= 1 << 20 ? `${(x / (1 << 20)).toFixed(1)} MiB` : `${(x / 1024).toFixed(0)} KiB`;
}

/** `gemma3-270m 32K`. */
export function sourceName({ file, tokens }: HeadLine): string {
  const short = file.replace(/-q\d\w*\.gguf$/, "").replace(/\.gguf$/, "");
  return `${short} ${tokens % 1048576 === 0 ? `${tokens / 1048576}M` : `${Math.round(tokens / 1024)}K`}`;
}

const COLUMNS: readonly Column[] = [
  ["heads", ([first]) => first === undefined ? "" : sourceName(first)],
  ["index", ([first]) => `\`${first?.spec}\``],
  ["goal", ([first]) => `${first?.goal}`],
  [
    "recall@k mean, worst head",
    (l) => `${mean(l.map((x) => x.recall)).toFixed(4)}, ${Math.min(...l.map((x) => x.recall)).toFixed(3)}`,
  ],
  ["mass of the rest", (l) => mean(l.map((x) => x.mass)).toFixed(3)],
  ["output error mean, p99", (l) => {
    const all = l.flatMap((x) => x.errors);
    return `${number(mean(all))}, ${number(quantile(all, 0.99))}`;
  }],
  ["keys scored, median head; mean", (l) => {
    const shares = present(l.map((x) => x.scored === undefined ? undefined : x.scored / x.rest));
    return `${percent(quantile(shares, 0.5))}; ${percent(mean(shares))}`;
  }],
  [
    "rows kept, of all tokens",
    (l) => `${number(mean(l.map((x) => x.kept)))}, ${percent(mean(l.map((x) => x.kept / x.tokens)))}`,
  ],
  ["read", (l) => bytes(mean(present(l.map((x) => x.bytesRead))))],
  ["µs warm", (l) => number(mean(present(l.map((x) => x.warmUs))))],
  ["µs cold", (l) => number(mean(present(l.map((x) => x.coldUs))))],
  ["build s", (l) => number(mean(present(l.map((x) => x.buildSeconds))))],
  ["insert µs", (l) => number(mean(present(l.map((x) => x.insertUs))))],
  ["bytes a key", (l) => number(mean(present(l.map((x) => x.bytesPerKey))))],
];

/** A Markdown table of given columns' cells. */
export function markdown(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heads), `|${"---|".repeat(heads.length)}`, ...rows.map(line)].join("\n");
}

/** One row per file, spec and goal: means over KV heads where nothing else is said. Times are of a whole group's search. */
export function indexTable(lines: readonly HeadLine[]): string {
  const rows = grouped(lines).map((group) => COLUMNS.map(([, cell]) => cell(group)));
  return markdown(COLUMNS.map(([head]) => head), rows);
}

/** How heads differ: tenth, half and nine tenths of the KV heads of each file, spec and goal stay below. */
export function headTable(lines: readonly HeadLine[]): string {
  const shown = (values: readonly number[]) => [0.1, 0.5, 0.9].map((p) => number(quantile(values, p))).join(" / ");
  const rows = grouped(lines).map((group) => {
    const [first] = group as [HeadLine, ...HeadLine[]];
    const share = (value: (l: HeadLine) => number | undefined) => {
      const shares = present(group.map(value)).map((x) => 100 * x);
      return shares.length === 0 ? "–" : `${shown(shares)} %`;
    };
    const scored = share((l) => l.scored === undefined ? undefined : l.scored / l.rest);
    const worst = number(Math.max(...group.map((l) => l.error)));
    const promised = present(
      group.map((l) => l.expectedRecall === undefined ? undefined : l.expectedRecall - l.recall),
    );
    return [
      ...[sourceName(first), `\`${first.spec}\``, first.goal, `${group.length}`],
      ...[shown(group.map((l) => l.recall)), `${shown(group.map((l) => l.error))}; ${worst}`],
      ...[share((l) => l.kept / l.tokens), scored],
      promised.length === 0 ? "–" : `${mean(promised).toFixed(3)}; ${Math.max(...promised).toFixed(3)}`,
    ];
  });
  const heads = [
    "heads",
    "index",
    "goal",
    "KV heads",
    "recall",
    "output error; worst head",
    "rows kept",
    "keys scored",
  ];
  return markdown(heads, rows);
}

/**
 * Times beside those of the spec `base` for the same heads and goal: the sum over heads, and how single heads fare. Both
 * sides were measured head by head in one run.
 */
export function ratioTable(lines: readonly HeadLine[], base: string): string {
  const place = (l: HeadLine) => JSON.stringify([l.file, l.tokens, l.goal, l.layer, l.kvHead]);
  const bases = new Map(lines.filter((l) => l.spec === base).map((l) => [place(l), l]));
  const rows = grouped(lines).filter(([first]) => first?.spec !== base).flatMap((group) => {
    const pairs = group.flatMap((l): [HeadLine, HeadLine][] => {
      const other = bases.get(place(l));
      return other === undefined ? [] : [[l, other]];
    });
    const [first] = group as [HeadLine, ...HeadLine[]];
    if (pairs.length === 0) return [];
    const times = (of: (l: HeadLine) => number | undefined) => {
      const known = pairs.filter(([a, b]) => of(a) !== undefined && of(b) !== undefined);
      if (known.length === 0) return ["–", "–"];
      const ratios = known.map(([a, b]) => (of(a) as number) / (of(b) as number));
      const sum = (i: 0 | 1) => known.reduce((total, pair) => total + (of(pair[i]) as number), 0);
      const spread = [0.1, 0.5, 0.9].map((p) => quantile(ratios, p).toFixed(2)).join(" / ");
      return [(sum(0) / sum(1)).toFixed(3), `${spread}; ${Math.max(...ratios).toFixed(2)}`];
    };
    const recall = `${mean(group.map((l) => l.recall)).toFixed(4)}, ${
      Math.min(...group.map((l) => l.recall)).toFixed(3)
    }`;
    const name = [sourceName(first), `\`${first.spec}\``, first.goal, `${pairs.length}`, recall];
    return [[...name, ...times((l) => l.warmUs), ...times((l) => l.coldUs)]];
  });
  const heads = ["heads", "index", "goal", "KV heads", "recall mean, worst head"];
  for (const state of ["warm", "cold"]) heads.push(`time over \`${base}\`, ${state}: sum over heads`, "heads; worst");
  return markdown(heads, rows);
}

/** Best of a rival's settings on one head. */
interface Against {
  /** Best recall within five times our time. */
  readonly within5: number;
  /** Time over ours where recall reaches `reach`, else undefined. */
  readonly ratio: number | undefined;
}

/**
 * Rivals against ours on the same heads: best recall within 5 × our time, and time over ours where they reach recall .95 and .99.
 * `ours` names the spec that they are set against; its goal is top100.
 */
export function rivalTable(lines: readonly HeadLine[], ours: string): string {
  const head = (l: HeadLine) => JSON.stringify([l.file, l.tokens, l.layer, l.kvHead]);
  const own = new Map(lines.filter((l) => l.spec === ours && l.goal === "top100").map((l) => [head(l), l]));
  const families = new Map<string, Map<string, HeadLine[]>>();
  for (const line of lines) {
    const rival = /^((?:hnswlib|faiss)[^:]*(?::centred)?)[:,]/.exec(line.spec)?.[1];
    if (rival === undefined || !own.has(head(line))) continue;
    const key = JSON.stringify([sourceName(line), rival]);
    const heads = families.get(key) ?? new Map<string, HeadLine[]>();
    families.set(key, heads.set(head(line), [...heads.get(head(line)) ?? [], line]));
  }
  const rows = [...families].map(([key, heads]) => {
    const compare = (reach: number) =>
      [...heads].map(([id, settings]): Against => against(own.get(id) as HeadLine, settings, reach));
    const [at95, at99] = [compare(0.95), compare(0.99)];
    const best = at95.map((a) => a.within5);
    const reached = (list: readonly Against[]) => {
      const ratios = present(list.map((a) => a.ratio));
      if (ratios.length === 0) return "never";
      return `${ratios.length} of ${list.length}; × ${number(quantile(ratios, 0.5))}, least × ${
        number(Math.min(...ratios))
      }`;
    };
    const build = mean(present([...heads.values()].map(([first]) => first?.buildSeconds)));
    const [source, rival] = JSON.parse(key) as [string, string];
    const cells = [`${heads.size}`, `${quantile(best, 0.5).toFixed(3)}`, Math.max(...best).toFixed(3)];
    return [source, rival, ...cells, reached(at95), reached(at99), number(build)];
  });
  return markdown([
    "heads",
    "rival",
    "KV heads",
    "best recall within 5 × our time: median head",
    "best head",
    "reach .95: heads; time over ours",
    "reach .99",
    "build s",
  ], rows);
}

function against(own: HeadLine, settings: readonly HeadLine[], reach: number): Against {
  const time = own.warmUs ?? NaN;
  const within = settings.filter((s) => (s.warmUs ?? Infinity) <= 5 * time).map((s) => s.recall);
  const reaching = settings.filter((s) => s.recall >= reach).map((s) => (s.warmUs ?? Infinity) / time);
  return { within5: Math.max(0, ...within), ratio: reaching.length === 0 ? undefined : Math.min(...reaching) };
}
