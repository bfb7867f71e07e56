/**
 * One layer of a file of recorded heads as a file of its own, small enough to be carried to a machine with a device:
 *
 *     deno run -A bench/recorded_part.ts gemma3-32k.kvqk --layer 1 --out bench/heads/gemma3-32k.kvqk
 *
 * `--layer` counts the file's layers from 0. Prompt queries are left out: nothing that runs there asks for them.
 *
 * @module
 */
import { RecordedHeads } from "./recorded.ts";
import { encodeTables, planFile, type RecordedHeader } from "./recorded_format.ts";

/** Writes layer `index` of the file at `path` to `out`; returns its bytes. */
export function writePart(path: string, index: number, out: string): number {
  using whole = new RecordedHeads(path);
  const layer = whole.layer(index);
  // A stride that no prompt query meets.
  const header: RecordedHeader = { ...whole.header, stride: whole.header.tokens + 1 };
  const { entries, bytes } = planFile(header, [[layer.layer, layer.shape]]);
  const at = entries[0]!.at;
  using file = Deno.openSync(out, { create: true, write: true, truncate: true });
  const put = (offset: number, array: ArrayBufferView) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    let rest = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    while (rest.length > 0) rest = rest.subarray(file.writeSync(rest));
  };
  put(0, encodeTables(header, entries, bytes));
  const { rope } = layer.shape;
  if (rope !== undefined) put(at.frequencies, Float64Array.from(rope.frequencies));
  put(at.keys, layer.keys);
  put(at.values, layer.values);
  put(at.decodeQueries, layer.decodeQueries);
  put(at.outputs, layer.outputs);
  file.truncateSync(bytes);
  return bytes;
}

if (import.meta.main) {
  const [path, ...rest] = Deno.args;
  const option = (name: string) => rest[rest.indexOf(name) + 1];
  if (path === undefined || !rest.includes("--layer") || !rest.includes("--out")) {
    console.error("usage: recorded_part.ts FILE --layer I --out FILE");
    Deno.exit(2);
  }
  const bytes = writePart(path, Number(option("--layer")), option("--out") as string);
  console.log(`${(bytes / 2 ** 20).toFixed(1)} MiB`);
}
