/* initial_weights.c - draws strips of latents and hands them to the backend; see initial_weights.h. */
#include "initial_weights.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "rng.h"

#define STRIP_FLOATS ((size_t)1 << 20)

void initial_decoder(float *v, size_t n_sites, size_t d_model, size_t j, double dec_init_norm, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, RNG_INIT_WEIGHTS, j);
    for (size_t site = 0; site < n_sites; site++, v += d_model) {
        double squares = 0;
        for (size_t i = 0; i < d_model; i++) {
            v[i] = (float)rng_normal(&r);
            squares += (double)v[i] * (double)v[i];
        }
        double factor = squares > 0 ? dec_init_norm / sqrt(squares) : 0;
        for (size_t i = 0; i < d_model; i++)
            v[i] = (float)(factor * (double)v[i]);
    }
}

int initial_weights(struct backend *b, double dec_init_norm, uint64_t seed, struct err *e)
{
    const struct backend_setup *s = &b->setup;
    size_t n_inputs = s->n_sites * s->d_model, most = STRIP_FLOATS / n_inputs + 1,
           strip = most < s->d_sae ? most : s->d_sae, zeros = s->d_sae > n_inputs ? s->d_sae : n_inputs;
    float *v = mem_alloc(strip * n_inputs > zeros ? strip * n_inputs : zeros, sizeof *v, "strip of initial weights", e);
    if (!v)
        return ERR_MEMORY;
    int rc = backend_put_all(b, "b_enc", v, e);
    if (!rc)
        rc = backend_put_all(b, "b_dec", v, e);
    for (size_t first = 0; !rc && first < s->d_sae; first += strip) {
        struct backend_range range = {
            .row = first, .n_rows = s->d_sae - first < strip ? s->d_sae - first : strip, .n_columns = n_inputs};
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < range.n_rows; j++)
            initial_decoder(v + j * n_inputs, s->n_sites, s->d_model, first + j, dec_init_norm, seed);
        rc = b->ops->put(b, "W_dec", &range, v, e);
        if (!rc)
            rc = b->ops->put(b, "W_enc", &range, v, e);
    }
    mem_free(v);
    return rc;
}
