/**
 * What pictures show, in words: every title is computed from the points that its picture draws.
 *
 * @module
 */
import { median } from "../../core/median.ts";
import { byMethodAndLength, crossover, klOf, paretoFront, type Point } from "./points.ts";

/** `4K`, `512`, `1.5K` */
export function formatLength(length: number): string {
  return length >= 1024 ? `${Number((length / 1024).toFixed(1))}K` : `${length}`;
}

/** Two significant digits, without an exponent. */
export function formatNumber(x: number): string {
  if (x === 0) return "0";
  const digits = Math.max(0, 1 - Math.floor(Math.log10(Math.abs(x))));
  return digits > 5 ? x.toExponential(1) : x.toFixed(Math.min(5, digits));
}

/** A bound below which divergences are rounding: `full` beside itself. */
const NOTHING = 1e-9;

/** Whoever attends to so many of the keys leaves nothing out that a picture could show. */
const ALL = 0.98;

/** Points of texts that a method could lose something at. */
export function textPoints(points: readonly Point[]): Point[] {
  return points.filter((point) => point.task === "text" && (klOf(point)?.[0] ?? 0) > NOTHING && point.share < ALL);
}

/** Who is closest to full attention for its keys. */
export function keysFinding(points: readonly Point[]): string {
  const length = Math.max(...points.map((point) => point.length));
  const here = points.filter((point) => point.length === length);
  const kl = (point: Point) => klOf(point)?.[0] as number;
  const best = here.toSorted((a, b) => kl(a) - kl(b))[0] as Point;
  const topk = here.filter((point) => point.family === "exact-topk").toSorted((a, b) => kl(a) - kl(b))[0];
  const own = here.filter((point) => point.family === "kvasir");
  const match = topk === undefined
    ? undefined
    : own.filter((point) => point.keys <= topk.keys && kl(point) < kl(topk))[0];
  if (match !== undefined && topk !== undefined) {
    return `At ${formatLength(length)}, ${match.method} reads ${formatNumber(match.keys)} keys and stays ` +
      `${formatNumber(kl(topk) / kl(match))} times closer to full attention than the best top-k (${
        formatNumber(topk.keys)
      } keys)`;
  }
  return `At ${formatLength(length)}, ${best.method} is closest to full attention: KL ${formatNumber(kl(best))} from ` +
    `${formatNumber(100 * best.share)} % of the keys`;
}

/** Who stands on the front of divergence against time, length by length. */
export function paretoFinding(points: readonly Point[]): string {
  const lengths = [...new Set(points.map((point) => point.length))].sort((a, b) => a - b);
  const on = lengths.filter((length) => frontAt(points, length).some((point) => point.family === "kvasir"));
  const off = lengths.filter((length) => !on.includes(length));
  const all = lengths.map(formatLength).join(", ");
  if (off.length === 0) {
    return `Error-targeted retrieval is on the Pareto front of quality and time at every length: ${all}`;
  }
  if (on.length === 0) {
    return `Error-targeted retrieval is on the Pareto front of quality and time at no length: ${all}`;
  }
  return `Error-targeted retrieval is on the Pareto front at ${on.map(formatLength).join(", ")}, not at ` +
    `${off.map(formatLength).join(", ")}`;
}

/** Divergence against time, at one length; nothing that is slower than exact attention, which does not diverge. */
export function frontAt(points: readonly Point[], length: number): Point[] {
  return paretoFront(
    points.filter((p) => p.length === length && p.ratio[0] >= 1),
    (p) => p.ms,
    (p) => klOf(p)?.[0] as number,
  );
}

/** From which length on something is faster than exact attention. */
export function timeFinding(points: readonly Point[]): string {
  const all = byMethodAndLength(points);
  const own = all.filter((point) => point.method === mainMethod(points));
  const at = crossover(own.map(({ length, ratio }) => ({ length, ratio: ratio[0] })));
  const last = own.toSorted((a, b) => a.length - b.length).at(-1);
  if (last === undefined) return "Time a token against length";
  const speed = `${formatNumber(last.ratio[0])} times as fast at ${formatLength(last.length)}`;
  const first = Math.min(...own.map((point) => point.length));
  if (at === undefined) {
    return `${last.method} is not faster than exact attention at ${formatLength(last.length)} (${
      formatNumber(last.ratio[0])
    })`;
  }
  return at === first
    ? `${last.method} is faster than exact attention at every length measured, ${speed}`
    : `${last.method} is faster than exact attention from about ${formatLength(Math.round(at / 64) * 64)} on, ${speed}`;
}

