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

/* Fills the decoder vector of latent j, v [n_inputs]: jumprelu's start. */
static void uniform_decoder(float *v, size_t n_inputs, size_t j, uint64_t seed)
{
    struct rng r;
    double most = 1 / sqrt((double)n_inputs);
    rng_init(&r, seed, RNG_INIT_WEIGHTS, j);
    for (size_t i = 0; i < n_inputs; i++)
        v[i] = (float)(most * (2 * rng_uniform(&r) - 1));
}

/* Fills the decoder vector of latent j, v [n_inputs], as the setup and the options want it. */
static void draw(const struct backend_setup *s, const struct initial_weights *o, size_t j, float *v)
{
    size_t n_inputs = s->n_sites * s->d_model;
    if (backend_has_thresholds(s))
        uniform_decoder(v, n_inputs, j, o->seed);
    else
        initial_decoder(v, s->n_sites, s->d_model, j, o->dec_init_norm, o->seed);
    if (o->tied_models || j < s->partition.shared)
        memcpy(v + n_inputs / 2, v, n_inputs / 2 * sizeof *v);
    for (size_t site = 0; site < s->n_sites; site++)
        if (!backend_may_see(s, j, site))
            memset(v + site * s->d_model, 0, s->d_model * sizeof *v);
}

/* Fills the vectors that do not depend on what is drawn. v: zeros [d_sae or n_inputs, whichever is more], and zeros afterwards. */
static int put_vectors(struct backend *b, const struct initial_weights *o, float *v, struct err *e)
{
    size_t n = b->setup.d_sae;
    if (backend_put_all(b, "b_enc", v, e) || backend_put_all(b, "b_dec", v, e))
        return e->code;
    if (!backend_has_thresholds(&b->setup))
        return 0;
    for (size_t j = 0; j < n; j++)
        v[j] = (float)o->log_threshold;
    int rc = backend_put_all(b, "log_threshold", v, e);
    memset(v, 0, n * sizeof *v);
    return rc;
}

int initial_weights(struct backend *b, const struct initial_weights *o, struct err *e)
{
    const struct backend_setup *s = &b->setup;
    size_t n_inputs = s->n_sites * s->d_model, most = STRIP_FLOATS / n_inputs + 1,
           strip = most < s->d_sae ? most : s->d_sae, zeros = s->d_sae > n_inputs ? s->d_sae : n_inputs;
    float *v = mem_alloc(strip * n_inputs > zeros ? strip * n_inputs : zeros, sizeof *v, "strip of initial weights", e);
    if (!v)
        return ERR_MEMORY;
    int rc = put_vectors(b, o, v, e);
    float to_encoder = backend_has_thresholds(s) ? (float)((double)n_inputs / (double)s->d_sae) : 1;
    for (size_t first = 0; !rc && first < s->d_sae; first += strip) {
        struct backend_range range = {
            .row = first, .n_rows = s->d_sae - first < strip ? s->d_sae - first : strip, .n_columns = n_inputs};
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < range.n_rows; j++)
            draw(s, o, first + j, v + j * n_inputs);
        rc = b->ops->put(b, "W_dec", &range, v, e);
        for (size_t i = 0; i < range.n_rows * n_inputs; i++)
            v[i] *= to_encoder;
        if (!rc)
            rc = b->ops->put(b, "W_enc", &range, v, e);
    }
    mem_free(v);
    return rc;
}
