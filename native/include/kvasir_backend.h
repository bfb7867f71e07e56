/*
 * kvasir_backend.h: the door between Kvasir and a native backend. A native backend is a library that implements this.
 *
 * Rules
 *   Names      kvasir_<noun>_<verb>; context first, output next, inputs last.
 *   Status     every call returns a KVASIR_* status, but kvasir_abi_version and kvasir_context_create; the sentence
 *              behind a failure is kvasir_last_error, per thread. No exception, abort or print crosses.
 *   Handles    tensors are 32-bit ids of one context, checked at every use (a stale or foreign id is
 *              KVASIR_ARGUMENT, never a crash); 0 is no tensor.
 *   Ownership  _create <-> _destroy; every pointer is borrowed until the call returns; outputs go to the caller's memory.
 *   Threads    a context belongs to one thread at a time; two contexts are independent; no globals.
 *   Contents   shapes, ids and positions are checked; a call that fails leaves outputs undefined, never out of bounds.
 *   Unsupported  a kernel a backend lacks returns KVASIR_UNSUPPORTED with a reason.
 * Shape names: see core/tensor.ts. Tensors are row-major, contiguous, at most 4 dimensions.
 */
#ifndef KVASIR_BACKEND_H
#define KVASIR_BACKEND_H
#include "kvasir_abi.h"
#ifdef __cplusplus
extern "C" {
#endif

#define KVASIR_ABI_VERSION 6

/* Lifetimes */
#define KVASIR_MODEL 0    /* weights: may be repacked by kvasir_tensor_write, read only by matmul and embed when block-quantized */
#define KVASIR_SEQUENCE 1 /* caches */
#define KVASIR_STEP 2     /* activations */

/* Activations, pairings */
#define KVASIR_SILU 0
#define KVASIR_GELU 1
#define KVASIR_HALVES 0
#define KVASIR_NEIGHBOURS 1

typedef struct kvasir_context kvasir_context;
typedef uint32_t kvasir_tensor;

/* KVASIR_ABI_VERSION of the library; checked right after loading. */
KVASIR_API int32_t kvasir_abi_version(void);

/* Copies the calling thread's last error sentence, NUL-terminated, into buf [out] of cap bytes. Always KVASIR_OK. */
KVASIR_API int32_t kvasir_last_error(char* buf, int32_t cap);

/* Opens a context. options [in]: "key=value,..." NUL-terminated; unknown keys fail. NULL on failure: see kvasir_last_error. */
KVASIR_API kvasir_context* kvasir_context_create(const char* options);
/* Joins the context's threads and frees all it owns. */
KVASIR_API int32_t kvasir_context_destroy(kvasir_context* ctx);
/* Canonical options in force ("isa=avx512,precision=...,threads=2"), NUL-terminated, into buf [out]. */
KVASIR_API int32_t kvasir_context_describe(kvasir_context* ctx, char* buf, int32_t cap);
/* Live bytes: out [out] double[3] = model, sequence, step. */
KVASIR_API int32_t kvasir_context_bytes(kvasir_context* ctx, double* out);
/* Measured read bandwidth over `megabytes` of memory with all threads: out [out] double[1], GB/s. */
KVASIR_API int32_t kvasir_context_bandwidth(kvasir_context* ctx, double* out, int32_t megabytes);
/* Up to `bytes` of the host's memory that tensors leave stay with the process for tensors to come, 0 at first; what was kept beyond goes
 * back now. One limit for all contexts of the library. */
KVASIR_API int32_t kvasir_context_keep(kvasir_context* ctx, double bytes);

/* Makes a tensor; out [out] its id. shape [in]: rank int32, each >= 0; block types need the last one a multiple of their block. */
KVASIR_API int32_t kvasir_tensor_create(kvasir_context* ctx, kvasir_tensor* out, int32_t dtype, int32_t rank,
                                        const int32_t* shape, int32_t lifetime);
/* The same memory under another shape from element `offset`; plain types. Destroy it before or after its parent: it
 * becomes stale with it. */
KVASIR_API int32_t kvasir_tensor_view(kvasir_context* ctx, kvasir_tensor* out, kvasir_tensor parent, int32_t rank,
                                      const int32_t* shape, double offset);
KVASIR_API int32_t kvasir_tensor_destroy(kvasir_context* ctx, kvasir_tensor tensor);
/* Copies `bytes` little-endian bytes of whole rows (GGUF blocks for block types) from src [in] to rows from `row` on.
 * A model tensor of rank 2 is a weight: it is repacked on the way, by all threads. src need not be aligned. */
KVASIR_API int32_t kvasir_tensor_write(kvasir_context* ctx, kvasir_tensor dst, const void* src, double bytes, int32_t row);
/* Copies a plain tensor, widened to float or int32, to dst [out] of `count` elements. Waits for the device. */
KVASIR_API int32_t kvasir_tensor_read(kvasir_context* ctx, void* dst, kvasir_tensor src, double count);
/* dst[at ...] = src[from ...], `count` elements of plain tensors of one type that do not overlap. */
KVASIR_API int32_t kvasir_tensor_copy(kvasir_context* ctx, kvasir_tensor dst, double at, kvasir_tensor src, double from,
                                      double count);
/* Copies `bytes` of a plain tensor as they are stored, whole rows (a row = the last dimension) from row `row` on, to dst [out]. */
KVASIR_API int32_t kvasir_tensor_read_rows(kvasir_context* ctx, void* dst, kvasir_tensor src, double bytes, int32_t row);

/*
 * Reading beside other work: two optional functions, of libraries whose memory is a device's.
 *
 * Begins a copy of a tensor of float or int32 to the host: of what it holds once what was asked for before is done. It runs beside
 * what is asked for next, and src may be written or end. out [out]: a number for kvasir_tensor_fetched. */
KVASIR_API int32_t kvasir_tensor_fetch(kvasir_context* ctx, int32_t* out, kvasir_tensor src);
/* Waits for that copy and for nothing else: dst [out] gets its `count` elements. With dst NULL it is dropped. The number ends. */
KVASIR_API int32_t kvasir_tensor_fetched(kvasir_context* ctx, void* dst, int32_t fetch, double count);

/*
 * Doors for other libraries over this one's memory (kvasir_index.h). Addresses of a device are for a library of that device.
 *
 * Where a plain tensor's elements lie, valid until the tensor ends. NULL on failure: see kvasir_last_error. */
KVASIR_API void* kvasir_tensor_address(kvasir_context* ctx, kvasir_tensor tensor);
/* The memory of a plain tensor that is no view, for callees that keep it; valid as kvasir_tensor_address says unless retained.
 * NULL on failure: see kvasir_last_error. */
KVASIR_API kvasir_memory* kvasir_tensor_memory(kvasir_context* ctx, kvasir_tensor tensor);
/* The context's own threads, valid as long as the context; a library of the same device knows the device by it. NULL where it has
 * none to lend. */
KVASIR_API const kvasir_executor* kvasir_context_executor(kvasir_context* ctx);

/*
 * Files of tensors (docs/context_file.md); KVASIR_UNSUPPORTED where memory is a device's. A file is written beside its name and
 * appears under it, complete, with kvasir_file_commit; kvasir_file_close ends it either way. An opened one is mapped: its pages are
 * shared by all processes, and tensors over it stay when it is closed. Errors of contents are KVASIR_ARGUMENT, of the disk
 * KVASIR_DEVICE. Names of sections: 1 to 31 printable ASCII characters without spaces.
 */
typedef uint32_t kvasir_file;
KVASIR_API int32_t kvasir_file_create(kvasir_context* ctx, kvasir_file* out, const char* path);
KVASIR_API int32_t kvasir_file_add(kvasir_context* ctx, kvasir_file file, const char* name, const void* data, double bytes);
/* tensors [in]: `count` ids of [heads, capacity, ...]; the first rows[i] of each head follow each other: [heads, sum, ...]. */
KVASIR_API int32_t kvasir_file_add_rows(kvasir_context* ctx, kvasir_file file, const char* name, const kvasir_tensor* tensors,
                                        const int32_t* rows, int32_t count);
/* A section that another library writes: to path [out] of cap bytes, NUL-terminated, from byte offset [out] on; then end. */
KVASIR_API int32_t kvasir_file_begin(kvasir_context* ctx, kvasir_file file, double* offset, char* path, int32_t cap,
                                     const char* name);
KVASIR_API int32_t kvasir_file_end(kvasir_context* ctx, kvasir_file file, double bytes);
KVASIR_API int32_t kvasir_file_commit(kvasir_context* ctx, kvasir_file file);
/* Maps a file and checks its header, directory and layout. */
KVASIR_API int32_t kvasir_file_open(kvasir_context* ctx, kvasir_file* out, const char* path);
KVASIR_API int32_t kvasir_file_close(kvasir_context* ctx, kvasir_file file);
/* place [out]: double[2] = offset and bytes of a section. */
KVASIR_API int32_t kvasir_file_find(kvasir_context* ctx, kvasir_file file, double* place, const char* name);
/* Checks all sections, on the context's threads; those below check what they read if nobody has. */
KVASIR_API int32_t kvasir_file_verify(kvasir_context* ctx, kvasir_file file);
KVASIR_API int32_t kvasir_file_read(kvasir_context* ctx, kvasir_file file, void* dst, double bytes, const char* name);
/* A tensor of sequence memory over a section that is exactly as large. Writing to it changes this process's copy only. */
KVASIR_API int32_t kvasir_tensor_map(kvasir_context* ctx, kvasir_tensor* out, kvasir_file file, const char* name, int32_t dtype,
                                     int32_t rank, const int32_t* shape);

/* Kernels: meanings in backends/backend.ts. */
KVASIR_API int32_t kvasir_embed(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor table, kvasir_tensor tokens, float scale);
KVASIR_API int32_t kvasir_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor weight, float epsilon);
/* x += y, then out = rms_norm(x); out is not x. */
KVASIR_API int32_t kvasir_add_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y,
                                       kvasir_tensor weight, float epsilon);
