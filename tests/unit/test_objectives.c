/* test_objectives.c - every activation and loss term against plain computations in double: which entries are active, each term's value, and
 * every parameter's gradient by central differences, on both paths where there are two.
 *
 * The plain loss is that of the formulas with what autograd holds constant held constant: which entries are active, AuxK's target and its
 * denominator. jumprelu's threshold has no derivative; its straight-through estimate is the derivative of f - (theta / bandwidth) (t - t0)
 * at near entries, and that is what the plain loss is made of. */
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
#include "order.h"
#include "rng.h"
#include "step.h"

enum { SITES = 4, DIM = 3, INPUTS = SITES * DIM, LATENTS = 26, ROWS = 11 };

static struct err e;

struct problem {
    struct backend_setup setup;
    struct crosscoder c;
    struct train_state t;
    struct step_options o;
    float x[ROWS * INPUTS];
    /* what the plain loss holds constant */
    bool active[ROWS][LATENTS], near[ROWS][LATENTS], aux[ROWS][LATENTS];
    double t0[LATENTS], r[ROWS][INPUTS], variance;
    bool any_dead;
    double *q; /* the parameters, to be nudged */
};

struct params {
    const double *w_enc, *w_dec, *b_enc, *b_dec, *t;
};

static struct params params_of(const struct problem *p)
{
    const double *q = p->q;
    return (struct params){q, q + LATENTS * INPUTS, q + 2 * LATENTS * INPUTS, q + 2 * LATENTS * INPUTS + LATENTS,
                           q + 2 * LATENTS * INPUTS + LATENTS + INPUTS};
}

static bool has(const struct problem *p, const char *term)
{
    return backend_has_term(&p->setup, term);
}

static double weight_of(const struct problem *p, const char *term)
{
    for (size_t i = 0; i < p->setup.n_terms; i++)
        if (strcmp(p->setup.terms[i], term) == 0)
            return p->o.weight[i];
    return 0;
}

static double preactivation(const struct problem *p, size_t row, size_t j)
{
    struct params q = params_of(p);
    double sum = q.b_enc[j];
    for (size_t i = 0; i < INPUTS; i++)
        sum += q.w_enc[j * INPUTS + i] * (double)p->x[row * INPUTS + i];
    return sum;
}

