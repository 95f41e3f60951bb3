/* Trilinear sampling on a CPU, float32: the compiled twins of the functions of trilinear.py.
 *
 * A point's eight rows are read once and combined in registers. Sums into a volume are done by owners: a thread owns a
 * range of rows and goes through all points in their order, so every sum has one order, whatever the number of threads,
 * and nothing is sorted. */

#include "cpu_pool.h"

#define POINTS 512 /* of an item of work */

/* ---- corners ---- */

typedef struct {
    const float *xyz, *box;      /* [num, 3]; [num_scenes, 2, 3] */
    const int64_t *scene;        /* [num] */
    int64_t *index;              /* [num, 8] */
    float *weight, *slope;       /* [num, 8]; [num, 3, 8] */
    int64_t num, num_scenes, shape[3];
    int bad_scene;
} Corners;

static void corners_of(void *job, int64_t item, float *scratch) {
    (void)scratch;
    Corners *c = job;
    const int64_t last = min64((item + 1) * POINTS, c->num);
    const int64_t strides[3] = {c->shape[1] * c->shape[2], c->shape[2], 1};
    for (int64_t n = item * POINTS; n < last; n++) {
        const int64_t scene = c->scene[n];
        if (scene < 0 || scene >= c->num_scenes) {
            c->bad_scene = 1;
            return;
        }
        const float *lo = c->box + scene * 6, *hi = lo + 3;
        float w[3][2], s[3][2];
        int64_t base = scene * c->shape[0] * strides[0], step[3];
        for (int axis = 0; axis < 3; axis++) {
            const float cells = (float)c->shape[axis], end = cells - 1, size = hi[axis] - lo[axis];
            float at = (c->xyz[n * 3 + axis] - lo[axis]) / size * cells - 0.5f;
            const int inside = at >= 0 && at <= end;
            /* NaN reads the first cell, with a weight of NaN. */
            const float held = at > 0 ? (at > end ? end : at) : 0;
            int64_t low = (int64_t)held;
            if (low > c->shape[axis] - 2) low = c->shape[axis] > 1 ? c->shape[axis] - 2 : 0;
            const float fraction = (at != at ? at : held) - (float)low;
            const float slope = inside && c->shape[axis] > 1 ? cells / size : 0;
            w[axis][0] = 1 - fraction, w[axis][1] = fraction;
            s[axis][0] = -slope, s[axis][1] = slope;
            base += low * strides[axis];
            step[axis] = c->shape[axis] > 1 ? strides[axis] : 0;
        }
        int64_t *index = c->index + n * 8;
        float *weight = c->weight + n * 8, *slope = c->slope + n * 24;
        for (int k = 0; k < 8; k++) {
            const int i = k >> 2, j = k >> 1 & 1, l = k & 1;
            index[k] = base + i * step[0] + j * step[1] + l * step[2];
            weight[k] = w[0][i] * w[1][j] * w[2][l];
            slope[k] = s[0][i] * w[1][j] * w[2][l];
            slope[8 + k] = w[0][i] * s[1][j] * w[2][l];
            slope[16 + k] = w[0][i] * w[1][j] * s[2][l];
        }
    }
}

/* 2: a scene that is not there. */
int ponder3d_corners(const float *xyz, const int64_t *scene, const float *box, int64_t *index, float *weight,
                     float *slope, int64_t num, int64_t num_scenes, int64_t x, int64_t y, int64_t z, int num_threads) {
    Corners job = {xyz, box, scene, index, weight, slope, num, num_scenes, {x, y, z}, 0};
    const int failed = run_pool(corners_of, &job, (num + POINTS - 1) / POINTS, 1, num_threads);
    return failed ? failed : 2 * job.bad_scene;
}

/* ---- read ---- */

typedef struct {
    const float *rows, *weight, *slope, *g;
    const int64_t *index;
    float *out;
    int64_t num, channels, row_stride, point_stride, corner_stride, out_stride;
} Read;

static void read_points(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Read *r = job;
    const int64_t last = min64((item + 1) * POINTS, r->num);
    for (int64_t n = item * POINTS; n < last; n++) {
        const float *row[8];
        float w[8], *out = r->out + n * r->out_stride;
        for (int k = 0; k < 8; k++) {
            row[k] = r->rows + r->index[n * 8 + k] * r->row_stride;
            w[k] = r->weight[n * r->point_stride + k * r->corner_stride];
        }
        int64_t c = 0;
        for (; c + VW <= r->channels; c += VW) {
            vec sum = w[0] * *(const vec *)(row[0] + c);
            for (int k = 1; k < 8; k++) sum += w[k] * *(const vec *)(row[k] + c);
            *(vec *)(out + c) = sum;
        }
        for (; c < r->channels; c++) {
            float sum = w[0] * row[0][c];
            for (int k = 1; k < 8; k++) sum += w[k] * row[k][c];
            out[c] = sum;
        }
    }
}

int ponder3d_read(const float *rows, const int64_t *index, const float *weight, float *out, int64_t num,
                  int64_t channels, int64_t row_stride, int64_t point_stride, int64_t corner_stride,
                  int64_t out_stride, int num_threads) {
    Read job = {rows, weight, NULL, NULL, index, out, num, channels, row_stride, point_stride, corner_stride, out_stride};
    return run_pool(read_points, &job, (num + POINTS - 1) / POINTS, 1, num_threads);
}

static inline float sum_of(vec v) {
    float sum = 0;
    for (int i = 0; i < VW; i++) sum += v[i];
    return sum;
}

