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

#include "backend_problem.h"
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
    assert_int_equal(crosscoder_init(c, SITES, DIM, LATENTS, false, &e), 0);
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
        .weight = {1, schedule_l1_coeff(&schedule, t->step)},
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

static void golden(enum step_path path, bool keep_gradients)
{
    const struct backend_setup setup = relu_setup(SITES, DIM, LATENTS, BATCH, path, keep_gradients);
    struct golden g;
    struct crosscoder c, final;
    struct train_state t;
    struct step_report r;
    size_t clipped = 0;
    double first = 0, worst = 0;
    open_golden(&g);
    read_weights(&g, "initial.", &c);
    read_weights(&g, "final.", &final);
    assert_int_equal(train_state_init(&t, &c, &setup, &e), 0);
    for (size_t step = 0; step < STEPS; step++) {
        golden_step(&g, &t, true, &r);
        assert_int_equal(r.path, path);
        assert_true(r.step == step && r.has_metrics);
        first = step ? first : r.loss;
        clipped += r.grad_norm > 2;
        worst = fmax(worst, fabs(r.loss / golden_value(&g, "loss", 1, step, 0) - 1));
        near("lr", step, r.lr, golden_value(&g, "lr", 1, step, 0), 1e-12);
        near("l1_coeff", step, r.weight[1], golden_value(&g, "l1_coeff", 1, step, 0), 1e-12);
        near("loss", step, r.loss, golden_value(&g, "loss", 1, step, 0), 1e-4);
        near("l2", step, r.term[0], golden_value(&g, "l2", 1, step, 0), 1e-4);
        near("l1", step, r.term[1], golden_value(&g, "l1", 1, step, 0), 1e-4);
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

static void test_golden(void **state)
{
    (void)state;
    golden(STEP_DENSE, true);
    golden(STEP_DENSE, false);
    golden(STEP_SPARSE, false);
}

/* Both paths side by side from the same start. */
static void test_paths_agree(void **state)
{
    (void)state;
    struct golden g;
    struct crosscoder c[2];
    struct backend_setup setup[2];
    struct train_state t[2];
    struct step_report r[2];
    double worst = 0;
    open_golden(&g);
    for (int i = 0; i < 2; i++) {
        setup[i] = relu_setup(SITES, DIM, LATENTS, BATCH, i ? STEP_SPARSE : STEP_DENSE, true);
        read_weights(&g, "initial.", &c[i]);
        assert_int_equal(train_state_init(&t[i], &c[i], &setup[i], &e), 0);
    }
    for (size_t step = 0; step < STEPS; step++) {
        for (int i = 0; i < 2; i++)
            golden_step(&g, &t[i], true, &r[i]);
        worst = fmax(worst, fabs(r[1].loss / r[0].loss - 1));
        assert_true(fabs(r[1].loss / r[0].loss - 1) < 1e-5);
        assert_true(fabs(r[1].grad_norm / r[0].grad_norm - 1) < 1e-4);
        assert_true(fabs(r[1].fvu.fvu / r[0].fvu.fvu - 1) < 1e-5);
    }
    if (getenv("VERBOSE"))
        print_message("dense against sparse: worst relative distance of a loss %.2g\n", worst);
    for (int i = 0; i < 2; i++) {
        train_state_release(&t[i]);
        crosscoder_release(&c[i]);
    }
    close_golden(&g);
}

/* ---- promises ---- */

/* A problem of odd sizes that several strips and pieces divide unevenly. */
struct small {
    struct backend_setup setup;
    struct crosscoder c;
    struct train_state t;
    float *x;
};

static void open_small(struct small *s, size_t d_sae, size_t batch, enum step_path path, bool keep_gradients)
{
    s->setup = relu_setup(3, 37, d_sae, batch, path, keep_gradients);
    assert_int_equal(crosscoder_init(&s->c, 3, 37, d_sae, false, &e), 0);
    draw_weights(&s->c, 0.3, 9);
    assert_int_equal(train_state_init(&s->t, &s->c, &s->setup, &e), 0);
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
    .weight = {1, 0.1},
    .dead_rows = 100,
    .want_metrics = true,
};

static void same_state(const struct small *a, const struct small *b)
{
    assert_memory_equal(a->c.params, b->c.params, a->c.n_params * sizeof(float));
    assert_memory_equal(a->t.m, b->t.m, a->c.n_params * sizeof(float));
    assert_memory_equal(a->t.v, b->t.v, a->c.n_params * sizeof(float));
    assert_memory_equal(a->t.rows_since_fired, b->t.rows_since_fired, a->c.d_sae * sizeof(uint64_t));
}

static void threads(enum step_path path)
{
    struct small s[3];
    struct step_report r[3];
    for (int i = 0; i < 3; i++) {
        omp_set_num_threads(i + 1);
        gemm_set_threads(i + 1);
        open_small(&s[i], 5001, 67, path, i == 1);
        for (int step = 0; step < 4; step++)
            assert_int_equal(train_step(&s[i].t, s[i].x, &options, &r[i], &e), 0);
    }
    omp_set_num_threads(1);
    gemm_set_threads(1);
    for (int i = 1; i < 3; i++) {
        same_state(&s[0], &s[i]);
        assert_true(r[0].loss == r[i].loss && r[0].term[1] == r[i].term[1] && r[0].grad_norm == r[i].grad_norm);
        assert_memory_equal(&r[0].fvu, &r[i].fvu, sizeof r[0].fvu);
    }
    for (int i = 0; i < 3; i++)
        close_small(&s[i]);
}

/* Nor do the results depend on whether gradients are kept. */
static void test_threads(void **state)
{
    (void)state;
    threads(STEP_DENSE);
    threads(STEP_SPARSE);
}

/* STEP_AUTO goes dense when the lists overflow, sparse when they do not, with the same losses; the choice, and the
 * norms that sparse steps keep, survive nothing but the parameters and moments (as a resumed run does), bit by bit. */
static void test_auto(void **state)
{
    (void)state;
    struct small s, dense, resumed;
    struct step_report r, want;
    const enum step_path path[] = {STEP_DENSE, STEP_DENSE, STEP_SPARSE, STEP_SPARSE, STEP_DENSE, STEP_SPARSE};
    const float bias[] = {0, 0, -1.2f, -1, 1, -1};
    open_small(&s, 9001, 67, STEP_AUTO, false);
    open_small(&dense, 9001, 67, STEP_DENSE, false);
    for (size_t step = 0; step < 6; step++) {
        for (size_t j = 0; j < s.c.d_sae;
             j++) /* at steps 1 and 4 the lists overflow in the second strip, and in the third */
            s.c.b_enc[j] = dense.c.b_enc[j] =
                path[step] == STEP_DENSE && j < 4096 + (step == 4) * 3000 ? -3 : bias[step];
        open_small(&resumed, 9001, 67, STEP_AUTO, true);
        memcpy(resumed.c.params, s.c.params, s.c.n_params * sizeof(float));
        memcpy(resumed.t.m, s.t.m, s.c.n_params * sizeof(float));
        memcpy(resumed.t.v, s.t.v, s.c.n_params * sizeof(float));
        memcpy(resumed.t.rows_since_fired, s.t.rows_since_fired, s.c.d_sae * sizeof(uint64_t));
        resumed.t.step = s.t.step;
        assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
        assert_int_equal(train_step(&dense.t, s.x, &options, &want, &e), 0);
        if (r.path != path[step])
            fail_msg("step %zu: path %d with L0 %g", step, r.path, r.l0);
        assert_true(fabs(r.loss / want.loss - 1) < 1e-5);
        assert_true(fabs(r.l0 / want.l0 - 1) < 1e-3);
        assert_true(fabs(r.grad_norm / want.grad_norm - 1) < 1e-4);
        assert_int_equal(train_step(&resumed.t, s.x, &options, &want, &e), 0);
        assert_int_equal(want.path, r.path);
        assert_true(want.loss == r.loss && want.term[1] == r.term[1] && want.grad_norm == r.grad_norm);
        same_state(&s, &resumed);
        close_small(&resumed);
    }
    close_small(&s);
    close_small(&dense);
}

static void not_finite(enum step_path path)
{
    struct small s;
    struct step_report r;
    static float before[4096 * 8];
    open_small(&s, 40, 8, path, false);
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_true(s.c.n_params <= sizeof before / sizeof *before);
    memcpy(before, s.c.params, s.c.n_params * sizeof(float));
    s.x[5] = NAN;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_OVERFLOW);
    assert_non_null(strstr(e.message, "step 1"));
    assert_non_null(strstr(e.message, "nan"));
    assert_int_equal(s.t.step, 1);
    assert_memory_equal(before, s.c.params, s.c.n_params * sizeof(float));
    s.x[5] = 1e30f; /* the square overflows no double, but the products overflow float */
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_OVERFLOW);
    s.x[5] = 0;
    s.c.w_enc[3] = NAN; /* ReLU must not hide it */
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), ERR_OVERFLOW);
    close_small(&s);
}

