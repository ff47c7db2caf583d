/* test_step.c - 200 steps beside PyTorch's (tools/reference/crosscoder_reference.py), and what a step promises: the
 * same bits with any number of threads, honest metrics, dead latents, no update after a loss that is not finite. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gemm.h"
#include "mem.h"
#include "rng.h"
#include "safetensors.h"
#include "schedule.h"
#include "step.h"

static struct err e;
static const struct adam adam = {0.9, 0.999, 1e-8};

/* ---- the golden ---- */

enum { SITES = 3, DIM = 16, INPUTS = SITES * DIM, LATENTS = 96, ROWS = 1536, BATCH = 256, STEPS = 200 };

struct golden {
    struct safetensors file;
    float *rows; /* [ROWS, INPUTS] */
};

static const struct tensor_view *find(const struct golden *g, const char *prefix, const char *name, size_t elements)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const struct tensor_view *t = safetensors_find(&g->file, full);
    if (!t || t->bytes != elements * tensor_dtype_size(t->dtype))
        fail_msg("golden %s: missing or not of %zu elements", full, elements);
    return t;
}

static void open_golden(struct golden *g)
{
    assert_int_equal(safetensors_open(&g->file, TEST_DATA "/crosscoder_golden.safetensors", &e), 0);
    g->rows = mem_alloc(ROWS * INPUTS, sizeof(float), "rows", &e);
    assert_int_equal(tensor_to_f32(&g->file, find(g, "rows", "", ROWS * INPUTS), g->rows, &e), 0);
    /* The hyper-parameters below are those of the file. */
    const char *const config[][2] = {{"lr", "0.002"}, {"l1_coeff", "0.3"}, {"max_norm", "2.0"}, {"batch_size", "256"}};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(safetensors_metadata(&g->file, config[i][0]), config[i][1]);
}

static void close_golden(struct golden *g)
{
    mem_free(g->rows);
    safetensors_close(&g->file);
}

/* The weights "initial." or "final." in the layout of crosscoder.h. */
static void read_weights(const struct golden *g, const char *prefix, struct crosscoder *c)
{
    static float w_enc[INPUTS * LATENTS];
    assert_int_equal(crosscoder_init(c, SITES, DIM, LATENTS, &e), 0);
    assert_int_equal(tensor_to_f32(&g->file, find(g, prefix, "W_enc", INPUTS * LATENTS), w_enc, &e), 0);
    for (size_t i = 0; i < INPUTS; i++)
        for (size_t j = 0; j < LATENTS; j++)
            c->w_enc[j * INPUTS + i] = w_enc[i * LATENTS + j];
    assert_int_equal(tensor_to_f32(&g->file, find(g, prefix, "W_dec", INPUTS * LATENTS), c->w_dec, &e), 0);
    assert_int_equal(tensor_to_f32(&g->file, find(g, prefix, "b_enc", LATENTS), c->b_enc, &e), 0);
    assert_int_equal(tensor_to_f32(&g->file, find(g, prefix, "b_dec", INPUTS), c->b_dec, &e), 0);
}

static double golden_value(const struct golden *g, const char *name, size_t width, size_t step, size_t i)
{
    double v;
    memcpy(&v, find(g, "step.", name, STEPS * width)->data + 8 * (step * width + i), 8);
    return v;
}

static void near(const char *name, size_t step, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("step %zu: %s %.9g, PyTorch has %.9g", step, name, got, want);
}

static const struct schedule schedule = {
    .total_steps = STEPS,
    .lr = 2e-3,
    .l1_coeff = 0.3,
    .lr_warmup_fraction = 0.05,
    .lr_decay_fraction = 0.2,
    .l1_warmup_fraction = 0.05,
};

static void golden_step(const struct golden *g, struct train_state *t, bool want_metrics, struct step_report *r)
{
    const struct step_options o = {
        .adam = adam,
        .max_norm = 2,
        .lr = schedule_lr(&schedule, t->step),
        .l1_coeff = schedule_l1_coeff(&schedule, t->step),
        .dead_rows = 1000,
        .want_metrics = want_metrics,
    };
    const float *x = g->rows + t->step * BATCH % ROWS * INPUTS;
    if (train_step(t, x, &o, r, &e))
        fail_msg("%s", e.message);
}

static void compare_weights(const char *name, const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        norm += (double)want[i] * (double)want[i];
    }
    double relative = sqrt(difference / norm);
    if (getenv("VERBOSE"))
        print_message("final %s: relative distance %.2g\n", name, relative);
    if (!(relative < 1e-3))
        fail_msg("final %s is off by %.3g of its norm", name, relative);
}

