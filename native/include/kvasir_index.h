/*
 * kvasir_index.h: the door between Kvasir and a library of attention indexes over host memory.
 *
 * Rules are those of kvasir_backend.h: kvasir_index_<verb>, context first, output next, inputs last; a status from every call,
 * the sentence behind a failure from kvasir_index_last_error, per thread; 32-bit ids checked at every use; no exception, abort
 * or print crosses; a context belongs to one thread at a time. Differences:
 *   Memory     segments of the KV cache are registered once and held (kvasir_memory) until the last index over them and its
 *              builders end; every other pointer is borrowed until its call returns.
 *   Threads    searching runs on the executor that the context was opened with, building on threads of the context's own, at
 *              low priority. An id may be used while its index is being built.
 * One index serves one layer of one sequence, all KV heads in one call. Positions are absolute token positions.
 */
#ifndef KVASIR_INDEX_H
#define KVASIR_INDEX_H
#include "kvasir_abi.h"
#ifdef __cplusplus
extern "C" {
#endif

#define KVASIR_INDEX_ABI_VERSION 4

typedef struct kvasir_index_context kvasir_index_context;
typedef uint32_t kvasir_segment;
typedef uint32_t kvasir_index;

KVASIR_API int32_t kvasir_index_abi_version(void);
/* Copies the calling thread's last error sentence, NUL-terminated, into buf [out] of cap bytes. Always KVASIR_OK. */
KVASIR_API int32_t kvasir_index_last_error(char* buf, int32_t cap);
/* One line a type: name, tab, default parameters "key=value,...", tab, summary. NUL-terminated, into buf [out];
 * KVASIR_CAPACITY when cap is too small. */
KVASIR_API int32_t kvasir_index_types(char* buf, int32_t cap);

/* What searches cost on this machine, for the option `costs` of contexts: text into buf [out], NUL-terminated, less than 4096
 * bytes; KVASIR_CAPACITY when cap is too small. isa [in]: as the option, NULL for "auto". Takes seconds; keep it per machine. */
KVASIR_API int32_t kvasir_index_costs(char* buf, int32_t cap, const char* isa);

/* options [in]: "isa=auto,threads=0,builders=1,costs=" NUL-terminated; unknown keys fail. costs: "(TEXT)" of
 * kvasir_index_costs, what type "planned" decides by; empty: those of the reference machine. executor [in]: the threads to search on,
 * which must outlive the context; NULL: `threads` of its own. NULL on failure: see kvasir_index_last_error. */
KVASIR_API kvasir_index_context* kvasir_index_context_create(const char* options, const kvasir_executor* executor);
/* Ends all builders, indexes and segments. */
KVASIR_API int32_t kvasir_index_context_destroy(kvasir_index_context* ctx);
/* Canonical options in force, NUL-terminated, into buf [out]. */
KVASIR_API int32_t kvasir_index_context_describe(kvasir_index_context* ctx, char* buf, int32_t cap);

/*
 * Registers rows of one layer's cache. desc [in]: int32[KVASIR_SEGMENT_DESC] = start, element type (F32, F16, I8), kvHeads,
 * capacity, headDim, rows. keys, values [in]: [kvHeads, capacity, headDim]; scales [in]: F32 [kvHeads, capacity] with I8, else
 * NULL. Only the first `rows` of each head are this segment's (0: capacity): a fork goes on behind them elsewhere. Rows become
 * readable as kvasir_index_add names them; those must not change afterwards.
 */
#define KVASIR_SEGMENT_DESC 6
KVASIR_API int32_t kvasir_segment_create(kvasir_index_context* ctx, kvasir_segment* out, const int32_t* desc,
                                         kvasir_memory* keys, kvasir_memory* values, kvasir_memory* key_scales,
                                         kvasir_memory* value_scales);
KVASIR_API int32_t kvasir_segment_destroy(kvasir_index_context* ctx, kvasir_segment segment);

/*
 * Makes an index of the type and parameters in spec [in] ("flat:codes=int4", NUL-terminated; unknown keys fail).
 * shape [in]: double[KVASIR_INDEX_SHAPE] = heads, kvHeads, headDim, scale, softcap (0 = none), rotated dims (0 = no rope),
 * pairing (KVASIR_INDEX_HALVES ...), seed. frequencies [in]: double[rotated dims / 2], radians per position.
 */
#define KVASIR_INDEX_SHAPE 8
#define KVASIR_INDEX_HALVES 0
#define KVASIR_INDEX_NEIGHBOURS 1
KVASIR_API int32_t kvasir_index_create(kvasir_index_context* ctx, kvasir_index* out, const char* spec, const double* shape,
                                       const double* frequencies);
KVASIR_API int32_t kvasir_index_destroy(kvasir_index_context* ctx, kvasir_index index);

/* Tells the index that segment holds rows it may be told to add. In order of start, without gaps. */
KVASIR_API int32_t kvasir_index_append_segment(kvasir_index_context* ctx, kvasir_index index, kvasir_segment segment);
/* Adds tokens [start, start + count); start continues where the last add ended, the first may start anywhere. Keys that are not
 * finite are KVASIR_ARGUMENT, and nothing is added. */
KVASIR_API int32_t kvasir_index_add(kvasir_index_context* ctx, kvasir_index index, int32_t start, int32_t count);
/* Whether the index learns from queries: out [out] is 1 or 0. */
KVASIR_API int32_t kvasir_index_observes(kvasir_index_context* ctx, kvasir_index index, int32_t* out);
/* What was asked at positions [start, start + count), added yet or not: queries [in]: F32 [count, heads, headDim], rotated as the
 * model does; rows up to these positions, where segments have them, are written and may be read by the next commit. Positions that
 * were observed before are skipped, or taken anew: a step that was interrupted asks again. Queries that are not
 * finite are KVASIR_ARGUMENT, and nothing is noted. */
KVASIR_API int32_t kvasir_index_observe(kvasir_index_context* ctx, kvasir_index index, int32_t start, int32_t count,
                                        const float* queries);
/* Everything added becomes searchable at once; slow structure is built behind. */
KVASIR_API int32_t kvasir_index_commit(kvasir_index_context* ctx, kvasir_index index);
/* Waits until nothing is being built. */
KVASIR_API int32_t kvasir_index_settle(kvasir_index_context* ctx, kvasir_index index);

/*
 * Finds what a query should see. goal [in]: double[KVASIR_GOAL] = kind (KVASIR_GOAL_ERROR: value is the relative L2 error of the
 * output, hits are shared by each KV head's group; KVASIR_GOAL_TOPK: value keys per query head), value, tail, draw (uint32).
 * q [in]: F32 [heads, headDim], rotated. exact [in]: F32 [heads], log-sum-exp of what is attended anyway (-INFINITY: nothing).
 * tokens [out]: I32 [rows, capacity], bias [out]: F32 of the same shape, -ln(inclusion probability); counts [out]: I32 [rows];
 * rows = kvHeads for KVASIR_GOAL_ERROR, heads for KVASIR_GOAL_TOPK. errors [out]: F32 [rows], estimated relative L2 error, NaN
 * where unknown. report [out]: double[KVASIR_REPORT] = certificate, keys scored, keys kept, bytes read, expected recall (NaN:
 * not estimated). Positions of a row ascend. KVASIR_CAPACITY: counts hold what is needed, the rest is undefined; repeat with
 * room: the same draw gives the same hits. rest, rest_lse [out]: F32 [heads, headDim] and [heads], with KVASIR_TAIL_SURROGATE (types
 * without surrogates: KVASIR_UNSUPPORTED), else NULL: attention to what stands for keys that are no hits, and its log-sum-exp.
 */
#define KVASIR_GOAL 4
#define KVASIR_GOAL_ERROR 0
#define KVASIR_GOAL_TOPK 1
#define KVASIR_TAIL_NONE 0
#define KVASIR_TAIL_SAMPLE 1
#define KVASIR_TAIL_SURROGATE 2
#define KVASIR_REPORT 5
#define KVASIR_CERTIFICATE_NONE 0
#define KVASIR_CERTIFICATE_CALIBRATED 1 /* recall as expected in the report, checked on held-out prompt queries */
#define KVASIR_CERTIFICATE_UNBIASED 2
#define KVASIR_CERTIFICATE_EXACT 3
KVASIR_API int32_t kvasir_index_search(kvasir_index_context* ctx, kvasir_index index, int32_t* tokens, float* bias,
                                       int32_t* counts, float* errors, double* report, int32_t capacity, const double* goal,
                                       const float* q, const float* exact, float* rest, float* rest_lse);

/*
 * Optional, of libraries over a device's memory: kvasir_index_search and kvasir_attend_topk in one call, under the laws of both, where
 * the rows lie where kernels reach them (else KVASIR_UNSUPPORTED). o [out]: F32 [heads, headDim], lse [out]: F32 [heads], of the hits alone;
 * all pointers but goal and report are the device's. No surrogates. */
KVASIR_API int32_t kvasir_index_attend(kvasir_index_context* ctx, kvasir_index index, float* o, float* lse, double* report,
                                       const double* goal, const float* q, const float* exact);

/* A second index with the same contents that shares what is sealed; segments [in]: `count` ids that hold the same rows. */
KVASIR_API int32_t kvasir_index_fork(kvasir_index_context* ctx, kvasir_index* out, kvasir_index index,
                                     const kvasir_segment* segments, int32_t count);
/* Writes the index to `path` [in], NUL-terminated: complete or not at all. Format: docs/index_file.md. */
KVASIR_API int32_t kvasir_index_save(kvasir_index_context* ctx, kvasir_index index, const char* path);
/* The same into a file that exists, from byte `offset` on (a multiple of 4096 that nothing lies behind), not flushed. bytes [out]:
 * what it took. */
KVASIR_API int32_t kvasir_index_save_into(kvasir_index_context* ctx, kvasir_index index, double* bytes, const char* path,
                                          double offset);
/* Opens a saved index over segments with the rows it was built on. Arguments as kvasir_index_create; a spec that is not the
 * file's fails. */
KVASIR_API int32_t kvasir_index_map(kvasir_index_context* ctx, kvasir_index* out, const char* path, const char* spec,
                                    const double* shape, const double* frequencies, const kvasir_segment* segments,
                                    int32_t count);
/* The same from a piece of a file; range [in]: double[2] = its first byte, a multiple of 4096, and how many. */
KVASIR_API int32_t kvasir_index_map_from(kvasir_index_context* ctx, kvasir_index* out, const char* path, const double* range,
                                         const char* spec, const double* shape, const double* frequencies,
                                         const kvasir_segment* segments, int32_t count);
/* numbers [out]: double[KVASIR_STATS] = tokens, bytes of its own, pending tokens, build seconds, inserted since the last build.
 * decisions [out]: one line each, NUL-terminated, into buf of cap bytes; KVASIR_CAPACITY when cap is too small. */
#define KVASIR_STATS 5
KVASIR_API int32_t kvasir_index_stats(kvasir_index_context* ctx, kvasir_index index, double* numbers, char* decisions,
                                      int32_t cap);

#ifdef __cplusplus
}
#endif
#endif