static void test_not_finite(void **state)
{
    (void)state;
    not_finite(STEP_DENSE);
    not_finite(STEP_SPARSE);
    not_finite(STEP_AUTO);
}

static void dead_latents(enum step_path path)
{
    struct small s;
    struct step_report r;
    open_small(&s, 20, 40, path, false);
    s.c.b_enc[3] = s.c.b_enc[11] = -1000;
    const size_t dead[] = {0, 0, 2, 2}; /* dead_rows 100 with 40 rows a step: at the third */
    for (size_t step = 0; step < 4; step++) {
        assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
        assert_int_equal(r.dead, dead[step]);
        assert_int_equal(r.dead_measurable, step >= 2);
    }
    assert_int_equal(s.t.rows_since_fired[3], 160);
    s.c.b_enc[3] = 1;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_int_equal(r.dead, 1);
    assert_int_equal(s.t.rows_since_fired[3], 0);

    /* One row is enough: a bias between latent 5's highest and second highest pre-activation. */
    float high = -INFINITY, second = -INFINITY;
    s.c.b_enc[5] = 100;
    forward_encode(&s.t.forward, &s.c, &s.t.selection, s.x, 40);
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

static void test_dead_latents(void **state)
{
    (void)state;
    dead_latents(STEP_DENSE);
    dead_latents(STEP_SPARSE);
}

/* The first step of Adam is lr * sign(gradient) (all but eps), whatever the clipping; lr 0 changes nothing. */
static void first_update(enum step_path path)
{
    struct small s;
    struct step_report r;
    struct step_options o = options;
    static float before[4096 * 8];
    open_small(&s, 40, 8, path, false);
    memcpy(before, s.c.params, s.c.n_params * sizeof(float));
    o.lr = 0;
    assert_int_equal(train_step(&s.t, s.x, &o, &r, &e), 0);
    assert_memory_equal(before, s.c.params, s.c.n_params * sizeof(float));
    assert_true(r.grad_norm > 1 && r.clipped);
    o.max_norm = 2 * r.grad_norm;
    assert_int_equal(train_step(&s.t, s.x, &o, &r, &e), 0);
    assert_false(r.clipped);
    close_small(&s);

    open_small(&s, 40, 8, path, false);
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    size_t moved = 0;
    for (size_t i = 0; i < s.c.n_params; i++) {
        float g = s.t.m[i]; /* (1 - beta1) of it */
        if (fabsf(g) < 1e-5f)
            continue;
        double want = (double)before[i] - (g > 0 ? 1e-3 : -1e-3);
        assert_true(fabs((double)s.c.params[i] - want) < 2e-6);
        moved++;
    }
    assert_true(moved > s.c.n_params / 2);
    close_small(&s);
}

static void test_first_update(void **state)
{
    (void)state;
    first_update(STEP_DENSE);
    first_update(STEP_SPARSE);
}

/* A latent without a gradient moves on by its momentum, as in PyTorch: at the second step the moments decay. */
static void test_silent_latent(void **state)
{
    (void)state;
    struct small s;
    struct step_report r;
    open_small(&s, 40, 8, STEP_SPARSE, false);
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    size_t i = 7 * s.c.n_inputs + 5;
    float m = s.t.m[i], v = s.t.v[i], p = s.c.params[i];
    assert_true(m != 0);
    s.c.b_enc[7] = -1000;
    assert_int_equal(train_step(&s.t, s.x, &options, &r, &e), 0);
    assert_true(fabsf(s.t.m[i] / m - 0.9f) < 1e-6f && fabsf(s.t.v[i] / v - 0.999f) < 1e-6f);
    double want =
        (double)p - 1e-3 / (1 - 0.81) * (double)s.t.m[i] / (sqrt((double)s.t.v[i]) / sqrt(1 - 0.999 * 0.999) + 1e-8);
    assert_true(fabs((double)s.c.params[i] - want) < 1e-7);
    close_small(&s);
}

static void test_memory(void **state)
{
    (void)state;
    size_t params, workspace, kept;
    struct backend_setup setup = relu_setup(3, 37, 5001, 67, STEP_AUTO, false);
    assert_int_equal(train_step_memory(&setup, &params, &workspace, &e), 0);
    assert_int_equal(params, 12 * (2 * 5001 * 111 + 5001 + 111));
    /* f and its gradient, a strip of f, one of gradients, the batch and its residual in tiles, and little more */
    size_t large = 4 * (67 * (5001 + 5001 + 4096 + 2 * 144) + 4096 * 111);
    assert_true(workspace > large && workspace < large + large / 8);
    setup.keep_gradients = true;
    assert_int_equal(train_step_memory(&setup, &params, &kept, &e), 0);
    assert_int_equal(params, 12 * (2 * 5001 * 111 + 5001 + 111) + 4 * 2 * 5001 * 111);
    assert_int_equal(kept, workspace - 4 * 4096 * 111);
    setup.batch_size = SIZE_MAX / 16;
    assert_int_equal(train_step_memory(&setup, &params, &workspace, &e), ERR_MEMORY);
    struct crosscoder c = {0};
    struct train_state t;
    assert_int_equal(crosscoder_init(&c, 1, 2, 3, false, &e), 0);
    setup = relu_setup(1, 2, 3, 0, STEP_AUTO, false);
    assert_int_equal(train_state_init(&t, &c, &setup, &e), ERR_INPUT);
    crosscoder_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_paths_agree),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_auto),         cmocka_unit_test(test_not_finite),    cmocka_unit_test(test_dead_latents),
        cmocka_unit_test(test_first_update), cmocka_unit_test(test_silent_latent), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
