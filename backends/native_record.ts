/**
 * Kernels written down in place of called, as `kvasir_commands_run` reads them: one call in place of hundreds, and none of the work that
 * leads to them, where the next step is the same but for a token more in each cache.
 *
 * @module
 */
import type { Activation, Kernels } from "./backend.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import {
  activationCode,
  checkAppends,
  checkFrequencies,
  checkLength,
  checkOpen,
  checkProducts,
  pairingCode,
} from "./native_checks.ts";

/** Codes of the header. */
const CODES = {
  embed: 1,
  rmsNorm: 2,
  addRmsNorm: 3,
  matmul: 4,
  matmulGlu: 5,
  add: 6,
  glu: 7,
  ropeTable: 8,
  rope: 9,
  appendEach: 10,
  attendEach: 11,
} as const;

/** What a recorder calls. */
export interface RecorderOptions {
  /** Those that are called: for kernels that cannot be written down. */
  readonly direct: Kernels;
  /** A tensor's id; throws for one of another backend. */
  readonly id: (tensor: Tensor, what: string) => number;
  /** Runs commands. */
  readonly execute: (commands: Int32Array<ArrayBuffer>, size: number) => void;
}

/** Writes kernels down, runs them, and runs them again. */
export class Recorder {
  /** Write down, between `begin` and `end`. */
  readonly kernels: Kernels;
  readonly #options: RecorderOptions;
  #ints = new Int32Array(1 << 12);
  #floats = new Float32Array(this.#ints.buffer);
  #size = 0;
  /** Where the running command's count goes. */
  #countAt = 0;
  /** Rows to append to, and counts of the segments they are in. */
  #growing: number[] = [];
  #isWhole = true;
  #isRecording = false;

  constructor(options: RecorderOptions) {
    this.#options = options;
    this.kernels = this.#recording(options.direct);
  }

  /** Kernels are written down from now on. */
  get isRecording(): boolean {
    return this.#isRecording;
  }

  /** Forgets what was written down, and begins. */
  begin(): void {
    this.#size = 0;
    this.#growing.length = 0;
    this.#isWhole = true;
    this.#isRecording = true;
  }

  /** Runs what was written down so far, for somebody who needs it now: it cannot be run again. */
  flush(): void {
    this.#isWhole = false;
    const size = this.#size;
    this.#size = 0;
    if (size > 0) this.#options.execute(this.#ints, size);
  }

  /** Runs what was written down; whether it can be run again. */
  end(): boolean {
    this.#isRecording = false;
    this.#options.execute(this.#ints, this.#size);
    return this.#isWhole;
  }

  /** Forgets what was written down. */
  drop(): void {
    this.#isRecording = false;
    this.#isWhole = false;
    this.#size = 0;
  }

  /** Runs it again, with so many tokens more in each cache than the last time. */
  again(tokens: number): void {
    const ints = this.#ints;
    for (const at of this.#growing) ints[at] = (ints[at] as number) + tokens;
    this.#options.execute(ints, this.#size);
  }

  #begin(code: number): void {
    this.#put(code);
    this.#countAt = this.#size;
    this.#put(0);
  }

