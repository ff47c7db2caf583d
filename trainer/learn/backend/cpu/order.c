/* order.c - see order.h. Scores are not negative, so their bits are in the order of their values, and a NaN's are above infinity's.
 *
 * Of a whole batch the n-th greatest is found digit by digit, in two histograms of 16 bits; of a row by partitioning. */
#include "order.h"

#include <string.h>

#include "mem.h"

enum { BINS = 1 << 16, PIECES = 16 };

static inline uint32_t score_bits(float f, float factor)
{
    float s = f * factor;
    s = s <= 0 ? 0 : s;
    uint32_t u;
    memcpy(&u, &s, 4);
    return u & 0x7fffffff;
}

static inline float from_bits(uint32_t u)
{
    float s;
    memcpy(&s, &u, 4);
    return s;
}

/* ---- memory ---- */

size_t order_memory(size_t max_rows, size_t capacity)
{
    return BINS * (PIECES * sizeof(uint32_t) + sizeof(size_t)) + (max_rows + 1) * sizeof(size_t) +
           max_rows * (sizeof(float) + sizeof(uint32_t)) + capacity * (2 * sizeof(float) + sizeof(uint32_t));
}

int order_init(struct order *o, size_t max_rows, size_t capacity, struct err *e)
{
    *o = (struct order){.max_rows = max_rows};
    if ((o->pieces = mem_alloc((size_t)BINS * PIECES, sizeof *o->pieces, "histograms", e)) &&
        (o->bins = mem_alloc(BINS, sizeof *o->bins, "histograms", e)) &&
        (o->begin = mem_alloc(max_rows + 1, sizeof *o->begin, "order of the rows", e)) &&
        (o->least = mem_alloc(max_rows, sizeof *o->least, "order of the rows", e)) &&
        (o->tie = mem_alloc(max_rows, sizeof *o->tie, "order of the rows", e)) &&
        (!capacity || ((o->score = mem_alloc(2 * capacity, sizeof *o->score, "scores by row", e)) &&
                       (o->latent = mem_alloc(capacity, sizeof *o->latent, "latents by row", e)))))
        return 0;
    order_release(o);
    return ERR_MEMORY;
}

void order_release(struct order *o)
{
    mem_free(o->pieces);
    mem_free(o->bins);
    mem_free(o->begin);
    mem_free(o->score);
    mem_free(o->latent);
    mem_free(o->least);
    mem_free(o->tie);
    *o = (struct order){0};
}

/* ---- the whole batch ---- */

/* Counts scores by their upper 16 bits or, of those whose upper bits are `upper`, by their lower 16. */
static void histogram(struct order *o, const struct active *a, size_t latents, const float *factor, bool lower,
                      uint32_t upper)
{
    size_t step = (latents + PIECES - 1) / PIECES;
#pragma omp parallel for schedule(dynamic)
    for (size_t p = 0; p < PIECES; p++) {
        uint32_t *bins = o->pieces + p * BINS;
        memset(bins, 0, BINS * sizeof *bins);
        for (size_t j = p * step; j < (p + 1) * step && j < latents; j++)
            for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++) {
                uint32_t u = score_bits(a->f[e], factor[j]);
                if (!lower)
                    bins[u >> 16]++;
                else if (u >> 16 == upper)
                    bins[u & 0xffff]++;
            }
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < BINS; i++) {
        o->bins[i] = 0;
        for (size_t p = 0; p < PIECES; p++)
            o->bins[i] += o->pieces[p * BINS + i];
    }
}

/* Returns the bin, from the top, in which the n-th entry lies; *n becomes its place in that bin, from 1. */
static uint32_t find_bin(const size_t *bins, size_t *n)
{
    uint32_t i = BINS - 1;
    while (bins[i] < *n)
        *n -= bins[i--];
    return i;
}

/* Finds the last of the entries with just this score that stay: the n-th by row and then latent. */
static void find_last_tie(struct order *o, const struct active *a, size_t latents, const float *factor, size_t rows,
                          uint32_t score, size_t n, uint32_t *last_row, size_t *last_latent)
{
    memset(o->begin, 0, (rows + 1) * sizeof *o->begin);
    for (size_t j = 0; j < latents; j++)
        for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++)
            o->begin[a->row[e]] += score_bits(a->f[e], factor[j]) == score;
    uint32_t row = 0;
    while (o->begin[row] < n)
        n -= o->begin[row++];
    for (size_t j = 0; j < latents; j++)
        for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++)
            if (a->row[e] == row && score_bits(a->f[e], factor[j]) == score && --n == 0) {
                *last_row = row;
                *last_latent = j;
                return;
            }
}