/* outs, ws [in]: `count` tensor ids each. x and outs may have rank 3: their last two dimensions count as one. */
KVASIR_API int32_t kvasir_matmul(kvasir_context* ctx, const kvasir_tensor* outs, kvasir_tensor x, const kvasir_tensor* ws,
                                 int32_t count);
/* out = activation(x times gate) * (x times up): the bits of kvasir_matmul of both, then kvasir_glu. */
KVASIR_API int32_t kvasir_matmul_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor gate,
                                     kvasir_tensor up, int32_t activation);
KVASIR_API int32_t kvasir_add(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y);
KVASIR_API int32_t kvasir_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor gate, kvasir_tensor up, int32_t activation);
/* frequencies [in]: double[dims / 2]. */
KVASIR_API int32_t kvasir_rope_table(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor positions, const double* frequencies,
                                     int32_t dims, float magnitude);
/* xs [in]: `count` tensor ids, rotated in place. */
KVASIR_API int32_t kvasir_rope(kvasir_context* ctx, const kvasir_tensor* xs, int32_t count, kvasir_tensor table,
                               int32_t pairing);

/*
 * A layer's cache travels as a table of int32: segments of KVASIR_SEGMENT_FIELDS each,
 *   start, count, keys, values, key_scales, value_scales     (ids; scales are 0 unless keys and values are KVASIR_I8)
 * keys, values: F32, F16 or I8 [kvHeads, capacity, headDim]; scales F32 [kvHeads, capacity].
 */
