/* test_objectives_golden.c - 200 steps of every activation beside PyTorch's (tools/reference/objectives_reference.py): losses, gradient
 * norms, thresholds, which entries are active and which of the dead AuxK takes, who is dead, the weights at the end, and an evaluation
 * of them.
 *
 * A run's schedules are computed here, as the trainer's are, and compared with the file's. Where rounding selects another entry than PyTorch
 * did, the test says how often, and that the entry was within NEAR of its bound. */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "evaluation.h"
#include "geometric_median.h"
#include "near_ties.h"
#include "row_sample.h"
#include "safetensors.h"
#include "schedule.h"
#include "step.h"

enum {
    SITES = 4,
    DIM = 12,
    INPUTS = SITES * DIM,
    LATENTS = 96,
    ROWS = 1024,
    BATCH = 128,
    STEPS = 200,
    EVAL_ROWS = 200
};
enum { MATRIX = LATENTS * INPUTS, PARAMS = 2 * MATRIX + 2 * LATENTS + INPUTS };
enum { K = 6, K_START = 24, K_ANNEAL_STEPS = 48, THRESHOLD_START = 100, DEAD_ROWS = 384 };

static struct err e;
static struct safetensors file;

/* The runs are those of the reference, by name. */
struct run {
    const char *name;
    struct backend_setup setup; /* without sizes */
    double weight[3];           /* of the terms, at the end */
    double rises[3];            /* over so much of the run, from 0 */
    double dec_init_norm, max_norm;
    bool center;
};

/* What runs of an activation have in common. */
#define SELECTING .most_k = K_START, .aux_k = DIM / 2, .n_terms = 2
#define BATCHTOPK .activation = "batchtopk", .score = SCORE_NORM_SUM, .terms = {"norm", "aux"}, SELECTING
#define JUMPRELU .activation = "jumprelu", .terms = {"l2", "tanh", "pre_act"}, .n_terms = 3, .shared_coeff = 1

static const struct run runs[] = {
    {.name = "topk",
     .setup = {.activation = "topk", .score = SCORE_NONE, .terms = {"l2", "aux"}, SELECTING},
     .weight = {1, 1.0 / 32},
     .dec_init_norm = 0.3,
     .max_norm = 4.5},
    {.name = "batchtopk", .setup = {BATCHTOPK}, .weight = {1, 1.0 / 32}, .dec_init_norm = 1, .max_norm = 1},
    {.name = "batchtopk_squared",
     .setup = {.activation = "batchtopk", .score = SCORE_NORM, .terms = {"l2", "aux"}, SELECTING},
     .weight = {1, 1.0 / 32},
     .dec_init_norm = 0.3,
     .max_norm = 3.5,
     .center = true},
    {.name = "batchtopk_shared",
     .setup = {BATCHTOPK, .shared_coeff = 0.1, .partition = {24, {0, 0}}},
     .weight = {1, 1.0 / 32},
     .dec_init_norm = 1,
     .max_norm = 1},
    {.name = "batchtopk_exclusive",
     .setup = {BATCHTOPK, .partition = {0, {20, 12}}},
     .weight = {1, 1.0 / 32},
     .dec_init_norm = 1,
     .max_norm = 1},
    {.name = "jumprelu",
     .setup = {JUMPRELU, .bandwidth = 2, .tanh_scale = 4},
     .weight = {1, 0.5, 0.01},
     .rises = {0, 1, 0},
     .dec_init_norm = 0.3,
     .max_norm = 6},
    {.name = "jumprelu_ste",
     .setup = {JUMPRELU, .bandwidth = 0.5, .tanh_scale = 1, .ste_to_input = true},
     .weight = {1, 0.5, 0.01},
     .rises = {0, 1, 0},
     .dec_init_norm = 0.3,
     .max_norm = 4},
    {.name = "relu_joint",
     .setup = {.activation = "relu", .terms = {"l2", "l1_joint"}, .n_terms = 2, .shared_coeff = 1},
     .weight = {1, 0.3},
     .rises = {0, 0.05},
     .dec_init_norm = 0.3,
     .max_norm = 2.6},
    {.name = "relu_shared",
     .setup =
         {.activation = "relu", .terms = {"l2", "l1"}, .n_terms = 2, .shared_coeff = 0.1, .partition = {24, {0, 0}}},
     .weight = {1, 0.3},
     .rises = {0, 0.05},
     .dec_init_norm = 0.3,
     .max_norm = 2.6},
};

