/**
 * Cells of the matrix as points: what pictures and tables are drawn from, and what is read off them.
 *
 * @module
 */
import { median } from "../../core/median.ts";
import type { Cell, HeadErrors, QuestionQuality, TextQuality } from "../matrix/cell.ts";
import type { Interval } from "../quality_table.ts";

/** What every point says about its cell. */
export interface Point {
  readonly method: string;
  /** The preset: variants of one share a colour. */
  readonly family: string;
  readonly task: string;
  readonly length: number;
  readonly mode: string;
  /** Keys attended per query: a mean over queries, layers and KV heads. */
  readonly keys: number;
  readonly share: number;
  /** Milliseconds a token: exact attention's median at this length over the paired ratio. */
  readonly ms: number;
  readonly exactMs: number;
  readonly ratio: readonly [number, number, number];
  readonly floorMs: number | null;
  readonly exactFloorMs: number | null;
  /** Measured time over what the bytes take at the bandwidth measured beside. */
  readonly overFloor: number | null;
  readonly indexMB: number;
  readonly cacheMB: number;
  readonly weightsMB: number;
  readonly settleSeconds: number;
  readonly threadSeconds: number;
  /** Reading the prompt with the index over without. */
  readonly readRatio: number;
  readonly insertMs: number;
  readonly heads: HeadErrors | null;
  readonly quality: QuestionQuality | TextQuality;
  readonly estimatedError: number | null;
}

/** Cells that may stand in one picture: one machine, backend and model. */
export interface PointGroup {
  readonly title: string;
  readonly slug: string;
  readonly machine: string;
  /** All methods that retrieve do so at any length (`min_length=0`): their names do not say it. */
  readonly isAlways: boolean;
  readonly commits: readonly string[];
  readonly points: readonly Point[];
}

/** Groups of cells; of cells with one key the last counts. */
export function groupPoints(cells: readonly Cell[]): PointGroup[] {
  const last = new Map(cells.map((cell) => [cell.key, cell]));
  const groups = new Map<string, Cell[]>();
  const idOf = ({ spec: { modelHash }, machine: { cpu, cores } }: Cell) => JSON.stringify([modelHash, cpu, cores]);
  const isRival = ({ spec }: Cell) => spec.policy?.startsWith("rival:") === true;
  for (const cell of last.values()) {
    if (isRival(cell)) continue;
    const id = JSON.stringify([idOf(cell), cell.spec.backend]);
    groups.set(id, [...groups.get(id) ?? [], cell]);
  }
  // Rivals stand beside every backend of ours on the same model and machine.
  for (const group of groups.values()) {
    const id = idOf(group[0] as Cell);
    group.push(...[...last.values()].filter((cell) => isRival(cell) && idOf(cell) === id));
  }
  const slugs = new Set<string>();
  return [...groups.values()].map((group): PointGroup => {
    const [{ spec, machine }] = group as [Cell];
    const settings = new Set(group.map((cell) => JSON.stringify(cell.spec.settings ?? {})));
    const retrieving = group.filter(({ spec }) => spec.policy?.startsWith("retrieval"));
    const isAlways = retrieving.length > 0 && retrieving.every(({ spec }) => /min_length=0(,|$)/.test(spec.policy));
    const name = spec.model.replace(/\.gguf$/i, "");
    const short = `${name}-${spec.backend.split(":")[0]}`.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
    const slug = slugs.has(short) ? `${short}-${slugs.size + 1}` : short;
    slugs.add(slug);
    return {
      title: `${name}, ${spec.backend}`,
      slug,
      machine: `${machine.cpu}, ${machine.cores} cores, ${machine.os}`,
      isAlways,
      commits: [...new Set(group.map((cell) => cell.commit.slice(0, 12)))],
      points: group.map((cell) => pointOf(cell, medianExact(group, cell.spec.length), settings.size > 1)).map((point) =>
        isAlways ? { ...point, method: shortName(point.method) } : point
      ),
    };
  });
}