float order_keep_greatest(struct order *o, struct active *a, size_t latents, const float *factor, size_t rows, size_t n)
{
    if (a->begin[latents] <= n)
        return 0;
    size_t place = n;
    histogram(o, a, latents, factor, false, 0);
    uint32_t upper = find_bin(o->bins, &place);
    histogram(o, a, latents, factor, true, upper);
    uint32_t lower = find_bin(o->bins, &place), score = upper << 16 | lower, last_row = UINT32_MAX;
    size_t last_latent = SIZE_MAX;
    if (o->bins[lower] > place)
        find_last_tie(o, a, latents, factor, rows, score, place, &last_row, &last_latent);
    size_t to = 0;
    for (size_t j = 0, e = 0; j < latents; j++) {
        size_t end = a->begin[j + 1];
        a->begin[j] = to;
        for (; e < end; e++) {
            uint32_t u = score_bits(a->f[e], factor[j]), row = a->row[e];
            if (u > score || (u == score && (row < last_row || (row == last_row && j <= last_latent)))) {
                a->row[to] = row;
                a->f[to++] = a->f[e];
            }
        }
    }
    a->begin[latents] = to;
    return from_bits(score);
}

float order_least(const struct active *a, size_t latents, const float *factor)
{
    uint32_t least = UINT32_MAX;
#pragma omp parallel for schedule(static) reduction(min : least)
    for (size_t j = 0; j < latents; j++)
        for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++) {
            uint32_t u = score_bits(a->f[e], factor[j]);
            least = u < least ? u : least;
        }
    return least == UINT32_MAX ? 0 : from_bits(least);
}

/* ---- each row ---- */

static inline void swap(float *v, size_t i, size_t j)
{
    float t = v[i];
    v[i] = v[j];
    v[j] = t;
}

/* Returns the n-th greatest of v [size], n from 1; scores compare as their bits. Reorders v. */
static uint32_t nth_greatest(float *v, size_t size, size_t n)
{
    size_t from = 0, to = size;
    for (;;) {
        uint32_t pivot = score_bits(v[from + (to - from) * 5 / 8], 1);
        size_t above = from, i = from, below = to; /* [from, above) > pivot, [above, i) == pivot, [below, to) < pivot */
        while (i < below) {
            uint32_t u = score_bits(v[i], 1);
            if (u > pivot)
                swap(v, i++, above++);
            else if (u < pivot)
                swap(v, i, --below);
            else
                i++;
        }
        if (n <= above - from)
            to = above;
        else if (n <= below - from)
            return pivot;
        else {
            n -= below - from;
            from = below;
        }
    }
}

/* Lists each row's scores and latents one row after another, latents ascending. */
static void transpose(struct order *o, const struct active *a, size_t latents, const float *factor, size_t rows)
{
    memset(o->begin, 0, (rows + 1) * sizeof *o->begin);
    for (size_t e = 0; e < a->begin[latents]; e++)
        o->begin[a->row[e] + 1]++;
    for (size_t row = 0; row < rows; row++)
        o->begin[row + 1] += o->begin[row];
    for (size_t j = 0; j < latents; j++)
        for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++) {
            size_t at = o->begin[a->row[e]]++;
            o->score[at] = from_bits(score_bits(a->f[e], factor[j]));
            o->latent[at] = (uint32_t)j;
        }
    for (size_t row = rows; row > 0; row--)
        o->begin[row] = o->begin[row - 1];
    o->begin[0] = 0;
}

void order_keep_rows(struct order *o, struct active *a, size_t latents, const float *factor, size_t rows, size_t n)
{
    transpose(o, a, latents, factor, rows);
    float *copy = o->score + a->begin[latents];
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t row = 0; row < rows; row++) {
        size_t from = o->begin[row], size = o->begin[row + 1] - from;
        o->least[row] = 0;
        o->tie[row] = UINT32_MAX;
        if (size <= n)
            continue;
        memcpy(copy + from, o->score + from, size * sizeof *copy);
        uint32_t score = nth_greatest(copy + from, size, n);
        size_t above = 0;
        for (size_t i = from; i < from + size; i++)
            above += score_bits(o->score[i], 1) > score;
        for (size_t i = from, left = n - above; left > 0; i++)
            if (score_bits(o->score[i], 1) == score && --left == 0)
                o->tie[row] = o->latent[i];
        o->least[row] = from_bits(score);
    }
    size_t to = 0;
    for (size_t j = 0, e = 0; j < latents; j++) {
        size_t end = a->begin[j + 1];
        a->begin[j] = to;
        for (; e < end; e++) {
            uint32_t u = score_bits(a->f[e], factor[j]), row = a->row[e], least = score_bits(o->least[row], 1);
            if (u > least || (u == least && j <= o->tie[row])) {
                a->row[to] = row;
                a->f[to++] = a->f[e];
            }
        }
    }
    a->begin[latents] = to;
}