/* ---- the file ---- */

static int open_file(void **state)
{
    (void)state;
    return safetensors_open(&file, TEST_DATA "/objectives_golden.safetensors", &e);
}

static int close_file(void **state)
{
    (void)state;
    safetensors_close(&file);
    return 0;
}

static const struct tensor_view *find(const char *run, const char *name, size_t elements)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", run, name);
    const struct tensor_view *t = safetensors_find(&file, full);
    if (!t || t->bytes != elements * tensor_dtype_size(t->dtype))
        fail_msg("golden %s: missing or not of %zu elements", full, elements);
    return t;
}

static void read_floats(const char *run, const char *name, float *to, size_t n)
{
    assert_int_equal(tensor_to_f32(&file, find(run, name, n), to, &e), 0);
}

/* Reads a matrix of encoders, which the file has with the latent last. */
static void read_encoders(const char *run, const char *name, float *to)
{
    static float w[MATRIX];
    read_floats(run, name, w, MATRIX);
    for (size_t i = 0; i < MATRIX; i++)
        to[i % LATENTS * INPUTS + i / LATENTS] = w[i];
}

/* Reads a step's value, or with n = 1 a value of the evaluation. */
static double value_of(const struct run *run, const char *kind, const char *name, size_t n, size_t i)
{
    char full[96];
    double v;
    snprintf(full, sizeof full, ".%s.%s", kind, name);
    memcpy(&v, find(run->name, full, n)->data + 8 * i, 8);
    return v;
}

static uint64_t count_of(const struct run *run, const char *kind, const char *name, size_t n, size_t i)
{
    double v = value_of(run, kind, name, n, i);
    uint64_t u;
    memcpy(&u, &v, 8);
    return u;
}

static void read_rows(const struct run *run, float *x)
{
    float mean[INPUTS];
    read_floats("", "rows", x, ROWS * INPUTS);
    read_floats("", "mean", mean, INPUTS);
    for (size_t i = 0; run->center && i < ROWS * INPUTS; i++)
        x[i] -= mean[i % INPUTS];
}

/* Reads the weights that a run starts from: the file's matrices, scaled, with what its latents may not have cleared or tied. */
static void read_initial(const struct run *run, const struct backend_setup *setup, struct crosscoder *c)
{
    const float scale = (float)(run->dec_init_norm / 0.3);
    assert_int_equal(crosscoder_init(c, SITES, DIM, LATENTS, backend_has_thresholds(setup), &e), 0);
    read_encoders("", "initial.W_enc", c->w_enc);
    read_floats("", "initial.W_dec", c->w_dec, MATRIX);
    for (size_t i = 0; i < MATRIX; i++) {
        size_t j = i / INPUTS, site = i % INPUTS / DIM;
        bool sees = backend_may_see(setup, j, site), twin = j < setup->partition.shared && site >= SITES / 2;
        c->w_enc[i] = sees ? c->w_enc[i] * scale : 0;
        c->w_dec[i] = twin ? c->w_dec[i - INPUTS / 2] : sees ? c->w_dec[i] * scale : 0;
    }
    read_floats(run->name, ".initial.b_enc", c->b_enc, LATENTS);
    read_floats(run->name, ".initial.b_dec", c->b_dec, INPUTS);
    if (c->log_threshold)
        read_floats(run->name, ".initial.log_threshold", c->log_threshold, LATENTS);
}

/* ---- comparing ---- */

static void near(const struct run *run, const char *name, size_t step, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("%s, step %zu: %s %.9g, PyTorch has %.9g", run->name, step, name, got, want);
}