static void test_golden(void **state)
{
    (void)state;
    struct golden g;
    struct crosscoder c, final;
    struct train_state t;
    struct step_report r;
    size_t clipped = 0;
    double first = 0, worst = 0;
    open_golden(&g);
    read_weights(&g, "initial.", &c);
    read_weights(&g, "final.", &final);
    assert_int_equal(train_state_init(&t, &c, BATCH, &e), 0);
    for (size_t step = 0; step < STEPS; step++) {
        golden_step(&g, &t, true, &r);
        assert_true(r.step == step && r.has_metrics);
        first = step ? first : r.loss;
        clipped += r.grad_norm > 2;
        worst = fmax(worst, fabs(r.loss / golden_value(&g, "loss", 1, step, 0) - 1));
        near("lr", step, r.lr, golden_value(&g, "lr", 1, step, 0), 1e-12);
        near("l1_coeff", step, r.l1_coeff, golden_value(&g, "l1_coeff", 1, step, 0), 1e-12);
        near("loss", step, r.loss, golden_value(&g, "loss", 1, step, 0), 1e-4);
        near("l2", step, r.l2, golden_value(&g, "l2", 1, step, 0), 1e-4);
        near("l1", step, r.l1, golden_value(&g, "l1", 1, step, 0), 1e-4);
        near("l0", step, r.l0, golden_value(&g, "l0", 1, step, 0), 1e-3);
        near("grad_norm", step, r.grad_norm, golden_value(&g, "grad_norm", 1, step, 0), 1e-4);
        near("fvu", step, r.fvu.fvu, golden_value(&g, "fvu", 1, step, 0), 1e-4);
        near("fvu_token", step, r.fvu.fvu_token, golden_value(&g, "fvu_token", 1, step, 0), 1e-4);
        for (size_t site = 0; site < SITES; site++) {
            near("fvu of a site", step, r.fvu.fvu_site[site], golden_value(&g, "fvu_site", SITES, step, site), 1e-4);
            near("fvu_token of a site", step, r.fvu.fvu_token_site[site],
                 golden_value(&g, "fvu_token_site", SITES, step, site), 1e-4);
        }
    }
    /* The golden is one in which something happens. */
    assert_true(clipped > 50 && clipped < 150);
    assert_true(r.loss < 0.3 * first);
    if (getenv("VERBOSE"))
        print_message("worst relative distance of a loss %.2g\n", worst);
    compare_weights("W_enc", c.w_enc, final.w_enc, LATENTS * INPUTS);
    compare_weights("W_dec", c.w_dec, final.w_dec, LATENTS * INPUTS);
    compare_weights("b_enc", c.b_enc, final.b_enc, LATENTS);
    compare_weights("b_dec", c.b_dec, final.b_dec, INPUTS);
    train_state_release(&t);
    crosscoder_release(&c);
    crosscoder_release(&final);
    close_golden(&g);
}

/* ---- promises ---- */

/* A problem of odd sizes that several strips and pieces divide unevenly. */
struct small {
    struct crosscoder c;
    struct train_state t;
    float *x;
};

static void open_small(struct small *s, size_t d_sae, size_t batch)
{
    assert_int_equal(crosscoder_init(&s->c, 3, 37, d_sae, &e), 0);
    crosscoder_init_weights(&s->c, 0.3, 9);
    assert_int_equal(train_state_init(&s->t, &s->c, batch, &e), 0);
    s->x = mem_alloc(batch * s->c.n_inputs, sizeof(float), "x", &e);
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 1);
    for (size_t i = 0; i < batch * s->c.n_inputs; i++)
        s->x[i] = (float)rng_normal(&r);
}

static void close_small(struct small *s)
{
    mem_free(s->x);
    train_state_release(&s->t);
    crosscoder_release(&s->c);
}

static const struct step_options options = {
    .adam = {0.9, 0.999, 1e-8},
    .max_norm = 1,
    .lr = 1e-3,
    .l1_coeff = 0.1,
    .dead_rows = 100,
    .want_metrics = true,
};

static void test_threads(void **state)
{
    (void)state;
    struct small s[2];
    struct step_report r[2];
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(i + 1);
        gemm_set_threads(i + 1);
        open_small(&s[i], 5001, 67);
        for (int step = 0; step < 4; step++)
            assert_int_equal(train_step(&s[i].t, s[i].x, &options, &r[i], &e), 0);
    }
    gemm_set_threads(1);
    assert_memory_equal(s[0].c.params, s[1].c.params, s[0].c.n_params * sizeof(float));
    assert_memory_equal(s[0].t.m, s[1].t.m, s[0].c.n_params * sizeof(float));
    assert_memory_equal(s[0].t.v, s[1].t.v, s[0].c.n_params * sizeof(float));
    assert_true(r[0].loss == r[1].loss && r[0].l1 == r[1].l1 && r[0].grad_norm == r[1].grad_norm);
    assert_memory_equal(&r[0].fvu, &r[1].fvu, sizeof r[0].fvu);
    close_small(&s[0]);
    close_small(&s[1]);
}

