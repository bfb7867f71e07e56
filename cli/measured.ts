/**
 * Costs that the benchmark matrix measured on this machine: what `plan --measured` predicts by.
 *
 * @module
 */
import os from "node:os";
import { WorkCosts, type WorkPoint } from "../engine/work_costs.ts";
import { UsageError } from "./exit.ts";

/** Where costs must have been measured to count. */
export interface MeasuredPlace {
  /** Canonical spec. */
  readonly backend: string;
  /** What tells the model from others. */
  readonly modelHash: string;
}

/** What was fitted. */
export interface MeasuredCosts {
  /** Methods are named by {@link measuredName}. */
  readonly costs: WorkCosts;
  /** Bytes of the model's weights in memory. */
  readonly weights: number;
}

/** Fits costs of `kvasir bench matrix`; methods are named by canonical policy and index. */
export function fitMeasured(text: string, source: string, place: MeasuredPlace): MeasuredCosts {
  let weights = 0;
  const points: WorkPoint[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const cell = parseLine(line, source, i + 1);
    if (cell === undefined || cell.backend !== place.backend || cell.modelHash !== place.modelHash) continue;
    if (cell.cpu !== os.cpus()[0]?.model || cell.cores !== navigator.hardwareConcurrency) continue;
    points.push(cell.point);
    weights = cell.weights;
  }
  if (points.length > 0) {
    const costs = new WorkCosts(points);
    if (points.some(({ method, length }) => costs.tells(method, length))) return { costs, weights };
  }
  throw new UsageError(
    `Cannot plan by "${source}": it holds no method at two lengths of this model, backend and machine; run bench matrix`,
  );
}

/** How methods are named in {@link fitMeasured}. */
export function measuredName(policy: string, index: string): string {
  return index === "" ? policy : `${policy}@${index}`;
}

/** The fields of the matrix's cells that costs are fitted to. */
export interface CellCosts {
  /** What ran. */
  readonly spec: { readonly policy: string; readonly index: string; readonly length: number };
  /** Of decode steps; the ratio's median first. */
  readonly speed: { readonly exactMs: number; readonly ratio: readonly number[] };
  /** Bytes that a decoded token reads. */
  readonly work: { readonly rowBytes: number; readonly indexBytes: number };
  /** What the structure took. */
  readonly build: { readonly settleMs: number; readonly threadSeconds: number };
  /** Bytes. */
  readonly memory: { readonly index: number };
}

/** What costs are fitted to, of one cell. Throws `TypeError` for what is not a number, or a time of 0. */
export function workPointOf({ spec, speed, work, build, memory }: CellCosts): WorkPoint {
  const numbers = {
    length: Number(spec.length),
    exactMs: Number(speed.exactMs),
    ratio: Number(speed.ratio[0]),
    rowBytes: Number(work.rowBytes),
    readBytes: Number(work.indexBytes),
    buildMs: Number(build.settleMs),
    indexBytes: Number(memory.index),
  };
  if (!Object.values(numbers).every((value) => Number.isFinite(value) && value >= 0)) {
    throw new TypeError("not a number");
  }
  if (numbers.length === 0 || numbers.exactMs === 0 || numbers.ratio === 0) {
    throw new TypeError("a length or time of 0");
  }
  const method = measuredName(String(spec.policy), String(spec.index));
  return { method, ...numbers, isBuilt: Number(build.threadSeconds) > 0 };
}

interface MeasuredCell extends MeasuredPlace {
  readonly cpu: string;
  readonly cores: number;
  readonly weights: number;
  readonly point: WorkPoint;
}

/** Undefined for lines that are no cells; throws {@link UsageError} for cells that lack what is needed. */
function parseLine(line: string, source: string, number: number): MeasuredCell | undefined {
  try {
    const cell = JSON.parse(line);
    if (cell.kind !== "cell") return undefined;
    const { spec, machine, memory } = cell;
    return {
      backend: String(spec.backend),
      modelHash: String(spec.modelHash),
      cpu: String(machine.cpu),
      cores: Number(machine.cores),
      weights: Number(memory.weights),
      point: workPointOf(cell),
    };
  } catch (error) {
    throw new UsageError(`Cannot read "${source}": line ${number} is no result (${(error as Error).message})`);
  }
}
