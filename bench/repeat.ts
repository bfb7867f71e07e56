/**
 * What stays when cells of the matrix are run again:
 *
 *     deno run -A bench/repeat.ts first.jsonl second.jsonl
 *
 * Answers and work of equal seeds must be equal to the last bit, and the speed beside exact attention within a tenth. One line
 * a cell and a summary, as JSON; ends with 1 where an answer differs.
 *
 * @module
 */
import { median } from "../core/median.ts";
import { parseCells } from "./matrix/store.ts";
import { type Cell, cellName } from "./matrix/cell.ts";

const [first, second] = Deno.args;
if (first === undefined || second === undefined) {
  console.error("Usage: bench/repeat.ts FIRST.jsonl SECOND.jsonl");
  Deno.exit(2);
}

const again = new Map(read(second).map((cell) => [cell.key, cell]));
/** Logarithms. */
const changes: number[] = [];
let [cells, different] = [0, 0];
for (const cell of read(first)) {
  const other = again.get(cell.key);
  if (other === undefined) continue;
  cells++;
  const isEqual = (["quality", "headErrors", "work"] as const).every((part) =>
    JSON.stringify(cell[part]) === JSON.stringify(other[part])
  );
  if (!isEqual) different++;
  const change = other.speed.ratio[0] / cell.speed.ratio[0];
  changes.push(Math.abs(Math.log(change)));
  console.log(JSON.stringify({ cell: cellName(cell.spec), isEqual, speedRatio: change }));
}
const beyond = changes.filter((change) => change > Math.log(1.1)).length;
console.log(JSON.stringify({
  cells,
  different,
  timed: changes.length,
  medianSpeedChange: changes.length === 0 ? null : Math.expm1(median(changes)),
  beyondTenth: beyond,
}));
if (cells === 0) {
  console.error(`No cell of "${first}" is in "${second}"`);
  Deno.exit(1);
}
if (different > 0) Deno.exit(1);

function read(path: string): readonly Cell[] {
  return parseCells(Deno.readTextFileSync(path), path);
}
