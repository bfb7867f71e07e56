/*
 * kvasir_abi.h: what all native libraries of Kvasir share: statuses, element types, memory that outlives a call, threads.
 */
#ifndef KVASIR_ABI_H
#define KVASIR_ABI_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#if defined(_WIN32)
#define KVASIR_API __declspec(dllexport)
#else
#define KVASIR_API __attribute__((visibility("default")))
#endif

/* Status */
#define KVASIR_OK 0
#define KVASIR_ARGUMENT 1    /* a shape, id, type or value the contract forbids */
#define KVASIR_MEMORY 2      /* out of memory */
#define KVASIR_DEVICE 3      /* device missing or failed */
#define KVASIR_UNSUPPORTED 4 /* valid, but not done here */
#define KVASIR_INTERNAL 5    /* a bug of the library */
#define KVASIR_CAPACITY 6    /* an output buffer is too small; what is needed is in its counts */

/* Element types */
#define KVASIR_F32 0
#define KVASIR_F16 1
#define KVASIR_BF16 2
#define KVASIR_I32 3
#define KVASIR_I8 4
#define KVASIR_Q4_0 5
#define KVASIR_Q4_1 6
#define KVASIR_Q5_0 7
#define KVASIR_Q5_1 8
#define KVASIR_Q8_0 9
#define KVASIR_Q3_K 10
#define KVASIR_Q4_K 11
#define KVASIR_Q5_K 12
#define KVASIR_Q6_K 13
#define KVASIR_IQ4_NL 14

/*
 * Host memory owned by one library and read by another. Who keeps it beyond the call it came in retains it and releases it
 * later, from any thread; the memory lives until the last release, also when its tensor or its context ended before.
 */
typedef struct kvasir_memory kvasir_memory;
struct kvasir_memory {
  void* data;
  uint64_t bytes;
  void (*retain)(kvasir_memory* self);
  void (*release)(kvasir_memory* self);
};

/*
 * A pool of threads lent by one library to another, so that both do not fight for the cores. `run` calls
 * entry(body, task, worker) for every task in [0, tasks), each once, worker in [0, threads), and returns when all are done. It
 * must be called from the thread that uses the lender's context, and lives as long as that context.
 */
typedef struct kvasir_executor {
  void* self;
  int32_t threads;
  void (*run)(void* self, int32_t tasks, void* body, void (*entry)(void* body, int32_t task, int32_t worker));
} kvasir_executor;

#ifdef __cplusplus
}
#endif
#endif