#define KVASIR_SEGMENT_FIELDS 6

/* k, v F32 [n, kvHeads, headDim] to rows row .. row + n of one segment (table of one; `start` and `count` are ignored). */
KVASIR_API int32_t kvasir_append(kvasir_context* ctx, const int32_t* segment, int32_t row, kvasir_tensor k, kvasir_tensor v);
/* Row i of k, v F32 [count, kvHeads, headDim] to row rows[i] of segment i of a table of `count`. */
KVASIR_API int32_t kvasir_append_each(kvasir_context* ctx, const int32_t* segments, const int32_t* rows, int32_t count,
                                      kvasir_tensor k, kvasir_tensor v);
/* out, q F32 [n, heads, headDim]; segments in order, without gaps, n <= sum of counts; window 0 = none; softcap 0 = none. */
KVASIR_API int32_t kvasir_attend_causal(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                                        int32_t segment_count, float scale, float softcap, int32_t window);
/* The same for one query each of `count` caches of one type and shape, none of them empty: row i of out, q F32 [count, heads,
 * headDim] is the last token of cache i; segment_counts [in]: int32[count], whose tables follow each other. The bits of a call each. */
KVASIR_API int32_t kvasir_attend_each(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                                      const int32_t* segment_counts, int32_t count, float scale, float softcap, int32_t window);
/* kvasir_attend_causal as a part of a larger whole: its log-sum-exp too, lse [out] F32 [n, heads]. */
KVASIR_API int32_t kvasir_attend_causal_part(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                                             const int32_t* segments, int32_t segment_count, float scale, float softcap,
                                             int32_t window);
/* kvasir_attend_causal, and what the queries at positions divisible by `every` look at, m of the n: tokens [out] I32 and scores
 * [out] F32 [m, heads, k], each query's k best keys and their logits, best first, of equals the earlier, -1 and -inf behind the
 * keys that it sees; sums F32 [heads, capacity], to which each position's attention weights are added. 0: not wanted; no
 * scores without tokens. */
KVASIR_API int32_t kvasir_attend_causal_sink(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                                             int32_t segment_count, float scale, float softcap, int32_t window, int32_t every,
                                             kvasir_tensor tokens, kvasir_tensor scores, kvasir_tensor sums);

