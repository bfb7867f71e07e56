import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Tensor } from "../core/tensor.ts";
import type { Backend, Fetched } from "./backend.ts";
import { openBackend } from "./mod.ts";
import { RowStream } from "./hybrid_stream.ts";

/** A device whose copies land when they are taken, and what became of each. */
function slowDevice(inner: Backend): { device: Pick<Backend, "read" | "fetch">; log: string[] } {
  const log: string[] = [];
  const fetch = (src: Tensor): Fetched => {
    const data = inner.read(src);
    const name = `${data[0]}`;
    log.push(`fetch ${name}`);
    return { take: () => (log.push(`take ${name}`), data), [Symbol.dispose]: () => void log.push(`end ${name}`) };
  };
  return { device: { read: (src) => inner.read(src), fetch }, log };
}

describe("rows on their way to the host", () => {
  const segmentOf = (host: Backend, start = 0) => ({
    start,
    count: 0,
    sealed: false,
    keys: host.alloc([1, 4, 2], "f32", "sequence"),
    values: host.alloc([1, 4, 2], "f32", "sequence"),
  });
  const rowsOf = (host: Backend, first: number) => {
    const made = host.alloc([1, 1, 2], "f32", "step");
    host.write(made, Float32Array.of(first, first));
    return made;
  };

  it("are taken up in the order of their appending, but for those that are left", () => {
    using host = openBackend("reference");
    const { device, log } = slowDevice(host);
    const stream = new RowStream(device, host);
    const segment = segmentOf(host);
    host.write(segment.keys, new Float32Array(8));
    for (const row of [0, 1, 1]) {
      stream.append(segment, row, rowsOf(host, 10 * log.length), rowsOf(host, 10 * log.length + 5));
    }
    assertEquals(log, ["fetch 0", "fetch 5", "fetch 20", "fetch 25", "fetch 40", "fetch 45"]);
    assertEquals([...host.read(segment.keys)].slice(0, 4), [0, 0, 0, 0]);
    stream.settle(1);
    assertEquals([...host.read(segment.keys)].slice(0, 4), [0, 0, 20, 20]);
    stream.settle();
    assertEquals([...host.read(segment.keys)].slice(0, 4), [0, 0, 40, 40]);
    assertEquals([...host.read(segment.values)].slice(0, 4), [5, 5, 45, 45]);
    assertEquals(log.filter((line) => line.startsWith("take")).length, 6);
  });

  it("are dropped with the segment they go to, and refused at once where they do not fit", () => {
    using host = openBackend("reference");
    const { device, log } = slowDevice(host);
    const stream = new RowStream(device, host);
    const [gone, stays] = [segmentOf(host), segmentOf(host, 4)];
    stream.append(gone, 0, rowsOf(host, 1), rowsOf(host, 2));
    stream.append(stays, 0, rowsOf(host, 3), rowsOf(host, 4));
    stream.forget(gone.keys);
    host.free(gone.keys);
    stream.settle();
    assertEquals(log.filter((line) => line.startsWith("take")), ["take 3", "take 4"]);
    assertEquals(log.filter((line) => line.startsWith("end")).sort(), ["end 1", "end 2", "end 3", "end 4"]);
    const k = rowsOf(host, 5);
    assertThrows(() => stream.append(stays, 4, k, k), RangeError, "room for 4");
    assertThrows(() => stream.append(stays, 0, k, host.alloc([1, 1, 3], "f32", "step")), RangeError, "[1,1,3]");
    assertThrows(() => stream.append({ ...stays, sealed: true }, 0, k, k), RangeError, "sealed");
    stream.settle();
    assertEquals(log.at(-1), "end 3");
  });
});