function pointOf(
  { spec, work, speed, memory, build, headErrors, quality }: Cell,
  exactMs: number,
  isTold: boolean,
): Point {
  const settings = Object.entries(spec.settings ?? {}).map(([key, value]) => `${key}=${value}`).join(",");
  return {
    method: isTold && spec.policy.startsWith("retrieval") && settings !== ""
      ? `${spec.method} ${settings}`
      : spec.method,
    family: spec.method.split(/[:@]/)[0] as string,
    task: spec.task,
    length: spec.length,
    mode: spec.mode,
    keys: work.spanned + work.retrieved,
    share: work.share,
    ms: exactMs / speed.ratio[0],
    exactMs,
    ratio: speed.ratio,
    floorMs: speed.ownFloorMs,
    exactFloorMs: speed.exactFloorMs,
    overFloor: speed.ownFloorMs === null ? null : speed.ownMs / speed.ownFloorMs,
    indexMB: memory.index / 1e6,
    cacheMB: memory.cache / 1e6,
    weightsMB: memory.weights / 1e6,
    settleSeconds: build.settleMs / 1000,
    threadSeconds: build.threadSeconds,
    readRatio: build.readWithMs / build.readMs,
    insertMs: build.insertMs,
    heads: headErrors,
    quality,
    estimatedError: work.estimatedError,
  };
}

/** Without `min_length=0`. */
function shortName(method: string): string {
  return method.replace(/ min_length=0$/, "").replace(
    /([:,])min_length=0(,|(?=@|$))/,
    (_, before, after) => after === "," ? before : "",
  );
}

/** Every cell timed exact attention: their median is steadier than any. */
function medianExact(cells: readonly Cell[], length: number): number {
  return median(cells.filter(({ spec }) => spec.length === length).map(({ speed }) => speed.exactMs));
}

/** Divergence of a text's point; undefined for questions. */
export function klOf({ quality }: Point): Interval | undefined {
  return quality.kind === "text" ? quality.kl : undefined;
}

/** Those that no other one beats in both: less `x` and less `y`; by ascending x. */
export function paretoFront<T>(points: readonly T[], x: (point: T) => number, y: (point: T) => number): T[] {
  const sorted = [...points].sort((a, b) => x(a) - x(b) || y(a) - y(b));
  let best = Infinity;
  return sorted.filter((point) => {
    if (y(point) >= best) return false;
    best = y(point);
    return true;
  });
}

/**
 * The length at which a method becomes as fast as exact attention for good, between two measured ones by a straight line over the
 * logarithm of the length; the first length when it always was, undefined when it is not at the last one.
 */
export function crossover(points: readonly { readonly length: number; readonly ratio: number }[]): number | undefined {
  const sorted = [...points].sort((a, b) => a.length - b.length);
  if ((sorted.at(-1)?.ratio ?? 0) < 1) return undefined;
  let i = sorted.length - 1;
  while (i > 0 && (sorted[i - 1] as { ratio: number }).ratio >= 1) i--;
  const here = sorted[i] as { length: number; ratio: number };
  const before = sorted[i - 1];
  if (before === undefined) return here.length;
  const t = (1 - before.ratio) / (here.ratio - before.ratio);
  return Math.exp(Math.log(before.length) + t * (Math.log(here.length) - Math.log(before.length)));
}

/** Points of one method at one length as one: medians over tasks. */
export function byMethodAndLength(points: readonly Point[]): Point[] {
  const groups = Map.groupBy(points, ({ method, length }) => JSON.stringify([method, length]));
  return [...groups.values()].map((group) => {
    const [first] = group as [Point];
    const mid = (
      key: "ms" | "exactMs" | "keys" | "share" | "indexMB" | "threadSeconds" | "settleSeconds" | "insertMs",
    ) => median(group.map((point) => point[key]));
    const floors = (key: "floorMs" | "exactFloorMs") => {
      const known = group.map((point) => point[key]).filter((value) => value !== null);
      return known.length === 0 ? null : median(known);
    };
    return {
      ...first,
      ms: mid("ms"),
      exactMs: mid("exactMs"),
      keys: mid("keys"),
      share: mid("share"),
      indexMB: mid("indexMB"),
      threadSeconds: mid("threadSeconds"),
      settleSeconds: mid("settleSeconds"),
      insertMs: mid("insertMs"),
      readRatio: median(group.map((point) => point.readRatio)),
      floorMs: floors("floorMs"),
      exactFloorMs: floors("exactFloorMs"),
      ratio: [0, 1, 2].map((i) => median(group.map((point) => point.ratio[i] as number))) as [number, number, number],
    };
  });
}
