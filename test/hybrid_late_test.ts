/**
 * A hybrid whose device is behind: what is on its way to the host and back, in which order, and that nobody reads it too early.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import type { Tensor } from "../core/tensor.ts";
import type { BackendType } from "../backends/backend.ts";
import { cpu } from "../backends/cpu.ts";
import { hybrid, HybridBackend } from "../backends/hybrid.ts";
import { openBackend } from "../backends/mod.ts";
import { lateDevice, type LateLog } from "./late_device.ts";
import { load, run } from "./policy_fixture.ts";

const HEADS = 2, DIM = 4, ROWS = 6;

const newLog = (): LateLog => ({ done: [], fetches: 0, waits: 0 });

/** One layer of six rows, and what a step does with it. */
class Layer implements Disposable {
  readonly backend: HybridBackend;
  readonly kv;
  readonly #drop: (() => void)[] = [];

  constructor(readonly log: LateLog, refuse?: (name: string) => void, isLate = true) {
    const device = openBackend("cpu:threads=1");
    const host = openBackend("cpu:threads=1");
    const near = isLate ? lateDevice(device, log, refuse) : device;
    this.backend = new HybridBackend(near, host, { codes: "host", keep: 64 });
    const rows = () => {
      const tensor = this.backend.alloc([HEADS, 8, DIM], "f32", "sequence");
      this.#drop.push(() => this.backend.free(tensor));
      return tensor;
    };
    const segment = { start: 0, count: 0, sealed: false, keys: rows(), values: rows() };
    const k = this.backend.alloc([ROWS, HEADS, DIM], "f32", "step");
    this.backend.write(k, Float32Array.from({ length: ROWS * HEADS * DIM }, (_, i) => Math.sin(i)));
    this.backend.kernels.append(segment, 0, k, k);
    segment.count = ROWS;
    this.backend.endStep();
    const shape = { heads: HEADS, kvHeads: HEADS, headDim: DIM, scale: 0.5 };
    this.kv = { shape, length: ROWS, segments: [segment] };
  }

  /** Attention of a query to the last two rows, or what `between` makes of it, and to hits among the others. */
  step(
    first: number,
    between: (step: { q: Tensor; o: Tensor; lse: Tensor }) => void,
  ) {
    const { backend } = this;
    const { attendWindow, attendTopk, merge } = backend.kernels as Required<typeof backend.kernels>;
    const q = backend.alloc([1, HEADS, DIM], "f32", "step");
    backend.write(q, Float32Array.from({ length: HEADS * DIM }, (_, i) => first + Math.cos(i)));
    const near = this.part(), far = this.part(), out = this.part().o;
    attendWindow(near, q, this.kv, Int32Array.of(4, ROWS));
    between({ q, ...near });
    const hits = {
      tokens: backend.alloc([HEADS, 3], "i32", "sequence"),
      counts: backend.alloc([HEADS], "i32", "sequence"),
    };
    backend.write(hits.tokens, Int32Array.of(0, 1, 3, 1, 2, 3));
    backend.write(hits.counts, Int32Array.of(3, 2));
    attendTopk(far, q, this.kv, hits);
    merge(out, [near, far]);
    const waits = this.log.waits;
    const result = [...backend.read(out), ...backend.read(near.lse), ...backend.read(far.lse)];
    for (const tensor of Object.values(hits)) backend.free(tensor);
    backend.endStep();
    return { result, waits };
  }

  part() {
    const alloc = (shape: number[]) => this.backend.alloc(shape, "f32", "step");
    return { o: alloc([1, HEADS, DIM]), lse: alloc([1, HEADS]) };
  }

  /** A number of the copy that an index on the host would get. */
  input(tensor: Tensor): number {
    const at = this.backend.host?.input(tensor);
    assert(at !== null && at !== undefined);
    return new Deno.UnsafePointerView(at).getFloat32();
  }

  /** As a search does. */
  ask({ q, lse }: { q: Tensor; lse: Tensor }): void {
    this.input(q);
    this.input(lse);
  }

