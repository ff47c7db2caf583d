/* crosscoder.c - see crosscoder.h. */
#include "crosscoder.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "rng.h"
#include "stream.h"

int crosscoder_n_params(size_t n_sites, size_t d_model, size_t d_sae, size_t *n_params, struct err *e)
{
    size_t n_inputs, matrix, n, bytes;
    if (n_sites == 0 || n_sites > STREAM_MAX_SITES || d_model == 0 || d_sae == 0)
        return err_set(e, ERR_INPUT, "crosscoder: %zu sites (1 to %d), d_model %zu, d_sae %zu", n_sites,
                       STREAM_MAX_SITES, d_model, d_sae);
    if (!size_mul(n_sites, d_model, &n_inputs) || !size_mul(n_inputs, d_sae, &matrix) || !size_mul(matrix, 2, &n) ||
        __builtin_add_overflow(n, n_inputs, &n) || __builtin_add_overflow(n, d_sae, &n) || !size_mul(n, 16, &bytes))
        return err_set(e, ERR_MEMORY, "crosscoder: %zu sites of d_model %zu with d_sae %zu are too many parameters",
                       n_sites, d_model, d_sae);
    *n_params = n;
    return 0;
}

int crosscoder_init(struct crosscoder *c, size_t n_sites, size_t d_model, size_t d_sae, struct err *e)
{
    memset(c, 0, sizeof *c);
    size_t n_params = 0;
    int rc = crosscoder_n_params(n_sites, d_model, d_sae, &n_params, e);
    if (rc)
        return rc;
    float *params = mem_alloc(n_params, sizeof *params, "crosscoder parameters", e);
    if (!params)
        return ERR_MEMORY;
    size_t n_inputs = n_sites * d_model, matrix = d_sae * n_inputs;
    *c = (struct crosscoder){
        .n_sites = n_sites,
        .d_model = d_model,
        .n_inputs = n_inputs,
        .d_sae = d_sae,
        .n_params = n_params,
        .params = params,
        .w_enc = params,
        .w_dec = params + matrix,
        .b_enc = params + 2 * matrix,
        .b_dec = params + 2 * matrix + d_sae,
    };
    return 0;
}

void crosscoder_release(struct crosscoder *c)
{
    mem_free(c->params);
    memset(c, 0, sizeof *c);
}

void crosscoder_init_weights(struct crosscoder *c, double dec_init_norm, uint64_t seed)
{
    memset(c->params, 0, c->n_params * sizeof *c->params);
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < c->d_sae; j++) {
        struct rng r;
        rng_init(&r, seed, RNG_INIT_WEIGHTS, j);
        for (size_t site = 0; site < c->n_sites; site++) {
            float *v = c->w_dec + j * c->n_inputs + site * c->d_model;
            double squares = 0;
            for (size_t i = 0; i < c->d_model; i++) {
                v[i] = (float)rng_normal(&r);
                squares += (double)v[i] * (double)v[i];
            }
            double factor = squares > 0 ? dec_init_norm / sqrt(squares) : 0;
            for (size_t i = 0; i < c->d_model; i++)
                v[i] = (float)(factor * (double)v[i]);
        }
    }
    memcpy(c->w_enc, c->w_dec, c->d_sae * c->n_inputs * sizeof *c->w_enc);
}
