/* Softplus and its derivative in one pass over float32 numbers, for the SDF decoder on a CPU.
 *
 *     t = beta z, e = exp(-|t|):  s = 1 / (1 + e) or e / (1 + e),  y = max(z, 0) + log(1 + e) / beta
 *
 * PyTorch makes seven passes for the two. */

#include "cpu_pool.h"

#define NUMBERS 8192 /* of an item of work: three arrays of 32 kB */

typedef int32_t ivec __attribute__((vector_size(4 * VW), aligned(4), may_alias));

static inline vec choose(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

/* exp(x) for x in [-87, 0]: 2^n times the Taylor series of degree 7 on [-log(2) / 2, log(2) / 2], error 1e-8. */
static inline vec exp_of(vec x) {
    const vec scaled = x * 1.44269504f - 0.5f;
    const ivec n = __builtin_convertvector(scaled, ivec); /* towards zero, and x is not positive: to the nearest */
    const vec whole = __builtin_convertvector(n, vec);
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec sum = r * (1.0f / 5040) + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1;
    sum = sum * r + 1;
    return sum * (vec)((n + 127) << 23);
}

/* log(1 + e) for e in [0, 1]: 2 artanh(v) with v = e / (2 + e) <= 1/3, to v^13. */
static inline vec log1p_of(vec e) {
    const vec v = e / (2 + e), v2 = v * v;
    vec sum = v2 * (1.0f / 13) + 1.0f / 11;
    sum = sum * v2 + 1.0f / 9;
    sum = sum * v2 + 1.0f / 7;
    sum = sum * v2 + 1.0f / 5;
    sum = sum * v2 + 1.0f / 3;
    return 2 * v * (sum * v2 + 1);
}

static inline void softplus_of(const float *z, float *y, float *s, float beta) {
    const vec x = *(const vec *)z, t = x * beta;
    const ivec positive = t > 0;
    vec size = choose(positive, -t, t);
    size = choose(size < -60, (vec){0} - 60, size); /* 60: nothing becomes denormal, which is slow; NaN stays */
    const vec e = exp_of(size), share = 1 / (1 + e);
    *(vec *)s = choose(positive, share, e * share);
    *(vec *)y = choose(positive, x, (vec){0}) + log1p_of(e) / beta;
}

typedef struct {
    const float *z;
    float *y, *s;
    int64_t num;
    float beta;
} Job;

static void work(void *argument, int64_t item, float *scratch) {
    (void)scratch;
    const Job *job = argument;
    const int64_t last = min64((item + 1) * NUMBERS, job->num);
    int64_t i = item * NUMBERS;
    for (; i + VW <= last; i += VW) softplus_of(job->z + i, job->y + i, job->s + i, job->beta);
    if (i < last) {
        float z[VW] = {0}, y[VW], s[VW];
        memcpy(z, job->z + i, sizeof(float) * (last - i));
        softplus_of(z, y, s, job->beta);
        memcpy(job->y + i, y, sizeof(float) * (last - i));
        memcpy(job->s + i, s, sizeof(float) * (last - i));
    }
}

int ponder3d_softplus(const float *z, float *y, float *s, int64_t num, float beta, int num_threads) {
    Job job = {z, y, s, num, beta};
    return run_pool(work, &job, (num + NUMBERS - 1) / NUMBERS, 1, num_threads);
}
