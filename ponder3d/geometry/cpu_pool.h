/* What the compiled kernels share: vectors, and threads that share out items.
 *
 * Vectors are GCC's and Clang's own, so the same source serves AVX-512, AVX2, NEON. */

#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VW 16 /* floats per vector */
#elif defined(__AVX__)
#define VW 8
#else
#define VW 4
#endif

typedef float vec __attribute__((vector_size(4 * VW), aligned(4), may_alias));

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float *aligned_floats(int64_t num) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, sizeof(float) * (num + 16)) ? NULL : memory;
}

/* ---- threads: items 0 .. num_items - 1 are handed out in turn ---- */

typedef struct {
    void (*work)(void *job, int64_t item, float *scratch);
    void *job;
    int64_t num_items, scratch_floats;
    int64_t next;
    int failed;
} Pool;

static void *run_items(void *argument) {
    Pool *pool = argument;
    float *scratch = aligned_floats(pool->scratch_floats);
    if (!scratch) {
        pool->failed = 1;
        return NULL;
    }
    for (;;) {
        int64_t item = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
        if (item >= pool->num_items) break;
        pool->work(pool->job, item, scratch);
    }
    free(scratch);
    return NULL;
}

/* 0, or 1 if memory ran out. */
static inline int run_pool(void (*work)(void *, int64_t, float *), void *job, int64_t num_items, int64_t scratch_floats,
                    int num_threads) {
    Pool pool = {work, job, num_items, scratch_floats, 0, 0};
    pthread_t threads[64];
    int started = 0;
    if (num_threads > 64) num_threads = 64;
    if (num_threads > num_items) num_threads = (int)num_items;
    /* A thread that cannot be started is no error: the others take its share. */
    while (started < num_threads - 1 && !pthread_create(&threads[started], NULL, run_items, &pool)) started++;
    run_items(&pool);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return pool.failed;
}