/* Weights must lie within 1e-3 of PyTorch's, relative to how far those have come. */
static void near_weights(const struct run *run, const char *name, const float *got, const float *want,
                         const float *initial, size_t n)
{
    double difference = 0, way = 0;
    for (size_t i = 0; i < n; i++) {
        difference += pow((double)got[i] - (double)want[i], 2);
        way += pow((double)want[i] - (double)initial[i], 2);
    }
    double relative = sqrt(difference / way);
    if (getenv("VERBOSE"))
        print_message("%s: final %s, relative distance %.2g\n", run->name, name, relative);
    if (!(relative < 1e-3))
        fail_msg("%s: final %s is off by %.3g of the way that it has come", run->name, name, relative);
}

static void compare_final(const struct run *run, const struct backend_setup *setup, const struct crosscoder *c)
{
    static float want[MATRIX];
    struct crosscoder initial;
    read_initial(run, setup, &initial);
    read_encoders(run->name, ".final.W_enc", want);
    near_weights(run, "W_enc", c->w_enc, want, initial.w_enc, MATRIX);
    read_floats(run->name, ".final.W_dec", want, MATRIX);
    near_weights(run, "W_dec", c->w_dec, want, initial.w_dec, MATRIX);
    read_floats(run->name, ".final.b_enc", want, LATENTS);
    near_weights(run, "b_enc", c->b_enc, want, initial.b_enc, LATENTS);
    read_floats(run->name, ".final.b_dec", want, INPUTS);
    near_weights(run, "b_dec", c->b_dec, want, initial.b_dec, INPUTS);
    if (c->log_threshold) {
        read_floats(run->name, ".final.log_threshold", want, LATENTS);
        near_weights(run, "log_threshold", c->log_threshold, want, initial.log_threshold, LATENTS);
    }
    crosscoder_release(&initial);
}

/* Fills the factors of the scores. */
static void score_factors(const struct backend_setup *s, const float *w_dec, double *factor)
{
    for (size_t j = 0; j < LATENTS; j++) {
        double sum = 0, all = 0;
        for (size_t site = 0; site < SITES; site++) {
            double squares = 0;
            for (size_t i = 0; i < DIM; i++)
                squares += pow((double)w_dec[j * INPUTS + site * DIM + i], 2);
            sum += sqrt(squares);
            all += squares;
        }
        factor[j] = s->score == SCORE_NORM_SUM ? sum : s->score == SCORE_NORM ? sqrt(all) : 1;
    }
}

/* Returns by how many entries a step's selection differs from PyTorch's, whose digest is given; each of them must be near its bound. params:
 * before the step. aux: the selection is AuxK's, of the latents that are dead now. */
static size_t flips(const struct run *run, const struct train_state *t, const float *params, const float *x, size_t k,
                    bool aux, uint64_t got, uint64_t want)
{
    if (got == want)
        return 0;
    const float *b_enc = params + 2 * MATRIX, *log_threshold = b_enc + LATENTS + INPUTS;
    double factor[LATENTS];
    bool dead[LATENTS], by_row = aux || t->selection.kind->scope == SCOPE_ROW;
    size_t n_dead = 0;
    for (size_t j = 0; j < LATENTS; j++)
        n_dead += dead[j] = t->rows_since_fired[j] >= DEAD_ROWS;
    score_factors(t->setup, params + MATRIX, factor);
    struct near_ties ties = near_ties_new(params, b_enc, factor, x, BATCH, INPUTS, LATENTS);
    if (aux)
        k = t->aux.k < n_dead ? t->aux.k : n_dead;
    if (by_row)
        for (size_t row = 0; row < BATCH; row++)
            near_ties_bound(&ties, row, 1, k, aux ? dead : NULL);
    else if (backend_has_k(t->setup))
        near_ties_bound(&ties, 0, BATCH, k * BATCH, NULL);
    for (size_t i = 0; backend_has_thresholds(t->setup) && i < BATCH * LATENTS; i++)
        ties.bound[i] = exp((double)log_threshold[i % LATENTS]);
    size_t n = near_ties_explain(&ties, got ^ want);
    near_ties_free(&ties);
    if (n == SIZE_MAX)
        fail_msg("%s, step %" PRIu64 ": %s differ from PyTorch's by more than near-ties", run->name, t->step - 1,
                 aux ? "AuxK's entries" : "active entries");
    return n;
}

