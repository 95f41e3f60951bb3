/* Grids on a CPU: the compiled twins of functions of grid.py.
 *
 * Keys are sorted by radix, least significant digit first: stable, so the result is one and the same for any number of
 * threads. What is sorted is not the 63 bits of a key, but its number in the box of cells that the keys span, 24 bits
 * for a room in voxels of 2 cm, with the point's own number below it in the same word. Points are cut into as many
 * parts as there are threads; in every pass each part counts its digits, and then moves its words.
 *
 * Bytes and operations are counted in benchmarks/transforms.py: 185 bytes a point for voxelize with three passes. */

#include "cpu_pool.h"

#define AXIS_BITS 17
#define HALF (1 << (AXIS_BITS - 1))
#define MASK ((1 << AXIS_BITS) - 1)
#define POINTS 512      /* of an item of work */
#define DIGIT_BITS 11   /* of a pass, at most: 2048 places to write at; more do not fit the first cache */
#define PART 32768      /* points, at least, that are worth a thread */
#define MAX_PARTS 64
#define AHEAD 16        /* rows that are asked for before they are read */

/* ---- keys ---- */

typedef struct {
    const float *xyz;      /* [num, 3] */
    const int64_t *scene;  /* [num] */
    int64_t *keys;         /* [num] */
    int64_t num, max_scenes;
    float size, limit;
    int bad;
} Keys;

static void keys_of(void *job, int64_t item, float *scratch) {
    (void)scratch;
    Keys *k = job;
    const int64_t first = item * POINTS, num = min64(POINTS, k->num - first);
    const float *xyz = k->xyz + first * 3, size = k->size, lowest = -k->limit, end = k->limit + 1;
    int32_t cells[POINTS * 3];
    int bad = 0;
    for (int64_t i = 0; i < num * 3; i++) {
        const float at = xyz[i] / size;
        const int fine = (at >= lowest) & (at < end); /* not for NaN */
        const float held = fine ? at : 0;
        const int32_t whole = (int32_t)held;
        cells[i] = whole - ((float)whole > held);
        bad |= !fine;
    }
    for (int64_t i = 0; i < num; i++) {
        const int64_t scene = k->scene[first + i];
        uint64_t key = (uint64_t)scene;
        for (int axis = 0; axis < 3; axis++) key = key << AXIS_BITS | (uint64_t)(cells[i * 3 + axis] + HALF);
        k->keys[first + i] = (int64_t)key;
        bad |= scene >= k->max_scenes;
    }
    if (bad) __atomic_store_n(&k->bad, 1, __ATOMIC_RELAXED);
}

/* 2: a point or a scene has no key. */
int ponder3d_pack(const float *xyz, const int64_t *scene, int64_t *keys, int64_t num, float size, int64_t limit,
                  int64_t max_scenes, int num_threads) {
    Keys job = {xyz, scene, keys, num, max_scenes, size, (float)limit, 0};
    const int failed = run_pool(keys_of, &job, (num + POINTS - 1) / POINTS, 1, num_threads);
    return failed ? failed : 2 * job.bad;
}

typedef struct {
    const int64_t *keys;
    int64_t *coords; /* [num, 4] */
    int64_t num;
} Unpack;

static void unpack(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Unpack *u = job;
    for (int64_t i = item * PART; i < min64((item + 1) * PART, u->num); i++) {
        const int64_t key = u->keys[i];
        u->coords[i * 4] = key >> 3 * AXIS_BITS;
        for (int axis = 1; axis < 4; axis++) u->coords[i * 4 + axis] = (key >> (3 - axis) * AXIS_BITS & MASK) - HALF;
    }
}

int ponder3d_unpack(const int64_t *keys, int64_t *coords, int64_t num, int num_threads) {
    Unpack job = {keys, coords, num};
    return run_pool(unpack, &job, (num + PART - 1) / PART, 1, num_threads);
}

/* ---- unique ---- */

typedef struct {
    int64_t lo[4], hi[4]; /* of scene, x, y, z */
    int64_t num_unique;
    int64_t places[1 << DIGIT_BITS];
} Part;