static double site_norm(const struct problem *p, size_t j, size_t site)
{
    const double *v = params_of(p).w_dec + j * INPUTS + site * DIM;
    return sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

static double norm_sum(const struct problem *p, size_t j)
{
    double sum = 0;
    for (size_t site = 0; site < SITES; site++)
        sum += site_norm(p, j, site);
    return sum;
}

static double joint_norm(const struct problem *p, size_t j)
{
    double squares = 0;
    for (size_t site = 0; site < SITES; site++)
        squares += site_norm(p, j, site) * site_norm(p, j, site);
    return sqrt(squares);
}

static double score_of(const struct problem *p, size_t row, size_t j)
{
    double c = p->setup.score == SCORE_NONE ? 1 : p->setup.score == SCORE_NORM ? joint_norm(p, j) : norm_sum(p, j);
    return fmax(preactivation(p, row, j), 0) * c;
}

/* Rows or the whole batch, by plain search: how many other entries have a greater score. */
static bool wins(const struct problem *p, size_t row, size_t j)
{
    size_t better = 0, first = 0, last = ROWS;
    double mine = score_of(p, row, j);
    bool batch = strcmp(p->setup.activation, "batchtopk") == 0;
    if (!batch) {
        first = row;
        last = row + 1;
    }
    for (size_t r = first; r < last; r++)
        for (size_t k = 0; k < LATENTS; k++)
            better += score_of(p, r, k) > mine;
    return mine > 0 && better < p->o.k * (last - first);
}

static double f_of(const struct problem *p, size_t row, size_t j)
{
    double f = p->active[row][j] ? preactivation(p, row, j) : 0;
    if (!backend_has_thresholds(&p->setup) || !p->near[row][j])
        return f;
    double slope = exp(p->t0[j]) / p->setup.bandwidth;
    f -= slope * (params_of(p).t[j] - p->t0[j]);
    if (p->setup.ste_to_input) { /* slope * (p - p at the start), whose value is 0 there */
        double at = 0;
        const float *w = p->c.w_enc + j * INPUTS;
        for (size_t i = 0; i < INPUTS; i++)
            at += (double)w[i] * (double)p->x[row * INPUTS + i];
        f += slope * (preactivation(p, row, j) - (at + (double)p->c.b_enc[j]));
    }
    return f;
}

/* Fixes what is constant, at the parameters as they are. */
static void settle(struct problem *p)
{
    bool k = backend_has_k(&p->setup), relu = strcmp(p->setup.activation, "relu") == 0;
    for (size_t j = 0; j < LATENTS; j++)
        p->t0[j] = p->c.log_threshold ? (double)p->c.log_threshold[j] : 0;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t j = 0; j < LATENTS; j++) {
            double v = preactivation(p, row, j), theta = exp(p->t0[j]);
            p->active[row][j] = k ? wins(p, row, j) : relu ? v > 0 : v > theta;
            p->near[row][j] = fabs(v - theta) < p->setup.bandwidth / 2;
        }
    double mean[INPUTS] = {0};
    for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; i < INPUTS; i++) {
            double out = params_of(p).b_dec[i];
            for (size_t j = 0; j < LATENTS; j++)
                out += f_of(p, row, j) * params_of(p).w_dec[j * INPUTS + i];
            p->r[row][i] = (double)p->x[row * INPUTS + i] - out;
            mean[i] += p->r[row][i] / ROWS;
        }
    p->variance = 0;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; i < INPUTS; i++)
            p->variance += (p->r[row][i] - mean[i]) * (p->r[row][i] - mean[i]) / ROWS;
    bool dead[LATENTS];
    size_t n_dead = 0;
    for (size_t j = 0; j < LATENTS; j++) {
        bool fired = false;
        for (size_t row = 0; row < ROWS; row++)
            fired = fired || p->active[row][j];
        dead[j] = !fired && p->t.rows_since_fired[j] + ROWS >= p->o.dead_rows;
        n_dead += dead[j];
    }
    p->any_dead = n_dead > 0;
    size_t k_aux = p->setup.aux_k < n_dead ? p->setup.aux_k : n_dead;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t j = 0; j < LATENTS; j++) {
            size_t better = 0;
            for (size_t i = 0; i < LATENTS; i++)
                better += dead[i] && score_of(p, row, i) > score_of(p, row, j);
            p->aux[row][j] = has(p, "aux") && dead[j] && score_of(p, row, j) > 0 && better < k_aux;
        }
}

static double plain_loss(const struct problem *p)
{
    struct params q = params_of(p);
    double loss = 0, aux = 0;
    for (size_t row = 0; row < ROWS; row++) {
        double out[INPUTS], a[INPUTS] = {0};
        memcpy(out, q.b_dec, sizeof out);
        for (size_t j = 0; j < LATENTS; j++) {
            double f = f_of(p, row, j), v = preactivation(p, row, j),
                   share = j < p->setup.partition.shared ? p->setup.shared_coeff : 1;
            for (size_t i = 0; i < INPUTS; i++) {
                out[i] += f * q.w_dec[j * INPUTS + i];
                a[i] += p->aux[row][j] ? v * q.w_dec[j * INPUTS + i] : 0;
            }
            loss += weight_of(p, "l1") * share * f * norm_sum(p, j) / ROWS;
            loss += weight_of(p, "l1_joint") * share * f * joint_norm(p, j) / ROWS;
            loss += weight_of(p, "tanh") * share * tanh(p->setup.tanh_scale * f * norm_sum(p, j)) / ROWS;
            if (has(p, "pre_act"))
                loss += weight_of(p, "pre_act") * fmax(exp(q.t[j]) - v, 0) * norm_sum(p, j) / ROWS;
        }
        for (size_t site = 0; site < SITES; site++) {
            double squares = 0;
            for (size_t i = site * DIM; i < (site + 1) * DIM; i++)
                squares += (out[i] - (double)p->x[row * INPUTS + i]) * (out[i] - (double)p->x[row * INPUTS + i]);
            loss += weight_of(p, "l2") * squares / ROWS + weight_of(p, "norm") * sqrt(squares) / (ROWS * SITES);
        }
        for (size_t i = 0; i < INPUTS; i++)
            aux += (p->r[row][i] - a[i]) * (p->r[row][i] - a[i]) / ROWS;
    }
    return loss + (p->any_dead ? weight_of(p, "aux") * aux / p->variance : 0);
}

