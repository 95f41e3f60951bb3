/* Sparse convolution on a CPU, float32: what compiled.py builds where there is a C compiler.
 *
 * A convolution is output-stationary. A thread owns a block of output rows and keeps their sums in the level-1 or
 * level-2 cache; tap by tap it lists the rows that have a neighbour there, takes MR of them at a time, and multiplies
 * their input rows, read where they lie, with the tap's weights: MR x NR vectors of sums stay in registers over the
 * input channels. Nothing is gathered or scattered through memory, and every sum has one fixed order, whatever the
 * number of threads. */

#include "cpu_pool.h"

#if VW == 16
#define MR 8 /* 8 x 2 sums + 2 weights of 32 registers */
#define NR 2
#define GR 8 /* as MR, for the gradient: a divisor of most numbers of channels */
#elif VW == 8
#define MR 6 /* 6 x 2 sums + 2 weights of 16 registers */
#define NR 2
#define GR 4
#else
#define MR 6 /* NEON: 6 x 4 sums + 4 weights of 32 registers */
#define NR 4
#define GR 4
#endif

#define MAX_ROWS 512  /* of a block */
#define MAX_PAIRS 256 /* of a chunk of the weights' gradient */

/* ---- convolution ---- */

typedef struct {
    const float *feats, *weight; /* [num_in, c_in]; per tap: tiles of NR x VW columns, then of VW, each [c_in, width] */
    const int32_t *table;        /* [taps, num_out], -1 for none */
    float *out;                  /* [num_out, c_out] */
    int64_t num_out, taps, c_in, c_out, padded, block; /* padded: c_out up to a multiple of VW */
} Conv;

/* MR rows times `width` vectors of columns; `width` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void multiply(const float *const *in, float *const *sums, int64_t column,
                                                           const float *weight, int64_t c_in, const int width) {
    vec total[MR][NR];
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < width; j++) total[i][j] = *(const vec *)(sums[i] + column + j * VW);
    for (int64_t k = 0; k < c_in; k++) {
        vec w[NR];
        for (int j = 0; j < width; j++) w[j] = *(const vec *)(weight + (k * width + j) * VW);
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < width; j++) total[i][j] += in[i][k] * w[j];
    }
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < width; j++) *(vec *)(sums[i] + column + j * VW) = total[i][j];
}

static void conv_block(void *job, int64_t item, float *scratch) {
    const Conv *c = job;
    const int64_t first = item * c->block, rows = min64(c->block, c->num_out - first);
    float *sums = scratch, *spare = scratch + c->block * c->padded; /* spare: rows that fill up a group of MR */
    float *zeros = spare + MR * c->padded;
    memset(sums, 0, sizeof(float) * c->block * c->padded);
    memset(zeros, 0, sizeof(float) * c->c_in);
    for (int64_t tap = 0; tap < c->taps; tap++) {
        const int32_t *table = c->table + tap * c->num_out + first;
        const float *weight = c->weight + tap * c->c_in * c->padded;
        const float *in[MAX_ROWS + MR];
        float *to[MAX_ROWS + MR];
        int64_t n = 0;
        for (int64_t r = 0; r < rows; r++)
            if (table[r] >= 0) {
                in[n] = c->feats + (int64_t)table[r] * c->c_in;
                to[n++] = sums + r * c->padded;
            }
        for (int64_t i = 0; n % MR; i++) {
            in[n] = zeros;
            to[n++] = spare + i * c->padded;
        }
        /* Columns outside: a tile of weights, 64 channels x 128 B = 8 kB, stays in the level-1 cache. */
        int64_t column = 0;
        for (; column + NR * VW <= c->padded; column += NR * VW)
            for (int64_t i = 0; i < n; i += MR) {
                if (column == 0 && i + 2 * MR <= n)
                    for (int r = MR; r < 2 * MR; r++)
                        for (int64_t k = 0; k < c->c_in; k += 16) __builtin_prefetch(in[i + r] + k);
                multiply(in + i, to + i, column, weight + column * c->c_in, c->c_in, NR);
            }
        for (; column < c->padded; column += VW)
            for (int64_t i = 0; i < n; i += MR)
                multiply(in + i, to + i, column, weight + column * c->c_in, c->c_in, 1);
    }
    for (int64_t r = 0; r < rows; r++)
        memcpy(c->out + (first + r) * c->c_out, sums + r * c->padded, sizeof(float) * c->c_out);
}