/*
 * Decode attention in parts. o F32 [n, heads, headDim] and lse F32 [n, heads]: lse is the natural log of the sum of
 * exponentials behind o; without keys o is 0 and lse -inf. Positions are checked against the cache.
 *
 * spans [in]: int32[2 * span_count], ascending disjoint ranges start, end (not included) of positions, seen by all n queries. */
KVASIR_API int32_t kvasir_attend_window(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                                        const int32_t* segments, int32_t segment_count, float scale, float softcap,
                                        const int32_t* spans, int32_t span_count);
/* n = 1. tokens I32 [heads or kvHeads, capacity], counts I32 of as many rows; a list per KV head serves its whole group.
 * bias F32 of the shape of tokens, finite, added to the logits after the softcap; 0: none. */
KVASIR_API int32_t kvasir_attend_topk(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                                      const int32_t* segments, int32_t segment_count, float scale, float softcap,
                                      kvasir_tensor tokens, kvasir_tensor counts, kvasir_tensor bias);
/* out F32 [n, heads, headDim], may be one of the parts; parts [in]: uint32[2 * count], o and lse of disjoint parts. */
KVASIR_API int32_t kvasir_merge(kvasir_context* ctx, kvasir_tensor out, const kvasir_tensor* parts, int32_t count);
/* The same, and the log-sum-exp of all: lse [out] F32 [n, heads]; o and lse may be those of one part. */
KVASIR_API int32_t kvasir_merge_parts(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, const kvasir_tensor* parts,
                                      int32_t count);

/* Full-vocabulary work; logits F32 [rows, vocab]. */
KVASIR_API int32_t kvasir_add_logits(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* ids,
                                     const float* values, int32_t count);
KVASIR_API int32_t kvasir_penalize(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* tokens,
                                   const int32_t* counts, int32_t count, float repetition, float presence, float frequency);
/* params [in]: double[rows * KVASIR_SAMPLE_FIELDS]: temperature, top_k, typical_p, top_p, min_p, uniform. out I32 [rows]. */
#define KVASIR_SAMPLE_FIELDS 6
KVASIR_API int32_t kvasir_sample(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, const double* params);
KVASIR_API int32_t kvasir_token_logprobs(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, kvasir_tensor tokens);
KVASIR_API int32_t kvasir_top_logprobs(kvasir_context* ctx, kvasir_tensor ids, kvasir_tensor logprobs, kvasir_tensor logits);
KVASIR_API int32_t kvasir_kl_divergence(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor base, kvasir_tensor logits);

/*
 * Many kernels in one call; optional. commands [in]: `size` int32, each command its code, how many int32 of arguments follow, and those:
 * the kernel's parameters in order, a float as its bits, a double as two int32, an array in place of its pointer. Codes and arguments:
 *   KVASIR_RUN_EMBED         out, table, tokens, scale
 *   KVASIR_RUN_RMS_NORM      out, x, weight, epsilon
 *   KVASIR_RUN_ADD_RMS_NORM  out, x, y, weight, epsilon
 *   KVASIR_RUN_MATMUL        x, count, outs [count], ws [count]
 *   KVASIR_RUN_MATMUL_GLU    out, x, gate, up, activation
 *   KVASIR_RUN_ADD           out, x, y
 *   KVASIR_RUN_GLU           out, gate, up, activation
 *   KVASIR_RUN_ROPE_TABLE    out, positions, dims, magnitude, frequencies [dims / 2]
 *   KVASIR_RUN_ROPE          table, pairing, count, xs [count]
 *   KVASIR_RUN_APPEND_EACH   k, v, count, rows [count], segments [count]
 *   KVASIR_RUN_ATTEND_EACH   out, q, scale, softcap, window, count, segment_counts [count], segments [all of them]
 * Each is checked and done as its own call would be, in order; the first that fails ends the call with its status.
 */
#define KVASIR_RUN_EMBED 1
#define KVASIR_RUN_RMS_NORM 2
#define KVASIR_RUN_ADD_RMS_NORM 3
#define KVASIR_RUN_MATMUL 4
#define KVASIR_RUN_MATMUL_GLU 5
#define KVASIR_RUN_ADD 6
#define KVASIR_RUN_GLU 7
#define KVASIR_RUN_ROPE_TABLE 8
#define KVASIR_RUN_ROPE 9
#define KVASIR_RUN_APPEND_EACH 10
#define KVASIR_RUN_ATTEND_EACH 11
KVASIR_API int32_t kvasir_commands_run(kvasir_context* ctx, const int32_t* commands, int32_t size);

#ifdef __cplusplus
}
#endif
#endif