typedef struct {
    const int64_t *keys;
    int64_t num, num_parts, num_unique;
    Part *parts;
    uint64_t *from, *to; /* [num, words]: the key's number above the point's; with two words, the point's in the second */
    int64_t lo[4];
    uint64_t masks[4]; /* of a field within a number */
    int below[4];      /* bits of a number below the field */
    int words, index_bits, shift, digit_bits;
    int64_t *order, *voxel, *starts, *unique, *counts;
} Sort;

static inline int64_t part_start(const Sort *s, int64_t part) { return s->num * part / s->num_parts; }

static inline int bits_of(uint64_t most) { return most ? 64 - __builtin_clzll(most) : 0; }

static inline uint64_t number_of(const Sort *s, int64_t i) {
    return s->words == 1 ? s->from[i] >> s->index_bits : s->from[2 * i];
}

static inline int64_t point_of(const Sort *s, int64_t i) {
    return (int64_t)(s->words == 1 ? s->from[i] & (((uint64_t)1 << s->index_bits) - 1) : s->from[2 * i + 1]);
}

static void span(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    int32_t lo[4], hi[4];
    for (int f = 0; f < 4; f++) lo[f] = INT32_MAX, hi[f] = INT32_MIN;
    for (int64_t i = part_start(s, item); i < part_start(s, item + 1); i++) {
        const int64_t key = s->keys[i];
        const int32_t field[4] = {(int32_t)(key >> 3 * AXIS_BITS), (int32_t)(key >> 2 * AXIS_BITS & MASK),
                                  (int32_t)(key >> AXIS_BITS & MASK), (int32_t)(key & MASK)};
        for (int f = 0; f < 4; f++) {
            lo[f] = field[f] < lo[f] ? field[f] : lo[f];
            hi[f] = field[f] > hi[f] ? field[f] : hi[f];
        }
    }
    for (int f = 0; f < 4; f++) s->parts[item].lo[f] = lo[f], s->parts[item].hi[f] = hi[f];
}

static void make_words(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    for (int64_t i = part_start(s, item); i < part_start(s, item + 1); i++) {
        const int64_t key = s->keys[i];
        const uint64_t number = (uint64_t)((key >> 3 * AXIS_BITS) - s->lo[0]) << s->below[0]
                              | (uint64_t)((key >> 2 * AXIS_BITS & MASK) - s->lo[1]) << s->below[1]
                              | (uint64_t)((key >> AXIS_BITS & MASK) - s->lo[2]) << s->below[2]
                              | (uint64_t)((key & MASK) - s->lo[3]);
        if (s->words == 1)
            s->from[i] = number << s->index_bits | (uint64_t)i;
        else
            s->from[2 * i] = number, s->from[2 * i + 1] = (uint64_t)i;
    }
}

static void count_digits(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    int64_t *places = s->parts[item].places;
    const uint64_t mask = ((uint64_t)1 << s->digit_bits) - 1;
    memset(places, 0, sizeof(int64_t) << s->digit_bits);
    for (int64_t i = part_start(s, item); i < part_start(s, item + 1); i++)
        places[s->from[i * s->words] >> s->shift & mask]++;
}

static void move_words(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    int64_t *places = s->parts[item].places;
    const uint64_t mask = ((uint64_t)1 << s->digit_bits) - 1, *from = s->from;
    uint64_t *to = s->to;
    const int64_t last = part_start(s, item + 1);
    const int shift = s->shift;
    if (s->words == 1)
        for (int64_t i = part_start(s, item); i < last; i++) to[places[from[i] >> shift & mask]++] = from[i];
    else
        for (int64_t i = part_start(s, item); i < last; i++) {
            const int64_t place = places[from[2 * i] >> shift & mask]++;
            to[2 * place] = from[2 * i], to[2 * place + 1] = from[2 * i + 1];
        }
}

static void count_unique(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    int64_t num = 0;
    for (int64_t i = part_start(s, item); i < part_start(s, item + 1); i++)
        num += i == 0 || number_of(s, i) != number_of(s, i - 1);
    s->parts[item].num_unique = num;
}