/* The weights in the order in which they are read. */
static void pack(const float *weight, float *packed, int64_t c_in, int64_t c_out, int64_t padded, int64_t in_stride,
                 int64_t out_stride) {
    for (int64_t column = 0, width; column < padded; column += width) {
        width = column + NR * VW <= padded ? NR * VW : VW;
        for (int64_t k = 0; k < c_in; k++)
            for (int64_t j = column; j < column + width; j++)
                *packed++ = j < c_out ? weight[k * in_stride + j * out_stride] : 0;
    }
}

int ponder3d_conv(const float *feats, const float *weight, const int32_t *table, float *out, int64_t num_out,
                  int64_t taps, int64_t c_in, int64_t c_out, int64_t tap_stride, int64_t in_stride, int64_t out_stride,
                  int num_threads) {
    const int64_t padded = (c_out + VW - 1) / VW * VW;
    float *packed = aligned_floats(taps * c_in * padded);
    if (!packed) return 1;
    for (int64_t tap = 0; tap < taps; tap++)
        pack(weight + tap * tap_stride, packed + tap * c_in * padded, c_in, c_out, padded, in_stride, out_stride);
    /* 128 kB of sums at most, and a few blocks for every thread. */
    int64_t block = min64(MAX_ROWS, 32768 / padded);
    block = min64(block, (num_out + 4 * num_threads - 1) / (4 * num_threads));
    block = (block < 4 * MR ? 4 * MR : block) / MR * MR;
    Conv job = {feats, packed, table, out, num_out, taps, c_in, c_out, padded, block};
    const int failed = run_pool(conv_block, &job, (num_out + block - 1) / block, (block + MR) * padded + c_in, num_threads);
    free(packed);
    return failed;
}

/* ---- gradient of the weights ---- */

typedef struct {
    const float *feats, *grad;   /* [num_in, c_in]; [num_out, c_out] */
    const int32_t *table;        /* [taps, num_out] */
    float *out;                  /* [taps, c_in, c_out] */
    int64_t num_out, taps, c_in, c_out, block;
    int64_t *done;               /* [taps]: blocks of rows that its sums have seen */
} Gradient;

/* sums[i][j] += sum over pairs of in[pair][i] * grad[pair][j], height x width vectors at a time. A chunk of pairs is
 * summed by itself: adding tens of thousands of terms to one float one by one would lose two digits. */
static inline __attribute__((always_inline)) void outer(const float *const *in, const float *const *grad, int64_t n,
                                                        float *sums, int64_t stride, int64_t channel, int64_t column,
                                                        const int height, const int width) {
    vec total[GR][NR];
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) total[i][j] = (vec){0};
    for (int64_t p = 0; p < n; p++) {
        vec g[NR];
        for (int j = 0; j < width; j++) g[j] = *(const vec *)(grad[p] + column + j * VW);
        for (int i = 0; i < height; i++)
            for (int j = 0; j < width; j++) total[i][j] += in[p][channel + i] * g[j];
    }
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) *(vec *)(sums + i * stride + j * VW) += total[i][j];
}

/* All columns of `height` channels; a constant where this is inlined. */
static inline __attribute__((always_inline)) int64_t outer_columns(const float *const *in, const float *const *grad,
                                                                   int64_t n, float *sums, int64_t c_out,
                                                                   int64_t channel, const int height) {
    int64_t column = 0;
    for (; column + NR * VW <= c_out; column += NR * VW)
        outer(in, grad, n, sums + column, c_out, channel, column, height, NR);
    for (; column + VW <= c_out; column += VW) outer(in, grad, n, sums + column, c_out, channel, column, height, 1);
    return column;
}

static void outer_scalar(const float *const *in, const float *const *grad, int64_t n, float *sums, int64_t channel,
                         int64_t column) {
    float total = 0;
    for (int64_t p = 0; p < n; p++) total += in[p][channel] * grad[p][column];
    *sums += total;
}

/* An item is a block of rows, small enough for the level-2 cache, and one tap. A tap's blocks are added in their order:
 * items are handed out block by block, so whoever waits for an earlier block waits for a thread that is at it. */