/* ---- the runs ---- */

static double weight_at(const struct run *run, size_t term, uint64_t step)
{
    const struct schedule s = {
        .total_steps = STEPS, .l1_coeff = run->weight[term], .l1_warmup_fraction = run->rises[term]};
    return schedule_l1_coeff(&s, step);
}

/* Linear, rounded; a half to the even number, as crosscoder_learning has it. */
static size_t k_at(uint64_t step)
{
    double k = nearbyint(K_START + ((double)K - K_START) * (double)step / K_ANNEAL_STEPS);
    return step < K_ANNEAL_STEPS ? (size_t)k : K;
}

static struct step_options options_at(const struct run *run, uint64_t step)
{
    const struct schedule s = {.total_steps = STEPS, .lr = 2e-3, .lr_warmup_fraction = 0.05, .lr_decay_fraction = 0.2};
    struct step_options o = {.adam = {0.9, 0.999, 1e-8},
                             .max_norm = run->max_norm,
                             .lr = schedule_lr(&s, step),
                             .dead_rows = DEAD_ROWS,
                             .k = backend_has_k(&run->setup) ? k_at(step) : 0,
                             .move_threshold = step >= THRESHOLD_START,
                             .threshold_beta = 0.95,
                             .want_metrics = true};
    for (size_t i = 0; i < run->setup.n_terms; i++)
        o.weight[i] = weight_at(run, i, step);
    return o;
}

static void compare_step(const struct run *run, const struct step_report *r)
{
    size_t step = r->step;
    char name[64];
    for (size_t i = 0; i < run->setup.n_terms; i++) {
        snprintf(name, sizeof name, "weight.%s", run->setup.terms[i]);
        near(run, name, step, r->weight[i], value_of(run, "step", name, STEPS, step), 1e-12);
        snprintf(name, sizeof name, "term.%s", run->setup.terms[i]);
        near(run, name, step, r->term[i], value_of(run, "step", name, STEPS, step), 1e-4);
    }
    near(run, "lr", step, r->lr, value_of(run, "step", "lr", STEPS, step), 1e-12);
    near(run, "loss", step, r->loss, value_of(run, "step", "loss", STEPS, step), 1e-4);
    near(run, "grad_norm", step, r->grad_norm, value_of(run, "step", "grad_norm", STEPS, step), 1e-4);
    near(run, "norm_sum", step, r->norm_sum, value_of(run, "step", "norm_sum", STEPS, step), 1e-4);
    near(run, "share", step, r->share[0], value_of(run, "step", "share", STEPS, step), 1e-4);
    if (r->dead != count_of(run, "step", "dead", STEPS, step))
        fail_msg("%s, step %zu: %zu dead, PyTorch has %" PRIu64, run->name, step, r->dead,
                 count_of(run, "step", "dead", STEPS, step));
    if (backend_has_k(&run->setup)) {
        assert_int_equal(r->k, count_of(run, "step", "k", STEPS, step));
        near(run, "threshold", step, r->threshold, value_of(run, "step", "threshold", STEPS, step), 1e-5);
    }
}