static void open_problem(struct problem *p, struct backend_setup setup, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, RNG_TEST, 0);
    memset(p, 0, sizeof *p);
    setup.n_sites = SITES;
    setup.d_model = DIM;
    setup.d_sae = LATENTS;
    setup.batch_size = ROWS;
    p->setup = setup;
    if (crosscoder_init(&p->c, SITES, DIM, LATENTS, backend_has_thresholds(&p->setup), &e) ||
        train_state_init(&p->t, &p->c, &p->setup, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < p->c.n_params; i++)
        p->c.params[i] = (float)(0.5 * rng_normal(&r));
    for (size_t j = 0; p->c.log_threshold && j < LATENTS; j++)
        p->c.log_threshold[j] = (float)(0.1 + 0.3 * rng_normal(&r));
    for (size_t j = 0; j < LATENTS; j++)
        for (size_t site = 0; site < SITES; site++)
            for (size_t i = 0; i < DIM; i++) {
                float *enc = p->c.w_enc + j * INPUTS + site * DIM + i, *dec = p->c.w_dec + j * INPUTS + site * DIM + i;
                if (!backend_may_see(&p->setup, j, site))
                    *enc = *dec = 0;
                if (j < p->setup.partition.shared && site >= SITES / 2)
                    *dec = dec[-INPUTS / 2];
            }
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        p->x[i] = (float)rng_normal(&r);
    p->o = (struct step_options){.adam = {0, 0.999, 1e-8},
                                 .max_norm = INFINITY,
                                 .weight = {1, 0.7, 0.3, 0.2},
                                 .dead_rows = 100,
                                 .k = p->setup.most_k,
                                 .want_metrics = true};
    p->q = calloc(p->c.n_params, sizeof *p->q);
}

static void close_problem(struct problem *p)
{
    free(p->q);
    train_state_release(&p->t);
    crosscoder_release(&p->c);
}

/* One step, whose loss and gradients (Adam's first moment with beta1 = 0) must be those of the plain loss. A shared latent's two decoders are
 * one parameter: it moves as one, and its gradient stands in both places. */