static void gradient_block(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Gradient *g = job;
    const int64_t block = item / g->taps, tap = item % g->taps;
    const int64_t last = min64((block + 1) * g->block, g->num_out);
    const int32_t *table = g->table + tap * g->num_out;
    float *out = g->out + tap * g->c_in * g->c_out;
    while (__atomic_load_n(&g->done[tap], __ATOMIC_ACQUIRE) != block) sched_yield();
    if (block == 0) memset(out, 0, sizeof(float) * g->c_in * g->c_out);
    /* Both rows of all pairs of a chunk, 16 kB, stay in the level-1 cache while the tiles of the weight pass by. */
    const int64_t max_pairs = min64(MAX_PAIRS, 8 + 4096 / (g->c_in + g->c_out));
    const float *in[MAX_PAIRS], *grad[MAX_PAIRS];
    for (int64_t row = block * g->block; row < last;) {
        int64_t n = 0;
        for (; row < last && n < max_pairs; row++)
            if (table[row] >= 0) {
                in[n] = g->feats + (int64_t)table[row] * g->c_in;
                grad[n++] = g->grad + row * g->c_out;
            }
        for (int64_t channel = 0, height; channel < g->c_in; channel += height) {
            float *sums = out + channel * g->c_out;
            int64_t column;
            height = g->c_in - channel >= GR ? GR : g->c_in - channel >= 2 ? 2 : 1;
            if (height == GR)
                column = outer_columns(in, grad, n, sums, g->c_out, channel, GR);
            else if (height == 2)
                column = outer_columns(in, grad, n, sums, g->c_out, channel, 2);
            else
                column = outer_columns(in, grad, n, sums, g->c_out, channel, 1);
            for (; column < g->c_out; column++)
                for (int64_t i = 0; i < height; i++)
                    outer_scalar(in, grad, n, sums + i * g->c_out + column, channel + i, column);
        }
    }
    __atomic_store_n(&g->done[tap], block + 1, __ATOMIC_RELEASE);
}

int ponder3d_weight_gradient(const float *feats, const float *grad, const int32_t *table, float *out, int64_t num_out,
                             int64_t taps, int64_t c_in, int64_t c_out, int num_threads) {
    const int64_t block = (1 << 16) / (c_in + c_out) + 64;
    const int64_t num_blocks = num_out ? (num_out + block - 1) / block : 1; /* one, to clear the sums */
    int64_t *done = calloc(taps, sizeof *done);
    if (!done) return 1;
    Gradient job = {feats, grad, table, out, num_out, taps, c_in, c_out, block, done};
    const int failed = run_pool(gradient_block, &job, num_blocks * taps, 1, num_threads);
    free(done);
    return failed;
}

/* ---- neighbours ---- */

typedef struct {
    const int64_t *keys; /* sorted, unique */
    int32_t *table;      /* [kernel^3, num] */
    int64_t num, kernel, step_x, step_y;
} Neighbours;

/* One (dx, dy): what is wanted is as sorted as what there is, so one walk through both finds all. */
static void neighbours_of_column(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Neighbours *n = job;
    const int64_t radius = n->kernel / 2, dx = item / n->kernel - radius, dy = item % n->kernel - radius;
    const int64_t offset = dx * n->step_x + dy * n->step_y - radius;
    int32_t *table = n->table + item * n->kernel * n->num;
    int64_t at = 0;
    for (int64_t row = 0; row < n->num; row++) {
        const int64_t wanted = n->keys[row] + offset;
        while (at < n->num && n->keys[at] < wanted) at++;
        int64_t next = at;
        for (int64_t z = 0; z < n->kernel; z++) {
            const int hit = next < n->num && n->keys[next] == wanted + z;
            table[z * n->num + row] = hit ? (int32_t)next : -1;
            next += hit;
        }
    }
}

int ponder3d_neighbours(const int64_t *keys, int32_t *table, int64_t num, int64_t kernel, int64_t step_x,
                        int64_t step_y, int num_threads) {
    Neighbours job = {keys, table, num, kernel, step_x, step_y};
    return run_pool(neighbours_of_column, &job, kernel * kernel, 1, num_threads);
}
