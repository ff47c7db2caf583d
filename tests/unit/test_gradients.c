/* test_gradients.c - the hand-written backward pass against central differences of a plain loss in double.
 *
 * The loss here is written from the reference's formula, element by element, in its order of indices; it shares
 * nothing with trainer/. At a zero decoder vector the norm has a kink, where PyTorch's subgradient 0 is also what
 * central differences see. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "mem.h"
#include "rng.h"
#include "step.h"

static struct err e;

struct problem {
    struct backend_setup setup;
    struct crosscoder c;
    struct train_state t;
    size_t rows;
    double l1_coeff;
    float *x;
    const float *grad; /* the step's own, of both paths: Adam's first moment with beta1 = 0 and lr = 0 */
    double *params;    /* those of c, to be nudged */
};

/* If nearest is given, also the smallest |pre-activation|: ReLU's kink must be farther off than the nudge. */
static double plain_loss(const struct problem *p, double *nearest)
{
    size_t n_inputs = p->c.n_inputs, n_latents = p->c.d_sae;
    const double *w_enc = p->params, *w_dec = w_enc + n_latents * n_inputs, *b_enc = w_dec + n_latents * n_inputs,
                 *b_dec = b_enc + n_latents;
    double loss = 0;
    double *out = malloc(n_inputs * sizeof *out);
    for (size_t b = 0; b < p->rows; b++) {
        const float *x = p->x + b * n_inputs;
        for (size_t i = 0; i < n_inputs; i++)
            out[i] = b_dec[i];
        for (size_t j = 0; j < n_latents; j++) {
            double f = b_enc[j], norms = 0;
            for (size_t i = 0; i < n_inputs; i++)
                f += w_enc[j * n_inputs + i] * (double)x[i];
            if (nearest && fabs(f) < *nearest)
                *nearest = fabs(f);
            if (f <= 0)
                continue;
            for (size_t site = 0; site < p->c.n_sites; site++) {
                double squares = 0;
                for (size_t i = site * p->c.d_model; i < (site + 1) * p->c.d_model; i++) {
                    double w = w_dec[j * n_inputs + i];
                    out[i] += f * w;
                    squares += w * w;
                }
                norms += sqrt(squares);
            }
            loss += p->l1_coeff * f * norms;
        }
        for (size_t i = 0; i < n_inputs; i++)
            loss += (out[i] - (double)x[i]) * (out[i] - (double)x[i]);
    }
    free(out);
    return loss / (double)p->rows;
}

static void open_problem(struct problem *p, size_t n_sites, size_t d_model, size_t d_sae, size_t rows, uint64_t seed,
                         enum step_path path)
{
    p->setup = relu_setup(n_sites, d_model, d_sae, rows, path, false);
    struct rng r;
    rng_init(&r, seed, RNG_TEST, 0);
    p->rows = rows;
    p->l1_coeff = 0.7;
    assert_int_equal(crosscoder_init(&p->c, n_sites, d_model, d_sae, false, &e), 0);
    assert_int_equal(train_state_init(&p->t, &p->c, &p->setup, &e), 0);
    p->x = mem_alloc(rows * p->c.n_inputs, sizeof(float), "x", &e);
    p->grad = p->t.m;
    p->params = mem_alloc(p->c.n_params, sizeof(double), "params", &e);
    for (size_t i = 0; i < rows * p->c.n_inputs; i++)
        p->x[i] = (float)rng_normal(&r);
    for (size_t i = 0; i < p->c.n_params; i++) {
        p->c.params[i] = (float)(0.5 * rng_normal(&r));
        p->t.m[i] = 0x1p-6f; /* every element must be written */
    }
}

static void step(struct problem *p, struct step_report *r)
{
    const struct step_options o = {.adam = {0, 0.999, 1e-8}, .max_norm = INFINITY, .lr = 0, .weight = {1, p->l1_coeff}};
    assert_int_equal(train_step(&p->t, p->x, &o, r, &e), 0);
    assert_int_equal(r->path, p->setup.path);
}

static void run(struct problem *p)
{
    for (size_t i = 0; i < p->c.n_params; i++)
        p->params[i] = (double)p->c.params[i];
    double nearest = 1;
    double want = plain_loss(p, &nearest);
    assert_true(nearest > 1e-5);
    struct step_report r;
    step(p, &r);
    assert_true(fabs(r.loss - want) < 1e-6 * want);
    double norm2 = 0;
    for (size_t i = 0; i < p->c.n_params; i++)
        norm2 += (double)p->grad[i] * (double)p->grad[i];
    assert_true(fabs(r.grad_norm - sqrt(norm2)) < 1e-6 * r.grad_norm);
}

