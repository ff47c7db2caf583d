/* kernels.h - the inner loops of a sparse step and of Adam, in AVX-512, AVX2 and plain vectors of four.
 *
 * Rows of a tile (tiles.h) are `lanes` floats, 16, 32, 64 or 128, zero where the tile is narrower than that. An entry e
 * of a latent's active list is a row number and a value. All versions give the same bits: sums run in the same order
 * whatever the vector's width, dot products over 16 partial sums, and nothing is contracted to a fused multiply-add
 * (the loops are bound by the second-level cache, where it gains little). */
#ifndef CROSSFEED_KERNELS_H
#define CROSSFEED_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* So many row numbers after a list's last are read too, to fetch those rows in advance; they may be anything. */
enum { ROWS_AHEAD = 8 };

/* Adam's scalars for one step (adam.h). */
struct adam_factors {
    float grad_scale; /* the clipping coefficient */
    float one_minus_beta1, beta2, one_minus_beta2;
    float step_size, correction2, eps; /* lr / (1 - beta1^t), sqrt(1 - beta2^t) */
};

struct kernels {
    const char *name;
    /* tile[row[e]] += a[e] * w     w: [lanes] */
    void (*scatter)(float *tile, size_t lanes, const float *w, const uint32_t *row, const float *a, size_t n);
    /* sum = sum over e of a[e] * tile[row[e]]     sum: [lanes], overwritten */
    void (*gather)(float *sum, const float *tile, size_t lanes, const uint32_t *row, const float *a, size_t n);
    /* gather, and dot[e] += w . tile[row[e]] */
    void (*gather_dot)(float *sum, float *dot, const float *tile, size_t lanes, const float *w, const uint32_t *row,
                       const float *a, size_t n);
    /* g = scale * g + factor * w     [n] */
    void (*combine)(float *g, float scale, float factor, const float *w, size_t n);
    /* sum of v[i]^2, in 16 partial sums */
    double (*squares)(const float *v, size_t n);
    /* adam.h's update of p, m, v with the gradient grad_scale * g     [n] */
    void (*adam)(const struct adam_factors *k, float *p, float *m, float *v, const float *g, size_t n);
    /* f = ReLU(f + bias), NaN stays; count[i] += f[i] is not 0     [n] */
    void (*threshold)(float *f, const float *bias, uint32_t *count, size_t n);
    /* f = f + bias where (f + bias) * factor is above 0 and at least bound, else 0, NaN stays; count[i] += f[i] is not 0     [n] */
    void (*select)(float *f, const float *bias, const float *factor, float bound, uint32_t *count, size_t n);
    /* The i in ascending order with f[i] not +0, NaN and -0 among them; returns how many. index: [n] */
    size_t (*nonzeros)(const float *f, size_t n, uint32_t *index);
};

/* Makes this thread take denormal numbers for zero until the restore (where the processor can: x86). */
uint32_t kernels_flush_denormals(void);
void kernels_restore_denormals(uint32_t mode);

/* Returns the best version that this processor runs. */
const struct kernels *kernels_best(void);

/* Returns the i-th version that this processor runs, from 0 (the best) on; NULL after the last. */
const struct kernels *kernels_version(size_t i);

#endif