  [Symbol.dispose](): void {
    for (const drop of this.#drop) drop();
    this.backend[Symbol.dispose]();
  }
}

describe("a hybrid whose device is behind", () => {
  it("has the query on the host before the window was attended to, and waits for nothing on the way up", () => {
    const log = newLog();
    using layer = new Layer(log);
    using other = new Layer(newLog(), undefined, false);
    for (const turn of [0, 1, 2]) {
      const { result, waits } = layer.step(turn, ({ q, lse }) => {
        log.done.length = 0;
        assertEquals(layer.input(q), Math.fround(turn + 1));
        // Nobody had asked before the first time.
        assertEquals(log.done.includes("attendWindow"), turn === 0, log.done.join());
        layer.input(lse);
        assert(log.done.includes("attendWindow"));
        log.done.length = log.waits = 0;
      });
      assertEquals([log.fetches, waits], [0, turn === 0 ? 1 : 0]);
      // What came up is merged after it was written, though nobody waited for either.
      const [writes, merge] = [log.done.lastIndexOf("write"), log.done.lastIndexOf("merge")];
      assert(writes >= 0 && writes < merge, log.done.join());
      assertEquals(result, other.step(turn, () => {}).result);
    }
  });

  it("gives the host what a query is, not what it was", () => {
    const log = newLog();
    using layer = new Layer(log);
    const { backend } = layer;
    const changes: ((q: Tensor, o: Tensor) => void)[] = [
      (q) => backend.kernels.add(q, q, q),
      (q) => backend.write(q, new Float32Array(HEADS * DIM).fill(2)),
      (q, o) => backend.kernels.copy(q, 0, o, 0, HEADS * DIM),
      (q) => backend.kernels.attendCausal(q, q, layer.kv),
    ];
    for (const change of changes) {
      layer.step(0, (asked) => layer.ask(asked));
      layer.step(0, ({ q, o }) => {
        assertEquals(log.fetches, 2);
        change(q, o);
        const [seen, is] = [layer.input(q), backend.read(q)[0]];
        assertEquals(seen, is);
        assert(seen !== 1, "nothing changed");
      });
      assertEquals(log.fetches, 0);
    }
    // The part of a window that is attended to again.
    layer.step(0, (asked) => layer.ask(asked));
    layer.step(0, ({ q, lse }) => {
      assertEquals(log.fetches, 2);
      const { attendWindow } = backend.kernels as Required<typeof backend.kernels>;
      const before = layer.input(lse);
      attendWindow({ o: layer.part().o, lse }, q, layer.kv, Int32Array.of(0, ROWS));
      assert(layer.input(lse) > before);
    });
  });

  it("brings nothing down that nobody asked for the last time", () => {
    const log = newLog();
    using layer = new Layer(log);
    const { attendWindow } = layer.backend.kernels as Required<typeof layer.backend.kernels>;
    const q = layer.part().o;
    const look = () => attendWindow(layer.part(), q, layer.kv, Int32Array.of(0, ROWS));
    look();
    assertEquals(log.fetches, 0);
    layer.input(q);
    look();
    assertEquals(log.fetches, 2);
    look();
    assertEquals(log.fetches, 0);
  });

  it("frees what it had begun when a call fails", () => {
    const log = newLog();
    let refused = "", left = 0;
    const refuse = (name: string) => {
      if (name === refused && left-- === 0) throw new RangeError(`no ${name}`);
    };
    using layer = new Layer(log, refuse);
    // The window behind the query's copy, the sums' copy behind the window, the result that goes up.
    for (const [name, before] of [["attendWindow", 0], ["fetch", 1], ["write", 1]] as const) {
      layer.step(0, (asked) => layer.ask(asked));
      assertThrows(
        () => {
          [refused, left] = name === "write" ? ["", 0] : [name, before];
          layer.step(0, () => {
            assertEquals(log.fetches, 2);
            // The second of the result, its sums.
            [refused, left] = ["write", before];
          });
        },
        RangeError,
        `no ${name}`,
      );
      refused = "";
      assertEquals(log.fetches, 0, name);
      layer.backend.endStep();
    }
    layer.step(0, (asked) => layer.ask(asked));
  });

  it("computes what one does whose device is not", async () => {
    const log = newLog();
    const late: BackendType = { ...cpu, open: (params) => lateDevice(cpu.open(params), log) };
    const backends = { "hybrid-late": hybrid({ cpu, late }) };
    // A prompt whose earlier rows come up in pieces, and steps that search on the host.
    for (const keep of [0, 64]) {
      using loaded = await load(`hybrid-late:device=late,host=cpu,keep=${keep}`, backends);
      using other = await load(`hybrid:device=cpu,host=cpu,keep=${keep}`);
      for (
        const policy of [
          "retrieval:error=0.2,min_length=0,sinks=4,window=16",
          "retrieval:budget=9,min_length=0,window=16",
        ]
      ) {
        const options = { policy, index: "flat:codes=int8" };
        const [mine, theirs] = [run(loaded, options), run(other, options)];
        assertEquals(mine.logits, theirs.logits);
        assertEquals(mine.stats, theirs.stats);
        assertEquals(log.fetches, 0);
      }
    }
    assert(log.done.includes("fetch"));
  });
});