  #finish(): void {
    this.#ints[this.#countAt] = this.#size - this.#countAt - 1;
  }

  #room(): void {
    if (this.#size + 2 <= this.#ints.length) return;
    const ints = new Int32Array(2 * this.#ints.length);
    ints.set(this.#ints);
    this.#ints = ints;
    this.#floats = new Float32Array(ints.buffer);
  }

  #put(value: number): void {
    this.#room();
    this.#ints[this.#size++] = value;
  }

  #real(value: number): void {
    this.#room();
    this.#floats[this.#size++] = value;
  }

  #id(tensor: Tensor, what: string): void {
    this.#put(this.#options.id(tensor, what));
  }

  #segment(s: KvSegment): void {
    this.#put(s.start);
    this.#put(s.count);
    this.#id(s.keys, "cache keys");
    this.#id(s.values, "cache values");
    if (s.keyScales === undefined) this.#put(0);
    else this.#id(s.keyScales, "cache scales");
    if (s.valueScales === undefined) this.#put(0);
    else this.#id(s.valueScales, "cache scales");
  }

  /** The direct kernels behind a flush, but for those that are written down. */
  #recording(direct: Kernels): Kernels {
    const flushed: Record<string, unknown> = {};
    for (const [name, kernel] of Object.entries(direct)) {
      flushed[name] = (...args: unknown[]) => {
        this.flush();
        return (kernel as (...args: unknown[]) => unknown)(...args);
      };
    }
    return { ...flushed as unknown as Kernels, ...this.#layers(), ...this.#caches() };
  }

  /** A kernel of tensors, named for errors, and of what `rest` writes. */
  #write(name: keyof typeof CODES, tensors: Readonly<Record<string, Tensor>>, rest?: () => void): void {
    this.#begin(CODES[name]);
    for (const [what, tensor] of Object.entries(tensors)) this.#id(tensor, `${name} ${what}`);
    rest?.();
    this.#finish();
  }

  #layers(): Partial<Kernels> {
    const activationOf = (activation: Activation) => () => this.#put(activationCode(activation));
    return {
      embed: (out, table, tokens, scale) => this.#write("embed", { out, table, tokens }, () => this.#real(scale)),
      rmsNorm: (out, x, weight, epsilon) => this.#write("rmsNorm", { out, x, weight }, () => this.#real(epsilon)),
      addRmsNorm: (out, x, y, weight, epsilon) =>
        this.#write("addRmsNorm", { out, x, y, weight }, () => this.#real(epsilon)),
      matmul: (outs, x, ws) => {
        checkProducts(outs, ws);
        this.#write("matmul", { x }, () => {
          this.#put(ws.length);
          for (const out of outs) this.#id(out, "matmul out");
          for (const w of ws) this.#id(w, "matmul weight");
        });
      },
      matmulGlu: (out, x, gate, up, activation) =>
        this.#write("matmulGlu", { out, x, gate, up }, activationOf(activation)),
      add: (out, x, y) => this.#write("add", { out, x, y }),
      glu: (out, gate, up, activation) => this.#write("glu", { out, gate, up }, activationOf(activation)),
      ropeTable: (out, positions, rope) => {
        checkFrequencies(rope);
        const { frequencies, dims, magnitude } = rope;
        this.#write("ropeTable", { out, positions }, () => {
          this.#put(dims);
          this.#real(magnitude);
          for (const half of new Int32Array(Float64Array.from(frequencies).buffer)) this.#put(half);
        });
      },
      rope: (xs, table, pairing) =>
        this.#write("rope", { table }, () => {
          this.#put(pairingCode(pairing));
          this.#put(xs.length);
          for (const x of xs) this.#id(x, "rope x");
        }),
    };
  }

  #caches(): Partial<Kernels> {
    return {
      appendEach: (segments, rows, k, v) => {
        checkAppends(segments, rows);
        this.#write("appendEach", { k, v }, () => {
          this.#put(segments.length);
          for (const row of rows) {
            this.#growing.push(this.#size);
            this.#put(row);
          }
          for (const segment of segments) {
            checkOpen(segment);
            this.#segment(segment);
          }
        });
      },
      attendEach: (out, q, caches) => {
        const { scale, softcap, slidingWindow } = caches[0]?.shape ?? { scale: 1 };
        this.#write("attendEach", { out, q }, () => {
          this.#real(scale);
          this.#real(softcap ?? 0);
          this.#put(slidingWindow ?? 0);
          this.#put(caches.length);
          for (const { segments } of caches) this.#put(segments.length);
          for (const cache of caches) this.#segmentsOf(cache);
        });
      },
    };
  }

  /** The last one that holds something is where the last token went. */
  #segmentsOf(kv: KvLayer): void {
    let sum = 0;
    let growing = 0;
    for (const segment of kv.segments) {
      if (segment.count > 0) growing = this.#size + 1;
      this.#segment(segment);
      sum += segment.count;
    }
    checkLength(kv, sum);
    if (growing > 0) this.#growing.push(growing);
  }
}