static void check(struct problem *p)
{
    struct step_report r;
    const double h = 1e-6;
    double largest = 0, norm2 = 0;
    for (size_t i = 0; i < p->c.n_params; i++)
        p->q[i] = (double)p->c.params[i];
    settle(p);
    double want = plain_loss(p);
    if (train_step(&p->t, p->x, &p->o, &r, &e))
        fail_msg("%s", e.message);
    if (p->setup.path != STEP_AUTO)
        assert_int_equal(r.path, p->setup.path);
    if (!(fabs(r.loss - want) < 2e-6 * fabs(want)))
        fail_msg("loss %.9g, plain %.9g", r.loss, want);
    size_t n_active = 0;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t j = 0; j < LATENTS; j++)
            n_active += p->active[row][j];
    assert_true(fabs(r.l0 * ROWS - (double)n_active) < 1e-9);
    for (size_t i = 0; i < p->c.n_params; i++)
        largest = fmax(largest, fabs((double)p->t.m[i]));
    size_t dec = LATENTS * INPUTS;
    for (size_t i = 0; i < p->c.n_params; i++) {
        size_t latent = i % dec / INPUTS, column = i % INPUTS;
        bool matrix = i < 2 * dec, shared = i >= dec && matrix && latent < p->setup.partition.shared,
             twin = shared && column >= INPUTS / 2;
        if (matrix && !backend_may_see(&p->setup, latent, column / DIM)) {
            assert_true(p->t.m[i] == 0 && p->t.v[i] == 0 && p->c.params[i] == 0);
            continue;
        }
        if (twin) {
            assert_true(p->t.m[i] == p->t.m[i - INPUTS / 2] && p->c.params[i] == p->c.params[i - INPUTS / 2]);
            continue;
        }
        double sides[2];
        for (int side = 0; side < 2; side++) {
            double at = p->q[i] + (side ? -h : h), was = p->q[i];
            p->q[i] = at;
            if (shared)
                p->q[i + INPUTS / 2] = at;
            sides[side] = plain_loss(p);
            p->q[i] = was;
            if (shared)
                p->q[i + INPUTS / 2] = was;
        }
        double difference = (sides[0] - sides[1]) / (2 * h), got = (double)p->t.m[i];
        norm2 += got * got;
        if (!(fabs(got - difference) <= 1e-6 * (1 + largest) + 2e-5 * fabs(difference)))
            fail_msg("%s, parameter %zu: gradient %.9g, central difference %.9g", p->setup.activation, i, got,
                     difference);
    }
    assert_true(fabs(r.grad_norm - sqrt(norm2)) < 1e-5 * r.grad_norm);
}

static void check_seeds(struct backend_setup setup)
{
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct problem p;
        open_problem(&p, setup, seed);
        check(&p);
        close_problem(&p);
    }
}

/* ---- tests ---- */

static void test_topk(void **state)
{
    (void)state;
    for (size_t k = 1; k <= LATENTS; k += 5) {
        struct backend_setup s = {.activation = "topk", .terms = {"l2"}, .n_terms = 1, .most_k = k};
        check_seeds(s);
        s.score = SCORE_NORM;
        check_seeds(s);
    }
}

static void test_batchtopk(void **state)
{
    (void)state;
    for (size_t k = 1; k <= LATENTS; k += 5) {
        struct backend_setup s = {
            .activation = "batchtopk", .terms = {"norm"}, .n_terms = 1, .most_k = k, .score = SCORE_NORM_SUM};
        check_seeds(s);
        s.terms[1] = "l2";
        s.n_terms = 2;
        check_seeds(s);
    }
}

static void test_aux(void **state)
{
    (void)state;
    for (size_t aux_k = 1; aux_k < 12; aux_k += 3) {
        const struct backend_setup setup = {.activation = "batchtopk",
                                            .terms = {"norm", "aux"},
                                            .n_terms = 2,
                                            .most_k = 2,
                                            .aux_k = aux_k,
                                            .score = SCORE_NORM_SUM};
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct problem p;
            open_problem(&p, setup, seed);
            for (size_t j = 0; j < LATENTS; j += 2) {
                p.t.rows_since_fired[j] = j == 4 ? 88 : 1000; /* 4 is just too young */
                p.c.b_enc[j] -= seed == 3 ? 100 : 0.5f;       /* some of them fire all the same; of seed 3 nobody */
            }
            check(&p);
            size_t n = p.t.aux.lists.begin[LATENTS];
            assert_true(seed == 3 ? n == 0 : n > 0);
            close_problem(&p);
        }
        struct problem p; /* nobody is dead */
        open_problem(&p, setup, 9);
        check(&p);
        assert_true(p.t.aux.loss == 0 && p.t.aux.n_dead == 0);
        close_problem(&p);
    }
}

static void both_paths(struct backend_setup setup)
{
    for (int i = 0; i < 3; i++) {
        setup.path = i ? STEP_DENSE : STEP_SPARSE;
        setup.keep_gradients = i == 2;
        check_seeds(setup);
    }
}

