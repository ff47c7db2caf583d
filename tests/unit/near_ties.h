/* near_ties.h - which entries a step selected, as one number, and whether rounding explains that another computation selected others.
 *
 * A digest is the exclusive or, over entries, of their places mixed (splitmix64), as in tools/reference/objectives_reference.py: two sets'
 * digests differ by the digest of the entries in which the sets differ. So that difference is looked for among the few entries whose score
 * is within NEAR of its bound, relative to it; if no choice of these gives it, the sets differ by more than rounding. Include after
 * cmocka.h. */
#ifndef CROSSFEED_NEAR_TIES_H
#define CROSSFEED_NEAR_TIES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "active.h"
#include "backend.h"

#define NEAR 1e-5

enum { NEAR_MOST = 16 };

static inline uint64_t digest_of(size_t place)
{
    uint64_t z = ((uint64_t)place + 1) * 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

/* Returns the digest of the entries above 0 in the lists, or in f [rows, d_sae] if there are none, and counts them. */
static inline uint64_t digest_entries(const struct active *a, const float *f, size_t rows, size_t d_sae, size_t *n)
{
    uint64_t digest = 0;
    *n = 0;
    for (size_t j = 0; a && j < d_sae; j++)
        for (size_t i = a->begin[j]; i < a->begin[j + 1]; i++)
            if (a->f[i] > 0) {
                digest ^= digest_of(a->row[i] * d_sae + j);
                ++*n;
            }
    for (size_t i = 0; !a && i < rows * d_sae; i++)
        if (f[i] > 0) {
            digest ^= digest_of(i);
            ++*n;
        }
    return digest;
}

/* Scores in double, and what an entry must reach to be selected: its own bound (relu 0, jumprelu theta), or the n-th greatest of its row or
 * of all. Of a bound that is 0, nearness counts in units of what the score was summed from. */
struct near_ties {
    size_t rows, d_sae;
    double *score, *bound, *unit; /* [rows, d_sae] */
};

/* Fills scores from the parameters w_enc [d_sae, n_inputs], b_enc and the scores' factors; bounds are 0. */
static inline struct near_ties near_ties_new(const float *w_enc, const float *b_enc, const double *factor,
                                             const float *x, size_t rows, size_t n_inputs, size_t d_sae)
{
    struct near_ties t = {rows, d_sae, NULL, NULL, NULL};
    t.score = calloc(3 * rows * d_sae, sizeof *t.score);
    t.bound = t.score + rows * d_sae;
    t.unit = t.bound + rows * d_sae;
    for (size_t i = 0; i < rows * d_sae; i++) {
        size_t row = i / d_sae, j = i % d_sae;
        double p = (double)b_enc[j], unit = fabs(p);
        for (size_t k = 0; k < n_inputs; k++) {
            double product = (double)w_enc[j * n_inputs + k] * (double)x[row * n_inputs + k];
            p += product;
            unit += fabs(product);
        }
        t.score[i] = factor[j] * p;
        t.unit[i] = factor[j] * unit;
    }
    return t;
}

static inline void near_ties_free(struct near_ties *t)
{
    free(t->score);
}

static inline int near_ties_descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Sets the bound of rows [first, first + n_rows): the n-th greatest positive score of them all, 0 if there are fewer. Latents that are not
 * among those given (NULL: all are) have no score. */
static inline void near_ties_bound(struct near_ties *t, size_t first, size_t n_rows, size_t n, const bool *among)
{
    double *begin = t->score + first * t->d_sae, *sorted = calloc(n_rows * t->d_sae, sizeof *sorted);
    for (size_t i = 0; i < n_rows * t->d_sae; i++) {
        if (among && !among[i % t->d_sae])
            begin[i] = -INFINITY;
        sorted[i] = begin[i];
    }
    qsort(sorted, n_rows * t->d_sae, sizeof *sorted, near_ties_descending);
    double bound = n <= n_rows * t->d_sae && sorted[n - 1] > 0 ? sorted[n - 1] : 0;
    for (size_t i = 0; i < n_rows * t->d_sae; i++)
        t->bound[first * t->d_sae + i] = bound;
    free(sorted);
}

/* Returns how many entries near their bounds differ between two sets whose digests differ by difference; SIZE_MAX if that does not explain
 * it. */
static inline size_t near_ties_explain(const struct near_ties *t, uint64_t difference)
{
    uint64_t near[NEAR_MOST];
    size_t n = 0;
    for (size_t i = 0; i < t->rows * t->d_sae; i++) {
        double unit = t->bound[i] > 0 ? t->bound[i] : t->unit[i];
        if (fabs(t->score[i] - t->bound[i]) <= NEAR * unit) {
            if (n == NEAR_MOST)
                return SIZE_MAX;
            near[n++] = digest_of(i);
        }
    }
    for (size_t choice = 1; choice < (size_t)1 << n; choice++) {
        uint64_t d = difference;
        size_t chosen = 0;
        for (size_t i = 0; i < n; i++)
            if (choice >> i & 1) {
                d ^= near[i];
                chosen++;
            }
        if (d == 0)
            return chosen;
    }
    return SIZE_MAX;
}

#endif