/* Evaluates the weights as they are now, in a backend of their own. */
static void compare_evaluation(const struct run *run, const struct train_state *t, const float *x, size_t flipped)
{
    struct backend_setup setup = *t->setup;
    struct evaluation v;
    struct evaluation_report r;
    char name[64];
    struct backend *b = open_cpu(&setup);
    b->k = K;
    put_params(b, t->c->params);
    if (t->c->log_threshold)
        assert_int_equal(backend_put_all(b, "log_threshold", t->c->log_threshold, &e), 0);
    if (backend_has_k(&setup))
        assert_int_equal(backend_put_all(b, "threshold", &t->selection.threshold, &e), 0);
    assert_int_equal(evaluation_init(&v, b, &e), 0);
    evaluation_measure(&v, NULL, x, EVAL_ROWS);
    evaluation_begin(&v);
    assert_int_equal(evaluation_add(&v, NULL, x, EVAL_ROWS, &e), 0);
    double weight[TERMS_MAX] = {0};
    assert_int_equal(evaluation_finish(&v, weight, &r, &e), 0);
    assert_true(r.has_threshold == backend_has_k(&setup));
    for (size_t i = 0; i < setup.n_terms; i++) {
        snprintf(name, sizeof name, "term.%s", setup.terms[i]);
        if (strcmp(setup.terms[i], "aux") != 0)
            near(run, name, STEPS, r.term[i], value_of(run, "eval", name, 1, 0), 1e-4);
    }
    near(run, "fvu", STEPS, r.fvu.fvu, value_of(run, "eval", "fvu", 1, 0), 1e-4);
    near(run, "fvu_token", STEPS, r.fvu.fvu_token, value_of(run, "eval", "fvu_token", 1, 0), 1e-4);
    double active = r.l0 * EVAL_ROWS, by_threshold = r.threshold_l0 * EVAL_ROWS;
    assert_true(fabs(active - (double)count_of(run, "eval", "active", 1, 0)) < 0.5 + (double)flipped);
    if (r.has_threshold) {
        double want = (double)count_of(run, "eval", "threshold_active", 1, 0);
        assert_true(fabs(by_threshold - want) < 0.5 + (double)flipped);
        assert_true(by_threshold > active + 0.5 || by_threshold < active - 0.5); /* the two ways are not the same */
        near(run, "threshold_fvu", STEPS, r.threshold_fvu.fvu, value_of(run, "eval", "threshold_fvu", 1, 0), 1e-4);
        near(run, "threshold_fvu_token", STEPS, r.threshold_fvu.fvu_token,
             value_of(run, "eval", "threshold_fvu_token", 1, 0), 1e-4);
    }
    evaluation_release(&v);
    backend_cpu.close(b);
}

static void golden(const struct run *run, enum step_path path, bool keep_gradients)
{
    static float x[ROWS * INPUTS], before[PARAMS];
    struct backend_setup setup = run->setup;
    struct crosscoder c;
    struct train_state t;
    struct step_report r;
    size_t flipped = 0, clipped = 0, most_dead = 0, aux_entries = 0;
    double worst = 0;
    setup.n_sites = SITES;
    setup.d_model = DIM;
    setup.d_sae = LATENTS;
    setup.batch_size = BATCH;
    setup.two_models = true;
    setup.path = path;
    setup.keep_gradients = keep_gradients;
    read_rows(run, x);
    read_initial(run, &setup, &c);
    if (train_state_init(&t, &c, &setup, &e))
        fail_msg("%s: %s", run->name, e.message);
    for (size_t step = 0; step < STEPS; step++) {
        const struct step_options o = options_at(run, step);
        const float *batch = x + step * BATCH % ROWS * INPUTS;
        memcpy(before, c.params, c.n_params * sizeof *before);
        if (train_step(&t, batch, &o, &r, &e))
            fail_msg("%s: %s", run->name, e.message);
        assert_int_equal(r.path, path);
        size_t n;
        uint64_t digest = digest_entries(path == STEP_SPARSE ? &t.active : NULL, t.forward.f, BATCH, LATENTS, &n);
        assert_true(fabs(r.l0 * BATCH - (double)n) < 0.5);
        flipped +=
            flips(run, &t, before, batch, o.k, false, digest, count_of(run, "step", "active_digest", STEPS, step));
        if (t.aux.k) {
            digest = digest_entries(&t.aux.lists, NULL, BATCH, LATENTS, &n);
            flipped +=
                flips(run, &t, before, batch, o.k, true, digest, count_of(run, "step", "aux_digest", STEPS, step));
            aux_entries += n;
        }
        compare_step(run, &r);
        worst = fmax(worst, fabs(r.loss / value_of(run, "step", "loss", STEPS, step) - 1));
        clipped += r.grad_norm > run->max_norm;
        most_dead = r.dead > most_dead ? r.dead : most_dead;
    }
    if (flipped || getenv("VERBOSE"))
        print_message(
            "%s, %s: %zu entries of %d steps, near their bounds, were selected otherwise than by PyTorch; worst "
            "relative distance of a loss %.2g\n",
            run->name, path == STEP_SPARSE ? "sparse" : "dense", flipped, STEPS, worst);
    /* The golden is one in which something happens. */
    assert_true(clipped > 40 && clipped < 160 && most_dead > 0);
    assert_true(!t.aux.k || (aux_entries > 1000 && most_dead > t.aux.k));
    compare_final(run, &setup, &c);
    compare_evaluation(run, &t, x, flipped);
    train_state_release(&t);
    crosscoder_release(&c);
}