static void test_jumprelu(void **state)
{
    (void)state;
    for (int ste = 0; ste < 2; ste++) {
        const struct backend_setup setup = {.activation = "jumprelu",
                                            .terms = {"l2", "tanh", "pre_act"},
                                            .n_terms = 3,
                                            .bandwidth = 0.8,
                                            .ste_to_input = ste,
                                            .tanh_scale = 1.5,
                                            .shared_coeff = 1};
        both_paths(setup);
    }
}

static void test_relu(void **state)
{
    (void)state;
    both_paths(
        (struct backend_setup){.activation = "relu", .terms = {"l2", "l1_joint"}, .n_terms = 2, .shared_coeff = 1});
    both_paths(
        (struct backend_setup){.activation = "relu", .terms = {"norm", "l1", "l2"}, .n_terms = 3, .shared_coeff = 1});
}

static void test_partition(void **state)
{
    (void)state;
    const struct partition partitions[] = {{5, {0, 0}}, {0, {6, 3}}, {4, {7, 8}}, {LATENTS, {0, 0}}, {0, {0, LATENTS}}};
    for (size_t i = 0; i < sizeof partitions / sizeof *partitions; i++) {
        struct backend_setup s = {.activation = "relu",
                                  .terms = {"l2", "l1", "l1_joint"},
                                  .n_terms = 3,
                                  .shared_coeff = 0.1,
                                  .partition = partitions[i]};
        both_paths(s);
        s = (struct backend_setup){.activation = "jumprelu",
                                   .terms = {"l2", "tanh", "pre_act"},
                                   .n_terms = 3,
                                   .bandwidth = 1,
                                   .tanh_scale = 1,
                                   .shared_coeff = 0.1,
                                   .partition = partitions[i]};
        both_paths(s);
        s = (struct backend_setup){.activation = "batchtopk",
                                   .terms = {"norm", "aux"},
                                   .n_terms = 2,
                                   .most_k = 3,
                                   .aux_k = 3,
                                   .score = SCORE_NORM_SUM,
                                   .partition = partitions[i]};
        struct problem p;
        open_problem(&p, s, i);
        for (size_t j = 1; j < LATENTS; j += 2) {
            p.t.rows_since_fired[j] = 1000;
            p.c.b_enc[j] -= 1;
        }
        check(&p);
        close_problem(&p);
    }
}

/* The threshold starts as the least kept score and then follows it slowly; by threshold a row's entries do not depend on other rows. */
static void test_threshold(void **state)
{
    (void)state;
    struct problem p;
    struct step_report r;
    open_problem(&p,
                 (struct backend_setup){
                     .activation = "batchtopk", .terms = {"l2"}, .n_terms = 1, .most_k = 4, .score = SCORE_NORM_SUM},
                 1);
    p.o.threshold_beta = 0.75;
    assert_int_equal(train_step(&p.t, p.x, &p.o, &r, &e), 0);
    assert_true(r.threshold == -1);
    p.o.move_threshold = true;
    assert_int_equal(train_step(&p.t, p.x, &p.o, &r, &e), 0);
    float first = p.t.selection.least;
    assert_true(r.threshold == (double)first && first > 0);
    assert_int_equal(train_step(&p.t, p.x, &p.o, &r, &e), 0);
    assert_true(r.threshold == (double)(float)(0.75 * (double)first + 0.25 * (double)p.t.selection.least));
    close_problem(&p);
}