static void write_points(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    int64_t row = -1;
    for (int64_t part = 0; part < item; part++) row += s->parts[part].num_unique;
    for (int64_t i = part_start(s, item); i < part_start(s, item + 1); i++) {
        const int64_t point = point_of(s, i);
        if (i == 0 || number_of(s, i) != number_of(s, i - 1)) s->starts[++row] = i;
        s->order[i] = point;
        s->voxel[point] = row;
    }
}

static void write_unique(void *job, int64_t item, float *scratch) {
    (void)scratch;
    const Sort *s = job;
    const int64_t end = s->num_unique * (item + 1) / s->num_parts;
    for (int64_t row = s->num_unique * item / s->num_parts; row < end; row++) {
        const int64_t start = s->starts[row], next = row + 1 < s->num_unique ? s->starts[row + 1] : s->num;
        const uint64_t number = number_of(s, start);
        uint64_t key = 0;
        for (int f = 0; f < 4; f++)
            key = key << AXIS_BITS | ((uint64_t)s->lo[f] + (number >> s->below[f] & s->masks[f]));
        s->unique[row] = (int64_t)key;
        s->counts[row] = next - start;
    }
}

/* Says how keys become words; returns the bits of a key's number. */
static int lay_out(Sort *s) {
    int key_bits = 0;
    for (int f = 3; f >= 0; f--) {
        int64_t hi = s->parts[0].hi[f];
        s->lo[f] = s->parts[0].lo[f];
        for (int64_t part = 1; part < s->num_parts; part++) {
            s->lo[f] = min64(s->lo[f], s->parts[part].lo[f]);
            hi = hi > s->parts[part].hi[f] ? hi : s->parts[part].hi[f];
        }
        const int bits = bits_of((uint64_t)(hi - s->lo[f]));
        s->below[f] = key_bits, s->masks[f] = ((uint64_t)1 << bits) - 1;
        key_bits += bits;
    }
    s->index_bits = bits_of((uint64_t)s->num - 1);
    s->words = key_bits + s->index_bits <= 64 ? 1 : 2;
    return key_bits;
}

/* Sorts the words by the key's number. */
static int sort_words(Sort *s, int key_bits, int num_threads) {
    const int passes = (key_bits + DIGIT_BITS - 1) / DIGIT_BITS;
    int failed = 0, done = 0;
    for (int pass = 0; pass < passes && !failed; pass++) {
        s->digit_bits = (key_bits - done + passes - pass - 1) / (passes - pass);
        s->shift = done + (s->words == 1 ? s->index_bits : 0);
        failed = run_pool(count_digits, s, s->num_parts, 1, num_threads);
        int64_t place = 0;
        for (int64_t digit = 0; digit < (int64_t)1 << s->digit_bits; digit++)
            for (int64_t part = 0; part < s->num_parts; part++) {
                const int64_t count = s->parts[part].places[digit];
                s->parts[part].places[digit] = place;
                place += count;
            }
        if (!failed) failed = run_pool(move_words, s, s->num_parts, 1, num_threads);
        uint64_t *sorted = s->to;
        s->to = s->from, s->from = sorted;
        done += s->digit_bits;
    }
    return failed;
}

/* Of num rows of unique and counts, num_unique are written. */
int ponder3d_unique(const int64_t *keys, int64_t *order, int64_t *voxel, int64_t *unique, int64_t *counts,
                    int64_t *num_unique, int64_t num, int num_threads) {
    int64_t num_parts = min64(min64(num_threads, MAX_PARTS), num / PART);
    if (num_parts < 1) num_parts = 1;
    *num_unique = 0;
    if (num == 0) return 0;
    Sort s = {.keys = keys, .num = num, .num_parts = num_parts, .order = order, .voxel = voxel, .unique = unique,
              .counts = counts, .parts = malloc(sizeof(Part) * num_parts)};
    int failed = !s.parts || run_pool(span, &s, num_parts, 1, num_threads);
    uint64_t *memory = NULL;
    if (!failed) {
        const int key_bits = lay_out(&s);
        memory = malloc(sizeof(uint64_t) * 2 * s.words * num);
        s.from = memory, s.to = memory + s.words * num;
        failed = !memory || run_pool(make_words, &s, num_parts, 1, num_threads) || sort_words(&s, key_bits, num_threads)
              || run_pool(count_unique, &s, num_parts, 1, num_threads);
    }
    if (!failed) {
        for (int64_t part = 0; part < num_parts; part++) s.num_unique += s.parts[part].num_unique;
        s.starts = (int64_t *)s.to; /* nothing is moved any more */
        failed = run_pool(write_points, &s, num_parts, 1, num_threads)
              || run_pool(write_unique, &s, num_parts, 1, num_threads);
        *num_unique = s.num_unique;
    }
    free(memory);
    free(s.parts);
    return failed;
}