/** The default method's plainest spelling among those that were run. */
export function mainMethod(points: readonly Point[]): string {
  const methods = [...new Set(points.map((point) => point.method))];
  const own = methods.filter((method) => method.startsWith("kvasir")).sort((a, b) => a.length - b.length);
  return own[0] ?? methods.find((method) => method !== "full") ?? "full";
}

/** How evenly heads are served. */
export function headsFinding(points: readonly Point[]): string {
  const worst = points.filter((point) => point.heads !== null).map((point) => {
    const flat = (point.heads?.heads ?? []).flatMap((row, layer) => row.map((error, head) => ({ layer, head, error })));
    return {
      point,
      worst: flat.toSorted((a, b) => b.error - a.error)[0],
      middle: median(flat.map(({ error }) => error)),
    };
  });
  const own = worst.find(({ point }) => point.method === mainMethod(points));
  if (own?.worst === undefined) return "Error of outputs, by layer and head";
  const others = worst.filter(({ point }) => point.family !== "kvasir");
  const other = others.toSorted((a, b) => (a.worst?.error ?? 0) - (b.worst?.error ?? 0))[0];
  const tail = other?.worst === undefined
    ? ""
    : `; the best of the others, ${other.point.method}, misses one by ${formatNumber(100 * other.worst.error)} %`;
  return `${own.point.method} misses its worst head (layer ${own.worst.layer}, head ${own.worst.head}) by ` +
    `${formatNumber(100 * own.worst.error)} %${tail}`;
}

/** What answers were lost. */
export function tasksFinding(points: readonly Point[]): string {
  const informative = points.filter(({ quality }) => quality.kind === "questions" && quality.informative);
  if (informative.length === 0) return "No task says anything at these lengths: full attention does not beat a window";
  // The clearest loss: what is left of it at the near end of its interval.
  const worst = (some: readonly Point[]) =>
    some.flatMap(({ quality, task, length, method }) =>
      quality.kind === "questions"
        ? [{
          where: `${task} at ${formatLength(length)}`,
          method,
          loss: -quality.marginMinusFull[0],
          sure: -quality.marginMinusFull[2],
        }]
        : []
    ).toSorted((x, y) => y.loss - x.loss)[0];
  const own = informative.filter((point) => point.method === mainMethod(points));
  const mine = worst(own);
  const other = worst(informative.filter((point) => point.family !== "kvasir" && point.method !== "full"));
  if (mine === undefined) return "Answers beside full attention's";
  const lost = mine.sure <= 0
    ? `${mine.method} loses nothing that could be measured on ${new Set(own.map(({ task }) => task)).size} tasks`
    : `${mine.method} loses at most ${formatNumber(mine.loss)} nats of margin (${mine.where})`;
  return other === undefined || other.sure <= 0
    ? lost
    : `${lost}, ${other.method} up to ${formatNumber(other.loss)} (${other.where})`;
}

/** Who sees needles everywhere. */
export function gridFinding(points: readonly Point[]): string {
  const right = new Map<string, number[]>();
  for (const { method, quality } of points) {
    if (quality.kind !== "questions") continue;
    right.set(method, [...right.get(method) ?? [], ...quality.each.map(([, right]) => right)]);
  }
  const parts = [...right].map(([method, values]) =>
    `${method} ${Math.round(100 * values.reduce((a, b) => a + b, 0) / values.length)} %`
  );
  return `Needles ranked first of 32: ${parts.join(", ")}`;
}

/** What indexes weigh. */
export function memoryFinding(points: readonly Point[]): string {
  const own = points.find((point) => point.method === mainMethod(points));
  if (own === undefined) return "Memory";
  return `At ${formatLength(own.length)} the index of ${own.method} takes ${
    formatNumber(own.indexMB)
  } MB beside a cache of ` +
    `${formatNumber(own.cacheMB)} MB: ${formatNumber(100 * own.indexMB / own.cacheMB)} %`;
}

/** What indexes take to build. */
export function buildFinding(points: readonly Point[]): string {
  const built = points.filter((point) => point.threadSeconds > 0).toSorted((a, b) => b.threadSeconds - a.threadSeconds);
  const [most] = built;
  const own = points.find((point) => point.method === mainMethod(points));
  if (most === undefined || own === undefined) return "No method built anything";
  return `${most.method} builds for ${formatNumber(most.threadSeconds)} s of thread time at ${
    formatLength(most.length)
  }, ` +
    `${own.method} for ${formatNumber(own.threadSeconds)} s`;
}