static void test_not_finite(void **state)
{
    (void)state;
    struct small s;
    struct step_report r;
    static float before[4096 * 8];
    open_small(&s, 40, 8);
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_true(s.c.n_params <= sizeof before / sizeof *before);
    memcpy(before, s.c.params, s.c.n_params * sizeof(float));
    s.x[5] = NAN;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "step 1"));
    assert_non_null(strstr(e.message, "nan"));
    assert_int_equal(s.t.step, 1);
    assert_memory_equal(before, s.c.params, s.c.n_params * sizeof(float));
    s.x[5] = 1e30f; /* the square overflows no double, but the products overflow float */
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_INPUT);
    s.x[5] = 0;
    s.c.w_enc[3] = NAN; /* ReLU must not hide it */
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_INPUT);
    close_small(&s);
}

static void test_dead_latents(void **state)
{
    (void)state;
    struct small s;
    struct step_report r;
    open_small(&s, 20, 40);
    s.c.b_enc[3] = s.c.b_enc[11] = -1000;
    const size_t dead[] = {0, 0, 2, 2}; /* dead_rows 100 with 40 rows a step: at the third */
    for (size_t step = 0; step < 4; step++) {
        assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
        assert_int_equal(r.dead, dead[step]);
    }
    assert_int_equal(s.t.rows_since_fired[3], 160);
    s.c.b_enc[3] = 1;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_int_equal(r.dead, 1);
    assert_int_equal(s.t.rows_since_fired[3], 0);

    /* One row is enough: a bias between latent 5's highest and second highest pre-activation. */
    float high = -INFINITY, second = -INFINITY;
    s.c.b_enc[5] = 100;
    forward_encode(&s.t.forward, &s.c, s.x, 40);
    for (size_t row = 0; row < 40; row++) {
        float f = s.t.forward.f[row * 20 + 5];
        second = fmaxf(second, fminf(f, high));
        high = fmaxf(high, f);
    }
    s.c.b_enc[5] = 100 - (high + second) / 2;
    s.t.rows_since_fired[5] = 40;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_int_equal(s.t.forward.fired[5], 1);
    assert_int_equal(s.t.rows_since_fired[5], 0);
    close_small(&s);
}

/* The first step of Adam is lr * sign(gradient) (all but eps), whatever the clipping; lr 0 changes nothing. */
static void test_first_update(void **state)
{
    (void)state;
    struct small s;
    struct step_report r;
    struct step_options o = options;
    static float before[4096 * 8];
    open_small(&s, 40, 8);
    memcpy(before, s.c.params, s.c.n_params * sizeof(float));
    o.lr = 0;
    assert_int_equal(train_step(&s.t, s.x, &o, &r, &e), 0);
    assert_memory_equal(before, s.c.params, s.c.n_params * sizeof(float));
    assert_true(r.grad_norm > 1);
    close_small(&s);

    open_small(&s, 40, 8);
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    for (size_t i = 0; i < s.c.n_params; i++) {
        float g = s.t.grad[i];
        if (fabsf(g) < 1e-2f)
            continue;
        double want = (double)before[i] - (g > 0 ? 1e-3 : -1e-3);
        assert_true(fabs((double)s.c.params[i] - want) < 1e-6);
    }
    close_small(&s);
}

static void test_memory(void **state)
{
    (void)state;
    size_t params, workspace;
    assert_int_equal(train_step_memory(3, 37, 5001, 67, &params, &workspace, &e), 0);
    assert_int_equal(params, 16 * (2 * 5001 * 111 + 5001 + 111));
    /* f and residual, a strip of f's gradient, and little more */
    size_t large = 4 * 67 * (5001 + 111 + 4096);
    assert_true(workspace > large && workspace < large + large / 4);
    assert_int_equal(train_step_memory(3, 37, 5001, SIZE_MAX / 16, &params, &workspace, &e), ERR_MEMORY);
    struct crosscoder c = {0};
    struct train_state t;
    assert_int_equal(crosscoder_init(&c, 1, 2, 3, &e), 0);
    assert_int_equal(train_state_init(&t, &c, 0, &e), ERR_INPUT);
    crosscoder_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_threads),      cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_dead_latents), cmocka_unit_test(test_first_update), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