/* ---- one point of each voxel ---- */

/* Of the points of a voxel, or of the preferred among them if there are any, the one at a share of their number. */
int ponder3d_pick(const int64_t *order, const int64_t *counts, const float *share, const uint8_t *preferred,
                  int64_t *rows, int64_t num, int num_threads) {
    (void)num_threads;
    for (int64_t v = 0, first = 0; v < num; first += counts[v++]) {
        int64_t choices = 0, skip;
        if (preferred)
            for (int64_t i = first; i < first + counts[v]; i++) choices += preferred[order[i]];
        const int among = choices > 0 && choices < counts[v];
        if (!choices) choices = counts[v];
        skip = min64((int64_t)(share[v] * (float)choices), choices - 1);
        int64_t i = first + (among ? 0 : skip);
        if (among)
            for (;; i++)
                if (preferred[order[i]] && skip-- == 0) break;
        rows[v] = order[i];
    }
    return 0;
}

/* Point turn mod count of every voxel, in ascending order: a bit for each of num_points, no sort. */
int ponder3d_fragment(const int64_t *order, const int64_t *counts, int64_t *rows, int64_t turn, int64_t num,
                      int64_t num_points, int num_threads) {
    (void)num_threads;
    uint64_t *chosen = calloc((num_points + 63) / 64 + 1, sizeof(uint64_t));
    if (!chosen) return 1;
    for (int64_t v = 0, first = 0; v < num; first += counts[v++]) {
        const int64_t row = order[first + (turn < counts[v] ? turn : turn % counts[v])];
        chosen[row >> 6] |= (uint64_t)1 << (row & 63);
    }
    for (int64_t word = 0; word < (num_points + 63) / 64; word++)
        for (uint64_t left = chosen[word]; left; left &= left - 1) *rows++ = word * 64 + __builtin_ctzll(left);
    free(chosen);
    return 0;
}

/* ---- rows of a column ---- */

typedef struct {
    const char *from;
    const int64_t *rows;
    char *to;
    int64_t num, num_from, bytes;
    int bad;
} Rows;

static inline void copy_rows(Rows *r, int64_t first, int64_t last, int64_t bytes) {
    int bad = 0;
    for (int64_t i = first; i < last; i++) {
        const int64_t row = r->rows[i], later = r->rows[min64(i + AHEAD, last - 1)];
        __builtin_prefetch(r->from + later * bytes);
        if (row < 0 || row >= r->num_from)
            bad = 1;
        else
            memcpy(r->to + i * bytes, r->from + row * bytes, bytes);
    }
    if (bad) __atomic_store_n(&r->bad, 1, __ATOMIC_RELAXED);
}

static void rows_of(void *job, int64_t item, float *scratch) {
    (void)scratch;
    Rows *r = job;
    const int64_t first = item * PART, last = min64(first + PART, r->num);
    /* A copy of a length that the compiler knows is one or two moves. */
    if (r->bytes == 4) copy_rows(r, first, last, 4);
    else if (r->bytes == 8) copy_rows(r, first, last, 8);
    else if (r->bytes == 12) copy_rows(r, first, last, 12);
    else copy_rows(r, first, last, r->bytes);
}

/* 2: a row that is not there. */
int ponder3d_rows(const char *from, const int64_t *rows, char *to, int64_t num, int64_t num_from, int64_t bytes,
                  int num_threads) {
    Rows job = {from, rows, to, num, num_from, bytes, 0};
    const int failed = run_pool(rows_of, &job, (num + PART - 1) / PART, 1, num_threads);
    return failed ? failed : 2 * job.bad;
}
