/* test_seams.c - a new activation and a new loss term are one struct each: three activations and a term that only this test has, against
 * plain computations in double. One of them looks at the whole batch, which is nowhere stored. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "gemm.h"
#include "mem.h"
#include "rng.h"
#include "step.h"

static struct err e;

/* ---- the activation "identity": every entry is active, f = p ---- */

static void keep_all(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                     uint32_t *count)
{
    (void)s, (void)row, (void)first;
    for (size_t i = 0; i < n; i++) {
        p[i] += bias[i];
        count[i] += p[i] < 0 || p[i] > 0;
    }
}

static const struct activation identity = {.name = "identity", .scope = SCOPE_ENTRY, .keep = keep_all};

/* ---- the activation "squared": f = max(p, 0)^2, whose derivative is 2 sqrt(f) ---- */

static void keep_squares(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                         uint32_t *count)
{
    (void)s, (void)row, (void)first;
    for (size_t i = 0; i < n; i++) {
        p[i] += bias[i];
        p[i] = p[i] > 0 ? p[i] * p[i] : 0;
        count[i] += p[i] > 0;
    }
}

static void through_square(const struct selection *s, size_t latent, const float *f, float *grad, size_t n,
                           size_t stride, double *grad_threshold)
{
    (void)s, (void)latent, (void)grad_threshold;
    for (size_t i = 0; i < n; i++)
        grad[i * stride] *= 2 * sqrtf(f[i * stride]);
}

static const struct activation squared = {
    .name = "squared", .scope = SCOPE_ENTRY, .keep = keep_squares, .gradient = through_square};

/* ---- the activation "strongest": of the whole batch the KEPT greatest positive entries ---- */

enum { KEPT = 300 };

