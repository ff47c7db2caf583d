/* bench_data.c - see bench_data.h. */
#include "bench_data.h"

#include <math.h>
#include <string.h>

#include "initial_weights.h"
#include "mem.h"
#include "rng.h"

/* Returns z with P(normal > z) = p. */
static double quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 60; i++) {
        double z = (low + high) / 2;
        if (erfc(z / sqrt(2)) / 2 > p)
            low = z;
        else
            high = z;
    }
    return low;
}

int bench_weights(struct crosscoder *c, size_t l0, struct err *e)
{
    double norm = 0.1, sum = 0;
    uint32_t *rank = mem_alloc(c->d_sae, sizeof *rank, "order of the latents", e);
    if (!rank)
        return ERR_MEMORY;
#pragma omp parallel for
    for (size_t j = 0; j < c->d_sae; j++)
        initial_decoder(c->w_dec + j * c->n_inputs, c->n_sites, c->d_model, j, norm, 1);
    memcpy(c->w_enc, c->w_dec, c->d_sae * c->n_inputs * sizeof *c->w_enc);
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 0);
    rng_permutation(&r, rank, c->d_sae);
    for (size_t j = 0; j < c->d_sae; j++)
        sum += pow((double)j + 10, -0.75);
    double top = (double)l0 / sum, spread = norm * sqrt((double)c->n_sites); /* of the pre-activations: x is normal */
    for (size_t j = 0; j < c->d_sae; j++)
        c->b_enc[j] = (float)(-spread * quantile(fmin(0.5, top * pow((double)rank[j] + 10, -0.75))));
    mem_free(rank);
    return 0;
}

void bench_row(float *x, size_t n_inputs, size_t row)
{
    struct rng r;
    rng_init(&r, 2, RNG_TEST, row);
    for (size_t i = 0; i < n_inputs; i++)
        x[i] = (float)rng_normal(&r);
}