/* Many equal scores: by row, then by latent; with any number of threads, and whatever was cut before. */
static void test_ties(void **state)
{
    (void)state;
    enum { N_LATENTS = 60, N_ROWS = 40, ALL = N_LATENTS * N_ROWS };
    static float f[N_ROWS][N_LATENTS];
    float factor[N_LATENTS];
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 1);
    for (size_t j = 0; j < N_LATENTS; j++)
        factor[j] = j % 2 ? 2 : 1;
    for (size_t row = 0; row < N_ROWS; row++)
        for (size_t j = 0; j < N_LATENTS; j++)
            f[row][j] = (float)(rng_u32(&r) % 5); /* scores 0 to 8, few values */
    f[7][9] = NAN;
    for (size_t n = 1; n < 60; n += 7) {
        for (int by_rows = 0; by_rows < 2; by_rows++) {
            struct active a = {0};
            struct order o;
            static unsigned char entries[ALL * ACTIVE_ENTRY + ROWS_AHEAD * 4];
            size_t begin[N_LATENTS + 1], wanted = by_rows ? n : n * N_ROWS;
            active_entries(&a, ALL, entries);
            a.begin = begin;
            begin[0] = 0;
            assert_int_equal(order_init(&o, N_ROWS, ALL, &e), 0);
            for (size_t j = 0; j < N_LATENTS; j++) {
                begin[j + 1] = begin[j];
                for (size_t row = 0; row < N_ROWS; row++)
                    if (f[row][j] != 0) {
                        a.row[begin[j + 1]] = (uint32_t)row;
                        a.f[begin[j + 1]++] = f[row][j];
                    }
                /* cut now and then, as streaming does */
                if (j % 20 == 19 && by_rows)
                    order_keep_rows(&o, &a, j + 1, factor, N_ROWS, wanted);
                else if (j % 20 == 19)
                    order_keep_greatest(&o, &a, j + 1, factor, N_ROWS, wanted);
            }
            for (size_t row = 0; row < N_ROWS; row++)
                for (size_t j = 0; j < N_LATENTS; j++) {
                    size_t before = 0; /* entries that come first */
                    float mine = isnan(f[row][j]) ? INFINITY : f[row][j] * factor[j];
                    for (size_t i = 0; i < ALL; i++) {
                        size_t r2 = i / N_LATENTS, j2 = i % N_LATENTS;
                        float other = isnan(f[r2][j2]) ? INFINITY : f[r2][j2] * factor[j2];
                        bool first = r2 < row || (r2 == row && j2 < j);
                        before += (!by_rows || r2 == row) && (other > mine || (!(other < mine) && first));
                    }
                    bool kept = false;
                    for (size_t i = begin[j]; i < begin[j + 1]; i++)
                        kept = kept || a.row[i] == row;
                    if (kept != (mine > 0 && before < wanted))
                        fail_msg("n %zu, rows %d: entry (%zu, %zu) is %s", n, by_rows, row, j, kept ? "kept" : "gone");
                }
            order_release(&o);
        }
    }
}