/* ---- tests ---- */

static void test_selecting(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        if (backend_has_k(&runs[i].setup))
            golden(&runs[i], STEP_SPARSE, false);
}

static void test_entry_by_entry(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        if (!backend_has_k(&runs[i].setup)) {
            golden(&runs[i], STEP_SPARSE, false);
            golden(&runs[i], STEP_DENSE, false);
            golden(&runs[i], STEP_DENSE, true);
        }
}

/* b_dec of batchtopk starts as the geometric median of the first batch, where the rows are centred, too. */
static void test_geometric_median(void **state)
{
    (void)state;
    static float x[ROWS * INPUTS];
    float mean[INPUTS], want[INPUTS], got[INPUTS];
    read_floats("", "rows", x, ROWS * INPUTS);
    read_floats("", "mean", mean, INPUTS);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (strcmp(runs[i].setup.activation, "batchtopk") != 0)
            continue;
        const struct row_sample s = {.rows = (const unsigned char *)x,
                                     .n_rows = BATCH,
                                     .n_sites = SITES,
                                     .d_model = DIM,
                                     .dtype = ROW_F32,
                                     .mean = runs[i].center ? mean : NULL};
        size_t iterations;
        assert_int_equal(
            geometric_median(&s, GEOMETRIC_MEDIAN_ITERATIONS, GEOMETRIC_MEDIAN_TOLERANCE, got, &iterations, &e), 0);
        read_floats(runs[i].name, ".initial.b_dec", want, INPUTS);
        for (size_t k = 0; k < INPUTS; k++)
            if (!(fabs((double)got[k] - (double)want[k]) <= 1e-6))
                fail_msg("%s: geometric median %.9g, PyTorch has %.9g", runs[i].name, (double)got[k], (double)want[k]);
    }
}

/* Near-ties are found and counted; an entry further from its bound is not excused. */
static void test_near_ties(void **state)
{
    (void)state;
    const float w[] = {1, 1.000004f, 1.001f, 0.5f}, zeros[4] = {0}, x[] = {1, -1};
    const double ones[] = {1, 1, 1, 1};
    struct near_ties t = near_ties_new(w, zeros, ones, x, 2, 1, 4);
    near_ties_bound(&t, 0, 1, 2, NULL); /* 1.001 and 1.000004 are selected, and 1 nearly is */
    near_ties_bound(&t, 1, 1, 2, NULL);
    assert_int_equal(near_ties_explain(&t, digest_of(0) ^ digest_of(1)), 2);
    assert_int_equal(near_ties_explain(&t, digest_of(0)), 1);
    assert_int_equal(near_ties_explain(&t, digest_of(0) ^ digest_of(2)), SIZE_MAX);
    assert_int_equal(near_ties_explain(&t, digest_of(4)), SIZE_MAX);
    const bool among[] = {true, false, true, false};
    near_ties_bound(&t, 0, 1, 1, among); /* 1.001 */
    assert_int_equal(near_ties_explain(&t, digest_of(2)), 1);
    assert_int_equal(near_ties_explain(&t, digest_of(0)), SIZE_MAX);
    near_ties_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near_ties),
        cmocka_unit_test(test_geometric_median),
        cmocka_unit_test(test_selecting),
        cmocka_unit_test(test_entry_by_entry),
    };
    return cmocka_run_group_tests(tests, open_file, close_file);
}