static const char *tensor_of(const struct crosscoder *c, size_t i)
{
    const float *at = c->params + i;
    return at >= c->b_dec ? "b_dec" : at >= c->b_enc ? "b_enc" : at >= c->w_dec ? "W_dec" : "W_enc";
}

/* Every stride-th parameter, to a few roundings of the largest gradient. */
static void compare(struct problem *p, size_t stride)
{
    const double h = 1e-6;
    double largest = 0;
    for (size_t i = 0; i < p->c.n_params; i++)
        largest = fmax(largest, fabs((double)p->grad[i]));
    for (size_t i = 0; i < p->c.n_params; i += stride) {
        double at = p->params[i];
        p->params[i] = at + h;
        double above = plain_loss(p, NULL);
        p->params[i] = at - h;
        double want = (above - plain_loss(p, NULL)) / (2 * h), got = (double)p->grad[i];
        p->params[i] = at;
        if (!(fabs(got - want) <= 5e-7 * (1 + largest) + 1e-5 * fabs(want)))
            fail_msg("%s, parameter %zu: gradient %.9g, central difference %.9g", tensor_of(&p->c, i), i, got, want);
    }
}

static void close_problem(struct problem *p)
{
    mem_free(p->x);
    mem_free(p->params);
    train_state_release(&p->t);
    crosscoder_release(&p->c);
}

static void all_elements(enum step_path path)
{
    const size_t shapes[][4] = {{2, 3, 5, 4}, {1, 1, 1, 1}, {3, 5, 17, 7}, {1, 16, 40, 3}, {4, 1, 6, 9}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct problem p;
        open_problem(&p, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], s + 1, path);
        run(&p);
        compare(&p, 1);
        close_problem(&p);
    }
}

/* A latent that decodes to nothing at one site, one that does so everywhere, and one that never fires. */
static void zero_vectors(enum step_path path)
{
    struct problem p;
    open_problem(&p, 2, 3, 5, 6, 77, path);
    for (size_t i = 0; i < 3; i++)
        p.c.w_dec[1 * 6 + i] = 0;
    for (size_t i = 0; i < 6; i++)
        p.c.w_dec[2 * 6 + i] = 0;
    p.c.b_enc[1] = p.c.b_enc[2] = 10; /* they do fire */
    p.c.b_enc[4] = -100;
    run(&p);
    assert_int_equal(p.t.forward.fired[1], 6);
    assert_int_equal(p.t.forward.fired[4], 0);
    compare(&p, 1);
    for (size_t i = 0; i < 6; i++)
        assert_true(p.grad[4 * 6 + i] == 0 && p.grad[5 * 6 + 4 * 6 + i] == 0);
    close_problem(&p);
}

/* At a pre-activation of exactly 0, ReLU passes nothing. */
static void relu_at_zero(enum step_path path)
{
    struct problem p;
    open_problem(&p, 1, 2, 3, 2, 5, path);
    for (size_t i = 0; i < 4; i++)
        p.x[i] = 0;
    for (size_t j = 0; j < 3; j++)
        p.c.b_enc[j] = 0;
    struct step_report r;
    step(&p, &r);
    for (size_t j = 0; j < 3; j++)
        assert_true(p.t.forward.fired[j] == 0 && p.grad[p.c.b_enc - p.c.params + (ptrdiff_t)j] == 0);
    close_problem(&p);
}

/* More latents than a strip of the backward pass: a sample of the parameters on either side of its edge. */
static void several_strips(enum step_path path)
{
    struct problem p;
    open_problem(&p, 1, 2, BACKWARD_STRIP + 300, 2, 11, path);
    for (size_t i = 0; i < p.c.n_params; i++)
        p.c.params[i] *= i < 2 * p.c.d_sae * 2 ? 0.05f : 1; /* thousands of latents add up */
    run(&p);
    compare(&p, 131);
    close_problem(&p);
}

static void test_all_elements(void **state)
{
    (void)state;
    all_elements(STEP_DENSE);
    all_elements(STEP_SPARSE);
}

static void test_zero_vectors(void **state)
{
    (void)state;
    zero_vectors(STEP_DENSE);
    zero_vectors(STEP_SPARSE);
}

static void test_relu_at_zero(void **state)
{
    (void)state;
    relu_at_zero(STEP_DENSE);
    relu_at_zero(STEP_SPARSE);
}

static void test_several_strips(void **state)
{
    (void)state;
    several_strips(STEP_DENSE);
    several_strips(STEP_SPARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_elements),
        cmocka_unit_test(test_zero_vectors),
        cmocka_unit_test(test_relu_at_zero),
        cmocka_unit_test(test_several_strips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
