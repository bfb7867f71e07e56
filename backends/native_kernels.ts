/**
 * Kernels of a native context: ids and numbers in, a status out.
 *
 * @module
 */
import type { AttentionPart, Kernels } from "./backend.ts";
import type { KvLayer, KvSegment } from "../core/kv.ts";
import type { Tensor } from "../core/tensor.ts";
import { type Context, errorOf, type Library } from "./ffi.ts";
import {
  activationCode,
  checkAppends,
  checkFrequencies,
  checkLength,
  checkOpen,
  checkProducts,
  pairingCode,
} from "./native_checks.ts";

/** Fields of a segment in the table that caches travel as: start, count, keys, values and their scales. */
const SEGMENT_FIELDS = 6;
const SAMPLE_FIELDS = 6;

/** What is no i32 would make the call itself throw, without saying what it was. */
function checkRow(row: number): void {
  if ((row | 0) !== row) throw new RangeError(`Cannot use row ${row}: it is no row number`);
}

function checkEvery(every: number): void {
  if ((every | 0) !== every || every < 1) {
    throw new RangeError(`Cannot fill prompt sink: every ${every}-th query, expected a whole number from 1 on`);
  }
}

/** `open` gives the context or throws once it is gone; `id` resolves a tensor of this backend, 0 for one destroyed. */
export function nativeKernels(
  library: Library,
  open: () => Context,
  id: (tensor: Tensor, what: string) => number,
): Kernels {
  const native = library.symbols;
  const check = (status: number) => {
    if (status !== 0) throw errorOf(library, status);
  };
  // Argument buffers, borrowed by the library during a call only; they grow and are kept.
  let targets = new Uint32Array(8);
  let weights = new Uint32Array(8);
  let table = new Int32Array(8 * SEGMENT_FIELDS);
  let counts = new Int32Array(8);
  let sampling = new Float64Array(8 * SAMPLE_FIELDS);

  const fillSegment = (at: number, s: KvSegment) => {
    table[at] = s.start;
    table[at + 1] = s.count;
    table[at + 2] = id(s.keys, "cache keys");
    table[at + 3] = id(s.values, "cache values");
    table[at + 4] = s.keyScales === undefined ? 0 : id(s.keyScales, "cache scales");
    table[at + 5] = s.valueScales === undefined ? 0 : id(s.valueScales, "cache scales");
  };
  // Behind `before` segments of other caches.
  const fillTable = (kv: KvLayer, before = 0): number => {
    const count = kv.segments.length;
    makeRoom(before + count);
    let length = 0;
    for (let i = 0; i < count; i++) {
      const segment = kv.segments[i] as KvSegment;
      fillSegment((before + i) * SEGMENT_FIELDS, segment);
      length += segment.count;
    }
    checkLength(kv, length);
    return count;
  };
  const makeRoom = (segments: number) => {
    if (segments * SEGMENT_FIELDS <= table.length) return;
    const before = table;
    table = new Int32Array(2 * segments * SEGMENT_FIELDS);
    table.set(before);
  };

  const fillParts = (parts: readonly AttentionPart[]): void => {
    if (2 * parts.length > targets.length) targets = new Uint32Array(4 * parts.length);
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i] as AttentionPart;
      targets[2 * i] = id(part.o, "merge o");
      targets[2 * i + 1] = id(part.lse, "merge lse");
    }
  };

  return {
    embed: (out, table, tokens, scale) =>
      check(
        native.kvasir_embed(open(), id(out, "embed out"), id(table, "embed table"), id(tokens, "embed tokens"), scale),
      ),
    rmsNorm: (out, x, weight, epsilon) =>
      check(
        native.kvasir_rms_norm(
          open(),
          id(out, "rmsNorm out"),
          id(x, "rmsNorm x"),
          id(weight, "rmsNorm weight"),
          epsilon,
        ),
      ),
    addRmsNorm: (out, x, y, weight, epsilon) =>
      check(
        native.kvasir_add_rms_norm(
          open(),
          id(out, "addRmsNorm out"),
          id(x, "addRmsNorm x"),
          id(y, "addRmsNorm y"),
          id(weight, "addRmsNorm weight"),
          epsilon,
        ),
      ),
    matmul(to, x, ws) {
      checkProducts(to, ws);
      if (ws.length > targets.length) targets = new Uint32Array(2 * ws.length);
      if (ws.length > weights.length) weights = new Uint32Array(2 * ws.length);
      for (let i = 0; i < ws.length; i++) {
        targets[i] = id(to[i] as Tensor, "matmul out");
        weights[i] = id(ws[i] as Tensor, "matmul weight");
      }
      check(native.kvasir_matmul(open(), targets, id(x, "matmul x"), weights, ws.length));
    },
    matmulGlu: (out, x, gate, up, activation) =>
      check(
        native.kvasir_matmul_glu(
          open(),
          id(out, "matmulGlu out"),
          id(x, "matmulGlu x"),
          id(gate, "matmulGlu gate"),
          id(up, "matmulGlu up"),
          activationCode(activation),
        ),
      ),
    add: (out, x, y) => check(native.kvasir_add(open(), id(out, "add out"), id(x, "add x"), id(y, "add y"))),
    glu: (out, gate, up, activation) =>
      check(
        native.kvasir_glu(
          open(),
          id(out, "glu out"),
          id(gate, "glu gate"),
          id(up, "glu up"),
          activationCode(activation),
        ),
      ),
    ropeTable(out, positions, rope) {
      checkFrequencies(rope);
      const frequencies = rope.frequencies as Float64Array<ArrayBuffer>;
      check(
        native.kvasir_rope_table(
          open(),
          id(out, "ropeTable out"),
          id(positions, "ropeTable positions"),
          frequencies,
          rope.dims,
          rope.magnitude,
        ),
      );
    },
    rope(xs, angles, pairing) {
      if (xs.length > targets.length) targets = new Uint32Array(2 * xs.length);
      for (let i = 0; i < xs.length; i++) targets[i] = id(xs[i] as Tensor, "rope x");
      check(native.kvasir_rope(open(), targets, xs.length, id(angles, "rope table"), pairingCode(pairing)));
    },
    copy: (dst, at, src, from, count) =>
      check(native.kvasir_tensor_copy(open(), id(dst, "copy to"), at, id(src, "copy from"), from, count)),
    append(segment, row, k, v) {
      checkOpen(segment);
      checkRow(row);
      fillSegment(0, segment);
      check(native.kvasir_append(open(), table, row, id(k, "append k"), id(v, "append v")));
    },
    appendEach(segments, rows, k, v) {
      checkAppends(segments, rows);
      makeRoom(segments.length);
      for (let i = 0; i < segments.length; i++) {
        const segment = segments[i] as KvSegment;
        checkOpen(segment);
        fillSegment(i * SEGMENT_FIELDS, segment);
      }
      check(native.kvasir_append_each(open(), table, rows, segments.length, id(k, "append k"), id(v, "append v")));
    },
    attendEach(out, q, caches) {
      if (caches.length > counts.length) counts = new Int32Array(2 * caches.length);
      let segments = 0;
      for (let i = 0; i < caches.length; i++) segments += counts[i] = fillTable(caches[i] as KvLayer, segments);
      const first = caches[0];
      check(
        native.kvasir_attend_each(
          open(),
          id(out, "attendEach out"),
          id(q, "attendEach q"),
          table,
          counts,
          caches.length,
          first?.shape.scale ?? 1,
          first?.shape.softcap ?? 0,
          first?.shape.slidingWindow ?? 0,
        ),
      );
    },
    attendCausal(out, q, kv, sink) {
      const count = fillTable(kv);
      const { scale, softcap, slidingWindow } = kv.shape;
      if (sink !== undefined) {
        const { every, tokens, scores, columnSums } = sink;
        checkEvery(every);
        return check(
          native.kvasir_attend_causal_sink(
            open(),
            id(out, "attendCausal out"),
            id(q, "attendCausal q"),
            table,
            count,
            scale,
            softcap ?? 0,
            slidingWindow ?? 0,
            every,
            tokens === undefined ? 0 : id(tokens, "sink tokens"),
            scores === undefined ? 0 : id(scores, "sink scores"),
            columnSums === undefined ? 0 : id(columnSums, "sink column sums"),
          ),
        );
      }
      check(
        native.kvasir_attend_causal(
          open(),
          id(out, "attendCausal out"),
          id(q, "attendCausal q"),
          table,
          count,
          scale,
          softcap ?? 0,
          slidingWindow ?? 0,
        ),
      );
    },
    attendCausalPart(out, q, kv) {
      const count = fillTable(kv);
      const { scale, softcap, slidingWindow } = kv.shape;
      check(
        native.kvasir_attend_causal_part(
          open(),
          id(out.o, "attendCausalPart o"),
          id(out.lse, "attendCausalPart lse"),
          id(q, "attendCausalPart q"),
          table,
          count,
          scale,
          softcap ?? 0,
          slidingWindow ?? 0,
        ),
      );
    },
    attendWindow(out, q, kv, spans) {
      if (spans.length % 2 !== 0) {
        throw new RangeError(`Cannot attend: spans of ${spans.length} numbers, expected pairs`);
      }
      const count = fillTable(kv);
      check(
        native.kvasir_attend_window(
          open(),
          id(out.o, "attendWindow o"),
          id(out.lse, "attendWindow lse"),
          id(q, "attendWindow q"),
          table,
          count,
          kv.shape.scale,
          kv.shape.softcap ?? 0,
          spans,
          spans.length / 2,
        ),
      );
    },
    attendTopk(out, q, kv, hits) {
      const count = fillTable(kv);
      check(
        native.kvasir_attend_topk(
          open(),
          id(out.o, "attendTopk o"),
          id(out.lse, "attendTopk lse"),
          id(q, "attendTopk q"),
          table,
          count,
          kv.shape.scale,
          kv.shape.softcap ?? 0,
          id(hits.tokens, "attendTopk tokens"),
          id(hits.counts, "attendTopk counts"),
          hits.bias === undefined ? 0 : id(hits.bias, "attendTopk bias"),
        ),
      );
    },
    merge(out, parts) {
      fillParts(parts);
      check(native.kvasir_merge(open(), id(out, "merge out"), targets, parts.length));
    },
    mergeParts(out, parts) {
      fillParts(parts);
      const [o, lse] = [id(out.o, "merged o"), id(out.lse, "merged lse")];
      check(native.kvasir_merge_parts(open(), o, lse, targets, parts.length));
    },
    addLogits(logits, row, ids, values) {
      checkRow(row);
      if (ids.length !== values.length) {
        throw new RangeError(`Cannot add to logits: ${ids.length} ids, ${values.length} values`);
      }
      check(native.kvasir_add_logits(open(), id(logits, "logits"), row, ids, values, ids.length));
    },
    penalize(logits, row, { tokens, counts, repetition, presence, frequency }) {
      checkRow(row);
      if (tokens.length !== counts.length) {
        throw new RangeError(`Cannot penalize: ${tokens.length} tokens, ${counts.length} counts`);
      }
      check(
        native.kvasir_penalize(
          open(),
          id(logits, "logits"),
          row,
          tokens,
          counts,
          tokens.length,
          repetition,
          presence,
          frequency,
        ),
      );
    },
    sample(out, logits, params) {
      if (params.length !== logits.shape[0]) {
        throw new RangeError(`Cannot sample: ${logits.shape[0]} rows, ${params.length} parameters`);
      }
      if (params.length * SAMPLE_FIELDS > sampling.length) {
        sampling = new Float64Array(2 * params.length * SAMPLE_FIELDS);
      }
      let at = 0;
      for (const p of params) {
        sampling[at++] = p.temperature;
        sampling[at++] = p.topK;
        sampling[at++] = p.typicalP;
        sampling[at++] = p.topP;
        sampling[at++] = p.minP;
        sampling[at++] = p.uniform;
      }
      check(native.kvasir_sample(open(), id(out, "sample out"), id(logits, "logits"), sampling));
    },
    tokenLogprobs: (out, logits, tokens) =>
      check(
        native.kvasir_token_logprobs(
          open(),
          id(out, "tokenLogprobs out"),
          id(logits, "logits"),
          id(tokens, "tokenLogprobs tokens"),
        ),
      ),
    topLogprobs: (ids, logprobs, logits) =>
      check(
        native.kvasir_top_logprobs(
          open(),
          id(ids, "topLogprobs ids"),
          id(logprobs, "topLogprobs logprobs"),
          id(logits, "logits"),
        ),
      ),
    klDivergence: (out, base, logits) =>
      check(
        native.kvasir_kl_divergence(
          open(),
          id(out, "klDivergence out"),
          id(base, "klDivergence base"),
          id(logits, "logits"),
        ),
      ),
  };
}
