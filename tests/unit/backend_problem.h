/* backend_problem.h - what tests of training begin with: the reference's objective, and a backend filled from memory. Include after
 * cmocka.h. */
#ifndef CROSSFEED_BACKEND_PROBLEM_H
#define CROSSFEED_BACKEND_PROBLEM_H

#include <stdlib.h>
#include <string.h>

#include "cpu_backend.h"
#include "crosscoder.h"
#include "initial_weights.h"

/* Returns the reference's objective: relu, squared error plus l1. */
static inline struct backend_setup relu_setup(size_t n_sites, size_t d_model, size_t d_sae, size_t batch_size,
                                              enum step_path path, bool keep_gradients)
{
    return (struct backend_setup){.n_sites = n_sites,
                                  .d_model = d_model,
                                  .d_sae = d_sae,
                                  .batch_size = batch_size,
                                  .activation = "relu",
                                  .terms = {"l2", "l1"},
                                  .n_terms = 2,
                                  .path = path,
                                  .keep_gradients = keep_gradients};
}

/* Fills c as initial_weights fills a backend. */
static inline void draw_weights(struct crosscoder *c, double norm, uint64_t seed)
{
    memset(c->params, 0, c->n_params * sizeof *c->params);
    for (size_t j = 0; j < c->d_sae; j++)
        initial_decoder(c->w_dec + j * c->n_inputs, c->n_sites, c->d_model, j, norm, seed);
    memcpy(c->w_enc, c->w_dec, c->d_sae * c->n_inputs * sizeof *c->w_enc);
}

static inline struct backend *open_cpu(const struct backend_setup *setup)
{
    struct backend *b;
    struct err e = {0};
    if (backend_cpu.open(&b, setup, &e))
        fail_msg("%s", e.message);
    return b;
}

/* Puts the parameters, in the order of crosscoder.h, into b, or gets them from there. */
static inline void put_params(struct backend *b, const float *params)
{
    size_t matrix = b->setup.d_sae * b->setup.n_sites * b->setup.d_model;
    assert_int_equal(backend_put_all(b, "W_enc", params, NULL), 0);
    assert_int_equal(backend_put_all(b, "W_dec", params + matrix, NULL), 0);
    assert_int_equal(backend_put_all(b, "b_enc", params + 2 * matrix, NULL), 0);
    assert_int_equal(backend_put_all(b, "b_dec", params + 2 * matrix + b->setup.d_sae, NULL), 0);
}

static inline void get_params(const struct backend *b, float *params)
{
    size_t matrix = b->setup.d_sae * b->setup.n_sites * b->setup.d_model;
    assert_int_equal(backend_get_all(b, "W_enc", params, NULL), 0);
    assert_int_equal(backend_get_all(b, "W_dec", params + matrix, NULL), 0);
    assert_int_equal(backend_get_all(b, "b_enc", params + 2 * matrix, NULL), 0);
    assert_int_equal(backend_get_all(b, "b_dec", params + 2 * matrix + b->setup.d_sae, NULL), 0);
}

#endif
