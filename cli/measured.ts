/**
 * Costs that the benchmark matrix measured on this machine: what `plan --measured` predicts by.
 *
 * @module
 */
import os from "node:os";
import { CostModel, type CostPoint } from "../engine/cost_model.ts";
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
  /** By {@link measuredName}. */
  readonly models: ReadonlyMap<string, CostModel>;
  /** Bytes of the model's weights in memory. */
  readonly weights: number;
}

/** Fits costs of `kvasir bench matrix` by method, named by canonical policy and index; methods of one length only are left out. */
export function fitMeasured(text: string, source: string, place: MeasuredPlace): MeasuredCosts {
  let weights = 0;
  const exactMs = new Map<number, number[]>();
  const points = new Map<string, CostPoint[]>();
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const cell = parseLine(line, source, i + 1);
    if (cell === undefined || cell.backend !== place.backend || cell.modelHash !== place.modelHash) continue;
    if (cell.cpu !== os.cpus()[0]?.model || cell.cores !== navigator.hardwareConcurrency) continue;
    const own = points.get(cell.method) ?? [];
    points.set(cell.method, own);
    own.push(cell.point);
    const exact = exactMs.get(cell.point.length) ?? [];
    exactMs.set(cell.point.length, exact);
    exact.push(cell.exactMs);
    weights = cell.weights;
  }
  const models = new Map<string, CostModel>();
  for (const [method, own] of points) {
    if (new Set(own.map((point) => point.length)).size < 2) continue;
    // Paired ratios are steadier than times: another minute may be twice as fast.
    const timed = own.map((point) => ({
      ...point,
      msPerToken: median(exactMs.get(point.length) ?? []) / point.msPerToken,
    }));
    models.set(method, new CostModel(timed));
  }
  if (models.size > 0) return { models, weights };
  throw new UsageError(
    `Cannot plan by "${source}": it holds no method at two lengths of this model, backend and machine; run bench matrix`,
  );
}

/** How methods are named in {@link fitMeasured}. */
export function measuredName(policy: string, index: string): string {
  return index === "" ? policy : `${policy}@${index}`;
}

interface MeasuredCell extends MeasuredPlace {
  readonly method: string;
  readonly cpu: string;
  readonly cores: number;
  readonly weights: number;
  readonly exactMs: number;
  readonly point: CostPoint;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}

/** Undefined for lines that are no cells; throws {@link UsageError} for cells that lack what is needed. */
function parseLine(line: string, source: string, number: number): MeasuredCell | undefined {
  try {
    const { kind, spec, machine, speed, build, memory } = JSON.parse(line);
    if (kind !== "cell") return undefined;
    const point = {
      length: Number(spec.length),
      // Exact over own, until exact attention's times are known.
      msPerToken: Number(speed.ratio[0]),
      buildMs: Number(build.settleMs),
      indexBytes: Number(memory.index),
    };
    if (![...Object.values(point), Number(speed.exactMs)].every((value) => Number.isFinite(value) && value >= 0)) {
      throw new TypeError("not a number");
    }
    return {
      method: measuredName(String(spec.policy), String(spec.index)),
      backend: String(spec.backend),
      modelHash: String(spec.modelHash),
      cpu: String(machine.cpu),
      cores: Number(machine.cores),
      weights: Number(memory.weights),
      exactMs: Number(speed.exactMs),
      point,
    };
  } catch (error) {
    throw new UsageError(`Cannot read "${source}": line ${number} is no result (${(error as Error).message})`);
  }
}