/* Several strips, odd sizes: the same bits with 1, 2 and 3 threads, and NaN is not hidden. */
static void test_threads(void **state)
{
    (void)state;
    const char *const activations[] = {"topk", "batchtopk", "jumprelu"};
    for (size_t k = 0; k < 3; k++) {
        struct backend_setup s = {.n_sites = 4,
                                  .d_model = 19,
                                  .d_sae = 9001,
                                  .batch_size = 67,
                                  .activation = activations[k],
                                  .terms = {"norm", k < 2 ? "aux" : "tanh", "pre_act"},
                                  .n_terms = k < 2 ? 2 : 3,
                                  .most_k = 17,
                                  .aux_k = 30,
                                  .score = SCORE_NORM_SUM,
                                  .bandwidth = 0.02,
                                  .tanh_scale = 4,
                                  .shared_coeff = 0.1,
                                  .partition = {500, {300, 200}}};
        struct backend *b[3];
        struct step_report r[3];
        struct rng rng;
        size_t n_params = 2 * 9001 * 76 + 9001 + 76 + (k == 2 ? 9001 : 0);
        float *x = calloc(67 * 76, sizeof *x), *params[3], *weights[3];
        uint64_t *ages = calloc(9001, sizeof *ages);
        rng_init(&rng, 3, RNG_TEST, 1);
        for (size_t i = 0; i < 67 * 76; i++)
            x[i] = (float)rng_normal(&rng);
        for (size_t j = 0; j < 9001; j += 3)
            ages[j] = 1000;
        for (int i = 0; i < 3; i++) {
            omp_set_num_threads(i + 1);
            gemm_set_threads(i + 1);
            b[i] = open_cpu(&s);
            assert_int_equal(initial_weights(b[i], &(struct initial_weights){.seed = 9, .dec_init_norm = 0.3}, &e), 0);
            assert_int_equal(backend_put_all(b[i], "rows_since_fired", ages, &e), 0);
            params[i] = calloc(n_params, sizeof **params);
            weights[i] = calloc(n_params, sizeof **weights);
            struct step_options o = {.adam = {0.9, 0.999, 1e-8},
                                     .max_norm = 1,
                                     .lr = 1e-3,
                                     .weight = {1, 0.1, 0.1},
                                     .dead_rows = 500,
                                     .k = 17,
                                     .want_metrics = true};
            for (int step = 0; step < 4; step++)
                if (b[i]->ops->step(b[i], x, &o, &r[i], &e))
                    fail_msg("%s", e.message);
            assert_int_equal(backend_get_all(b[i], "adam_m", params[i], &e), 0);
            assert_memory_equal(params[0], params[i], n_params * sizeof **params);
            get_params(b[i], weights[i]);
            assert_memory_equal(weights[0], weights[i], (n_params - (k == 2 ? 9001 : 0)) * sizeof **weights);
            assert_true(r[0].loss == r[i].loss && r[0].grad_norm == r[i].grad_norm && r[0].term[1] == r[i].term[1]);
            assert_true(k == 2 || r[i].term[1] > 0);
            float was = x[5];
            x[5] = NAN;
            assert_int_equal(b[i]->ops->step(b[i], x, &o, &r[i], &e), ERR_OVERFLOW);
            assert_non_null(strstr(e.message, "nan"));
            x[5] = was;
        }
        for (int i = 0; i < 3; i++) {
            assert_int_equal(backend_get_all(b[i], "adam_v", params[i], &e), 0);
            assert_memory_equal(params[0], params[i], n_params * sizeof **params);
            backend_cpu.close(b[i]);
        }
        for (int i = 0; i < 3; i++) {
            free(params[i]);
            free(weights[i]);
        }
        free(x);
        free(ages);
        omp_set_num_threads(1);
        gemm_set_threads(1);
    }
}

static void refused(struct backend_setup s, const char *one, const char *other)
{
    struct backend *b = NULL;
    s.n_sites = s.n_sites ? s.n_sites : 2;
    s.d_model = 3;
    s.d_sae = 10;
    s.batch_size = 4;
    if (!s.n_terms) {
        s.terms[0] = "l2";
        s.n_terms = 1;
    }
    assert_int_equal(backend_cpu.open(&b, &s, &e), ERR_INPUT);
    if (!strstr(e.message, one) || !strstr(e.message, other))
        fail_msg("'%s' should say '%s' and '%s'", e.message, one, other);
}

static void test_refused(void **state)
{
    (void)state;
    refused((struct backend_setup){.activation = "topk", .most_k = 11}, "11", "10");
    refused((struct backend_setup){.activation = "batchtopk", .most_k = 0}, "k 0", "10");
    refused((struct backend_setup){.activation = "batchtopk", .most_k = 2, .terms = {"l2", "l1"}, .n_terms = 2}, "l1",
            "batchtopk");
    refused((struct backend_setup){.activation = "relu", .terms = {"l2", "aux"}, .n_terms = 2}, "aux", "relu");
    refused((struct backend_setup){.activation = "jumprelu"}, "bandwidth 0", "above 0");
    refused((struct backend_setup){.activation = "relu", .n_sites = 3, .partition = {1, {0, 0}}}, "3 sites", "even");
    refused((struct backend_setup){.activation = "relu", .partition = {6, {3, 2}}}, "6 shared", "d_sae is 10");
    refused((struct backend_setup){.activation = "topk", .most_k = 2, .path = STEP_DENSE}, "topk", "dense");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topk),      cmocka_unit_test(test_batchtopk), cmocka_unit_test(test_aux),
        cmocka_unit_test(test_jumprelu),  cmocka_unit_test(test_relu),      cmocka_unit_test(test_partition),
        cmocka_unit_test(test_threshold), cmocka_unit_test(test_ties),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