static size_t most_kept(const struct backend_setup *setup)
{
    (void)setup;
    return KEPT;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static bool is_strong(void *context, uint32_t row, size_t latent, float f)
{
    (void)row, (void)latent;
    return f >= *(float *)context;
}

static void settle(struct selection *s, struct active *a, size_t latents, bool last)
{
    (void)s, (void)last;
    size_t n = a->begin[latents];
    if (n <= KEPT)
        return;
    float *sorted = malloc(n * sizeof *sorted);
    memcpy(sorted, a->f, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, descending);
    active_drop(a, latents, is_strong, &sorted[KEPT - 1]); /* values of the test are all different */
    free(sorted);
}

static const struct activation strongest = {.name = "strongest",
                                            .scope = SCOPE_BATCH,
                                            .most = most_kept,
                                            .keep = keep_squares,
                                            .settle = settle,
                                            .gradient = through_square};

/* ---- the loss term "f4": sum over latents of f^4 ---- */

static double f4_of(const struct term_input *in, size_t latent)
{
    const struct latent_entries entries = term_entries(in, latent);
    double sum = 0;
    for (size_t i = 0; i < entries.n; i++)
        sum += pow((double)entries.f[i * entries.stride], 4);
    return sum;
}

static double f4_value(const struct term_input *in)
{
    return term_sum_latents(in, f4_of) / (double)in->rows;
}

static void f4_to_entries(const struct term_input *in, double weight, size_t latent,
                          const struct latent_entries *entries, float *grad)
{
    (void)latent;
    for (size_t i = 0; i < entries->n; i++)
        grad[i * entries->stride] +=
            (float)(weight / (double)in->rows * 4 * pow((double)entries->f[i * entries->stride], 3));
}

static const struct term f4 = {.name = "f4", .value = f4_value, .to_entries = f4_to_entries};

/* ---- the loss term "spread": sum over latents and sites of the squared norm of the decoder vector ---- */

static double spread_value(const struct term_input *in)
{
    double sum = 0;
    for (size_t i = 0; i < in->c->d_sae * in->c->n_sites; i++)
        sum += in->w->dec_norm[i] * in->w->dec_norm[i];
    return sum;
}

static void spread_to_norms(const struct term_input *in, double weight, size_t latent, double *slope)
{
    for (size_t site = 0; site < in->c->n_sites; site++)
        slope[site] += weight * 2 * in->w->dec_norm[latent * in->c->n_sites + site];
}

static const struct term spread = {.name = "spread", .value = spread_value, .to_norms = spread_to_norms};

static int add_all(void **state)
{
    (void)state;
    activation_add(&identity);
    activation_add(&squared);
    activation_add(&strongest);
    term_add(&f4);
    term_add(&spread);
    return 0;
}

/* ---- a problem, and its loss in double ---- */

enum { SITES = 2, DIM = 5, INPUTS = SITES * DIM, LATENTS = 9000, ROWS = 21 };

struct problem {
    struct backend_setup setup;
    struct crosscoder c;
    struct train_state t;
    double weight[TERMS_MAX];
    float x[ROWS * INPUTS];
};

static void open_problem(struct problem *p, const char *activation, const char *const *terms, size_t n_terms,
                         size_t d_sae, enum step_path path)
{
    struct rng r;
    rng_init(&r, 5, RNG_TEST, 0);
    p->setup = relu_setup(SITES, DIM, d_sae, ROWS, path, false);
    p->setup.activation = activation;
    p->setup.n_terms = n_terms;
    for (size_t i = 0; i < n_terms; i++) {
        p->setup.terms[i] = terms[i];
        p->weight[i] = 1.0 / (double)(i + 1);
    }
    assert_int_equal(crosscoder_init(&p->c, SITES, DIM, d_sae, false, &e), 0);
    if (train_state_init(&p->t, &p->c, &p->setup, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < p->c.n_params; i++)
        p->c.params[i] = (float)(0.3 * rng_normal(&r));
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        p->x[i] = (float)rng_normal(&r);
}

static void close_problem(struct problem *p)
{
    train_state_release(&p->t);
    crosscoder_release(&p->c);
}

static void step(struct problem *p, struct step_report *r)
{
    struct step_options o = {.adam = {0, 0.999, 1e-8}, .max_norm = INFINITY};
    memcpy(o.weight, p->weight, sizeof o.weight);
    if (train_step(&p->t, p->x, &o, r, &e))
        fail_msg("%s", e.message);
}

/* The loss with parameters q (double, in the order of crosscoder.h), for the objective that the setup names. threshold: of "strongest". */
static double plain_loss(const struct problem *p, const double *q, double threshold)
{
    size_t n = p->c.d_sae;
    const double *w_enc = q, *w_dec = q + n * INPUTS, *b_enc = w_dec + n * INPUTS, *b_dec = b_enc + n;
    double loss = 0;
    for (size_t row = 0; row < ROWS; row++) {
        double out[INPUTS];
        memcpy(out, b_dec, sizeof out);
        for (size_t j = 0; j < n; j++) {
            double f = b_enc[j];
            for (size_t i = 0; i < INPUTS; i++)
                f += w_enc[j * INPUTS + i] * (double)p->x[row * INPUTS + i];
            if (p->t.selection.kind != &identity)
                f = f > 0 && f * f >= threshold ? f * f : 0;
            for (size_t i = 0; i < INPUTS; i++)
                out[i] += f * w_dec[j * INPUTS + i];
            for (size_t k = 0; k < p->setup.n_terms; k++)
                if (strcmp(p->setup.terms[k], "f4") == 0)
                    loss += p->weight[k] * f * f * f * f / ROWS;
        }
        for (size_t i = 0; i < INPUTS; i++)
            loss += (out[i] - (double)p->x[row * INPUTS + i]) * (out[i] - (double)p->x[row * INPUTS + i]) / ROWS;
    }
    for (size_t k = 0; k < p->setup.n_terms; k++)
        for (size_t i = 0; strcmp(p->setup.terms[k], "spread") == 0 && i < n * INPUTS; i++)
            loss += p->weight[k] * w_dec[i] * w_dec[i];
    return loss;
}

static void compare_loss(const struct problem *p, const struct step_report *r)
{
    double *q = malloc(p->c.n_params * sizeof *q);
    for (size_t i = 0; i < p->c.n_params; i++)
        q[i] = (double)p->c.params[i];
    double want = plain_loss(p, q, 0);
    assert_true(fabs(r->loss - want) < 1e-5 * want);
    free(q);
}

/* Every stride-th parameter's gradient (Adam's first moment with beta1 = 0) against central differences. */
static void compare_gradients(struct problem *p, double threshold, size_t stride)
{
    const double h = 1e-5;
    double *q = malloc(p->c.n_params * sizeof *q), largest = 0;
    for (size_t i = 0; i < p->c.n_params; i++) {
        q[i] = (double)p->c.params[i];
        largest = fmax(largest, fabs((double)p->t.m[i]));
    }
    assert_true(largest > 0);
    for (size_t i = 0; i < p->c.n_params; i += stride) {
        double at = q[i];
        q[i] = at + h;
        double above = plain_loss(p, q, threshold);
        q[i] = at - h;
        double want = (above - plain_loss(p, q, threshold)) / (2 * h), got = (double)p->t.m[i];
        q[i] = at;
        if (!(fabs(got - want) <= 2e-6 * largest + 1e-4 * fabs(want)))
            fail_msg("parameter %zu: gradient %.9g, central difference %.9g", i, got, want);
    }
    free(q);
}

/* ---- tests ---- */

static void gradients_of(const char *activation, const char *const *terms, size_t n_terms)
{
    const enum step_path paths[] = {STEP_DENSE, STEP_SPARSE};
    struct step_report r[2];
    for (int i = 0; i < 2; i++) {
        struct problem p;
        open_problem(&p, activation, terms, n_terms, 40, paths[i]);
        step(&p, &r[i]);
        assert_int_equal(r[i].path, paths[i]);
        compare_loss(&p, &r[i]);
        compare_gradients(&p, 0, 1);
        close_problem(&p);
    }
    assert_true(fabs(r[0].loss - r[1].loss) < 1e-5 * r[0].loss);
    assert_true(fabs(r[0].grad_norm - r[1].grad_norm) < 1e-5 * r[0].grad_norm);
}

static void test_identity(void **state)
{
    (void)state;
    struct problem p;
    struct step_report r;
    gradients_of("identity", (const char *const[]){"l2"}, 1);
    open_problem(&p, "identity", (const char *const[]){"l2"}, 1, 40, STEP_SPARSE);
    step(&p, &r);
    assert_true(r.l0 == 40); /* negative entries are active, too */
    close_problem(&p);
}

static void test_derivative(void **state)
{
    (void)state;
    gradients_of("squared", (const char *const[]){"l2"}, 1);
}

static void test_terms(void **state)
{
    (void)state;
    gradients_of("squared", (const char *const[]){"l2", "f4"}, 2);
    gradients_of("squared", (const char *const[]){"l2", "spread", "f4"}, 3);
}

/* Three strips of latents, and the greatest entries anywhere among them: the same as sorting all of [ROWS, LATENTS], with any number of
 * threads; gradients at the kept entries only. */
static void test_batch_scope(void **state)
{
    (void)state;
    static float all[ROWS * LATENTS];
    struct problem p[3];
    struct step_report r[3];
    size_t n = 0;
    for (int i = 0; i < 3; i++) {
        omp_set_num_threads(i + 1);
        gemm_set_threads(i + 1);
        open_problem(&p[i], "strongest", (const char *const[]){"l2"}, 1, LATENTS, STEP_AUTO);
        step(&p[i], &r[i]);
        assert_int_equal(r[i].path, STEP_SPARSE);
        assert_true(r[i].l0 == (double)KEPT / ROWS);
        assert_memory_equal(p[0].t.m, p[i].t.m, p[0].c.n_params * sizeof(float));
        assert_true(r[0].loss == r[i].loss && r[0].grad_norm == r[i].grad_norm);
    }
    omp_set_num_threads(1);
    gemm_set_threads(1);
    const struct crosscoder *c = &p[0].c;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t j = 0; j < LATENTS; j++) {
            double f = (double)c->b_enc[j];
            for (size_t i = 0; i < INPUTS; i++)
                f += (double)c->w_enc[j * INPUTS + i] * (double)p[0].x[row * INPUTS + i];
            all[n++] = f > 0 ? (float)(f * f) : 0;
        }
    qsort(all, n, sizeof *all, descending);
    const struct active *a = &p[0].t.active;
    assert_int_equal(a->begin[LATENTS], KEPT);
    bool in_last_strip = false;
    for (size_t i = 0; i < KEPT; i++)
        assert_true(a->f[i] > all[KEPT] * 0.9999f);
    for (size_t j = 2 * 4096; j < LATENTS; j++)
        in_last_strip = in_last_strip || a->begin[j + 1] > a->begin[j];
    assert_true(in_last_strip && a->begin[4096] > 0);
    compare_gradients(&p[0], ((double)all[KEPT - 1] + (double)all[KEPT]) / 2, 4999);
    for (int i = 0; i < 3; i++)
        close_problem(&p[i]);
}

static void test_refused(void **state)
{
    (void)state;
    struct backend *b;
    struct backend_setup setup = relu_setup(1, 2, 3, 4, STEP_AUTO, false);
    setup.activation = "sigmoid";
    assert_int_equal(backend_cpu.open(&b, &setup, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "sigmoid"));
    setup = relu_setup(1, 2, 3, 4, STEP_DENSE, false);
    setup.activation = "strongest";
    assert_int_equal(backend_cpu.open(&b, &setup, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "strongest"));
    setup = relu_setup(1, 2, 3, 4, STEP_AUTO, false);
    setup.terms[1] = "l3";
    assert_int_equal(backend_cpu.open(&b, &setup, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "l3"));
    assert_null(b);
}

/* Ranges of a tensor, as rows, columns and transposed; what lies outside is refused. */
static void test_ranges(void **state)
{
    (void)state;
    const struct backend_setup setup = relu_setup(2, 3, 5, 4, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    float w[5 * 6], part[6];
    for (size_t i = 0; i < 30; i++)
        w[i] = (float)i;
    assert_int_equal(backend_put_all(b, "W_dec", w, &e), 0);
    const struct backend_range block = {.row = 1, .n_rows = 2, .column = 3, .n_columns = 3};
    assert_int_equal(b->ops->get(b, "W_dec", &block, part, &e), 0);
    assert_memory_equal(part, ((float[]){9, 10, 11, 15, 16, 17}), sizeof part);
    struct backend_range turned = block;
    turned.transposed = true;
    assert_int_equal(b->ops->get(b, "W_dec", &turned, part, &e), 0);
    assert_memory_equal(part, ((float[]){9, 15, 10, 16, 11, 17}), sizeof part);
    assert_int_equal(b->ops->put(b, "W_enc", &turned, part, &e), 0);
    assert_int_equal(b->ops->get(b, "W_enc", &block, part, &e), 0);
    assert_memory_equal(part, ((float[]){9, 10, 11, 15, 16, 17}), sizeof part);
    const struct backend_range beyond = {.row = 4, .n_rows = 2, .n_columns = 6};
    assert_int_equal(b->ops->get(b, "W_dec", &beyond, part, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "W_dec"));
    assert_int_equal(backend_get_all(b, "W_mid", w, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "W_mid"));
    backend_cpu.close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_derivative), cmocka_unit_test(test_terms),
        cmocka_unit_test(test_batch_scope), cmocka_unit_test(test_refused),    cmocka_unit_test(test_ranges),
    };
    return cmocka_run_group_tests(tests, add_all, NULL);
}