/* <g, f> by x, y and z: three combinations of the eight rows, each multiplied with g and summed once, [num, 3]. */
static void read_points_along(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Read *r = job;
    const int64_t last = min64((item + 1) * POINTS, r->num);
    for (int64_t n = item * POINTS; n < last; n++) {
        const float *g = r->g + n * r->channels, *slope = r->slope + n * 24, *row[8];
        for (int k = 0; k < 8; k++) row[k] = r->rows + r->index[n * 8 + k] * r->row_stride;
        vec sums[3] = {{0}};
        float along[3] = {0};
        int64_t c = 0;
        for (; c + VW <= r->channels; c += VW) {
            vec by[3] = {{0}};
            for (int k = 0; k < 8; k++)
                for (int axis = 0; axis < 3; axis++) by[axis] += slope[axis * 8 + k] * *(const vec *)(row[k] + c);
            for (int axis = 0; axis < 3; axis++) sums[axis] += *(const vec *)(g + c) * by[axis];
        }
        for (; c < r->channels; c++)
            for (int k = 0; k < 8; k++)
                for (int axis = 0; axis < 3; axis++) along[axis] += slope[axis * 8 + k] * row[k][c] * g[c];
        for (int axis = 0; axis < 3; axis++) r->out[n * 3 + axis] = along[axis] + sum_of(sums[axis]);
    }
}

int ponder3d_read_along(const float *rows, const int64_t *index, const float *slope, const float *g, float *out,
                        int64_t num, int64_t channels, int64_t row_stride, int num_threads) {
    Read job = {rows, NULL, slope, g, index, out, num, channels, row_stride, 0, 0, 3};
    return run_pool(read_points_along, &job, (num + POINTS - 1) / POINTS, 1, num_threads);
}

/* ---- factors ---- */

typedef struct {
    const float *weight, *slope, *direction; /* [num, 8]; [num, 3, 8]; [num, 3] */
    float *out;                              /* [num, 8, 2] */
    int64_t num;
} Factors;

static void factors_of(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Factors *f = job;
    const int64_t last = min64((item + 1) * POINTS, f->num);
    for (int64_t n = item * POINTS; n < last; n++) {
        const float *w = f->weight + n * 8, *s = f->slope + n * 24, *d = f->direction + n * 3;
        float *out = f->out + n * 16;
        for (int k = 0; k < 8; k++) {
            out[2 * k] = w[k];
            out[2 * k + 1] = s[k] * d[0] + s[8 + k] * d[1] + s[16 + k] * d[2];
        }
    }
}

int ponder3d_factors(const float *weight, const float *slope, const float *direction, float *out, int64_t num,
                     int num_threads) {
    Factors job = {weight, slope, direction, out, num};
    return run_pool(factors_of, &job, (num + POINTS - 1) / POINTS, 1, num_threads);
}

/* ---- add ---- */

typedef struct {
    const int64_t *index;        /* [num, 8], as corners makes it: the first is the lowest, the last the highest */
    const float *weight;         /* [num, 8, terms] */
    const float *values, *rest;  /* [1 or 2, num, channels]; [num, further], which has the first term only */
    float *out;                  /* [num_rows, width], at least channels + further wide */
    int64_t num, terms, channels, further, rest_stride, num_rows, width, rows; /* rows: of an item of work */
} Add;

static inline void add_scaled(float *to, const float *from, float factor, int64_t num) {
    int64_t c = 0;
    for (; c + VW <= num; c += VW) *(vec *)(to + c) += factor * *(const vec *)(from + c);
    for (; c < num; c++) to[c] += factor * from[c];
}

static inline void add_two_scaled(float *to, const float *a, float p, const float *b, float q, int64_t num) {
    int64_t c = 0;
    for (; c + VW <= num; c += VW) *(vec *)(to + c) += p * *(const vec *)(a + c) + q * *(const vec *)(b + c);
    for (; c < num; c++) to[c] += p * a[c] + q * b[c];
}

static void add_to_rows(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Add *s = job;
    const int64_t first = item * s->rows, end = min64(first + s->rows, s->num_rows);
    for (int64_t n = 0; n < s->num; n++) {
        const int64_t *index = s->index + n * 8;
        if (index[7] < first || index[0] >= end) continue;
        for (int k = 0; k < 8; k++) {
            if (index[k] < first || index[k] >= end) continue;
            const float *weight = s->weight + (n * 8 + k) * s->terms;
            float *out = s->out + index[k] * s->width;
            const float *values = s->values + n * s->channels;
            if (s->terms == 2)
                add_two_scaled(out, values, weight[0], values + s->num * s->channels, weight[1], s->channels);
            else
                add_scaled(out, values, weight[0], s->channels);
            add_scaled(out + s->channels, s->rest + n * s->rest_stride, weight[0], s->further);
        }
    }
}

int ponder3d_add(const int64_t *index, const float *weight, const float *values, const float *rest, float *out,
                     int64_t num, int64_t terms, int64_t channels, int64_t further, int64_t rest_stride,
                     int64_t num_rows, int64_t width, int num_threads) {
    /* Rays crowd some rows: a few ranges for each thread even that out. */
    const int64_t parts = num_threads > 1 ? 4 * num_threads : 1, rows = (num_rows + parts - 1) / parts;
    Add job = {index, weight, values, rest, out, num, terms, channels, further, rest_stride, num_rows, width, rows};
    return run_pool(add_to_rows, &job, rows ? (num_rows + rows - 1) / rows : 0, 1, num_threads);
}
